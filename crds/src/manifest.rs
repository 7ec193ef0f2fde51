//! Manifests: YAML files with one `TodoPlatform` and any number of `RecurringSchedule` documents.
//!
//! [`load`] reads them whole and answers with the typed resources, or with every mistake that it found, each with its
//! place. It does no I/O and knows no defaults but those of the schema; [`Manifest::default_platform`] is what runs
//! when nobody wrote a manifest.

use std::collections::HashMap;

use kube::ResourceExt as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::platform::{TodoPlatform, TodoPlatformSpec};
use crate::schedule::RecurringSchedule;
use crate::schema;
use crate::validate::Problem;
use crate::words::{nearest, quoted};
use crate::yaml::{self, Document, Position};

/// The largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// What was declared: one platform and its schedules.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The platform.
    pub platform: TodoPlatform,
    /// Its schedules, in the order in which they were written.
    pub schedules: Vec<RecurringSchedule>,
    /// Where each of `schedules` was written, in the same order.
    pub schedule_origins: Vec<Origin>,
}

/// Where a document was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file, as it was given.
    pub file: String,
    /// The line on which the document begins, from 1.
    pub line: usize,
}

/// One mistake in a manifest. It prints as one line: file, line, column, field, what is wrong, what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {}{message}", if field.is_empty() { String::new() } else { format!("{field}: ") })]
pub struct ManifestError {
    /// The file, as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// The field, such as `spec.schedule.cron`; empty when the whole document is meant.
    pub field: String,
    /// What is wrong; what is allowed.
    pub message: String,
}

impl ManifestError {
    fn new(file: &str, at: Position, field: &str, message: &str) -> Self {
        let one_line = |text: &str| text.replace(char::is_control, " ");
        Self {
            file: one_line(file),
            line: at.line,
            column: at.column,
            field: one_line(field),
            message: one_line(message),
        }
    }
}

impl Manifest {
    /// What runs when no manifest is given: a platform `home` of this version, with every default.
    pub fn default_platform() -> Self {
        let spec = TodoPlatformSpec::of_version(env!("CARGO_PKG_VERSION"));
        Self {
            platform: TodoPlatform::new("home", spec),
            schedules: Vec::new(),
            schedule_origins: Vec::new(),
        }
    }
}

/// Reads manifests: each source is a name for messages (a path, or "-") and the text.
///
/// # Errors
/// Every mistake, in the order of the files and lines; the resources count for nothing then.
pub fn load(sources: &[(impl AsRef<str>, impl AsRef<str>)]) -> Result<Manifest, Vec<ManifestError>> {
    let mut reading = Reading::default();
    for (file, text) in sources {
        reading.file(file.as_ref(), text.as_ref());
    }
    let first_file = sources.first().map_or("-", |(file, _)| file.as_ref());
    reading.finish(first_file)
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    platforms: Vec<Read<TodoPlatform>>,
    schedules: Vec<Read<RecurringSchedule>>,
    errors: Vec<ManifestError>,
}

/// A document that is valid by itself.
struct Read<T> {
    resource: T,
    file: String,
    document: Document,
}

impl<T> Read<T> {
    fn error(&self, field: &str, message: &str) -> ManifestError {
        ManifestError::new(&self.file, self.document.value_position(field), field, message)
    }
}

impl Reading {
    fn file(&mut self, file: &str, text: &str) {
        let start = Position { line: 1, column: 1 };
        if text.len() > MAX_FILE_BYTES {
            let message = format!("the file has {} bytes; allowed: {MAX_FILE_BYTES}", text.len());
            self.errors.push(ManifestError::new(file, start, "", &message));
            return;
        }
        let (documents, refused) = yaml::documents(text);
        let found = self.errors.len();
        for document in documents {
            self.document(file, document);
        }
        if let Some(refused) = refused {
            self.errors
                .push(ManifestError::new(file, refused.at, &refused.path, &refused.message));
        }
        self.errors[found..].sort_by_key(|error| (error.line, error.column));
    }

    fn document(&mut self, file: &str, document: Document) {
        let kind = match kind_of(&document.value) {
            Ok(kind) => kind,
            Err(problem) => return self.report(file, &document, &[problem]),
        };
        match kind {
            Kind::Platform => match typed(&document.value, &schema::PLATFORM, TodoPlatform::rules) {
                Ok(resource) => self.platforms.push(Read {
                    resource,
                    file: file.to_owned(),
                    document,
                }),
                Err(problems) => self.report(file, &document, &problems),
            },
            Kind::Schedule => match typed(&document.value, &schema::SCHEDULE, RecurringSchedule::rules) {
                Ok(resource) => self.schedules.push(Read {
                    resource,
                    file: file.to_owned(),
                    document,
                }),
                Err(problems) => self.report(file, &document, &problems),
            },
        }
    }

    fn report(&mut self, file: &str, document: &Document, problems: &[Problem]) {
        self.errors.extend(problems.iter().map(|problem| {
            let path = problem.path.as_str();
            let at = if problem.at_name {
                document.name_position(path)
            } else {
                document.value_position(path)
            };
            ManifestError::new(file, at, path, &problem.message)
        }));
    }

    /// What the documents must be to each other.
    fn finish(mut self, first_file: &str) -> Result<Manifest, Vec<ManifestError>> {
        for other in self.platforms.iter().skip(1) {
            let first = &self.platforms[0];
            let at = first.document.name_position("metadata.name").line;
            let message = format!("a second TodoPlatform; allowed: one, and {}:{at} has it", first.file);
            self.errors.push(other.error("metadata.name", &message));
        }
        let mut seen: HashMap<(String, String), usize> = HashMap::new();
        for (index, schedule) in self.schedules.iter().enumerate() {
            let key = (namespace(&schedule.resource), schedule.resource.name_any());
            if let Some(before) = seen.get(&key).map(|before| &self.schedules[*before]) {
                let at = before.document.name_position("metadata.name").line;
                let name = quoted(&key.1);
                let message = format!(
                    "a second RecurringSchedule with the name {name}; allowed: one, and {}:{at} has it",
                    before.file
                );
                self.errors.push(schedule.error("metadata.name", &message));
            } else {
                seen.insert(key, index);
            }
        }
        if let Some(platform) = self.platforms.first() {
            let name = platform.resource.name_any();
            let home = namespace(&platform.resource);
            for schedule in &self.schedules {
                let meant = &schedule.resource.spec.platform_ref.name;
                if *meant != name {
                    let message = format!(
                        "there is no platform {} in the manifest; allowed: {name}",
                        quoted(meant)
                    );
                    self.errors.push(schedule.error("spec.platformRef.name", &message));
                } else if namespace(&schedule.resource) != home {
                    let message = format!("the schedule must be in its platform's namespace; allowed: {home}");
                    self.errors.push(schedule.error("metadata.namespace", &message));
                }
            }
        } else if self.errors.is_empty() {
            // Otherwise it may be what could not be read.
            let message = "no TodoPlatform in the manifest; add a document with kind: TodoPlatform";
            self.errors.push(ManifestError::new(
                first_file,
                Position { line: 1, column: 1 },
                "",
                message,
            ));
        }
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let platform = self.platforms.pop().expect("no platform is an error above").resource;
        let origin = |schedule: &Read<_>| Origin {
            file: schedule.file.clone(),
            line: schedule.document.name_position("").line,
        };
        let schedule_origins = self.schedules.iter().map(origin).collect();
        let schedules = self.schedules.into_iter().map(|schedule| schedule.resource).collect();
        Ok(Manifest {
            platform,
            schedules,
            schedule_origins,
        })
    }
}

fn namespace(resource: &impl kube::ResourceExt) -> String {
    resource.namespace().unwrap_or_else(|| "default".to_owned())
}

enum Kind {
    Platform,
    Schedule,
}

fn kind_of(value: &Value) -> Result<Kind, Problem> {
    const API_VERSION: &str = "todoplatform.dev/v1alpha1";
    const KINDS: [&str; 2] = ["TodoPlatform", "RecurringSchedule"];
    debug_assert_eq!(API_VERSION, format!("{}/{}", crate::GROUP, crate::VERSION));

    if !value.is_object() {
        let message = "the document does not hold fields; allowed: apiVersion, kind, metadata, spec";
        return Err(Problem::new("", message.to_owned()));
    }
    let text = |field: &str, allowed: &str| match &value[field] {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Err(Problem::new(field, format!("missing; allowed: {allowed}"))),
        _ => Err(Problem::new(field, format!("not a string; allowed: {allowed}"))),
    };
    let api_version = text("apiVersion", API_VERSION)?;
    if api_version != API_VERSION {
        let message = format!("{} is not known here; allowed: {API_VERSION}", quoted(&api_version));
        return Err(Problem::new("apiVersion", message));
    }
    let allowed = KINDS.join(", ");
    match text("kind", &allowed)?.as_str() {
        "TodoPlatform" => Ok(Kind::Platform),
        "RecurringSchedule" => Ok(Kind::Schedule),
        other => {
            let meant = nearest(other, &KINDS)
                .map(|kind| format!("did you mean {kind}? "))
                .unwrap_or_default();
            Err(Problem::new(
                "kind",
                format!("{} is not known here; {meant}allowed: {allowed}", quoted(other)),
            ))
        }
    }
}

/// The resource in `value`, when the schema and then its rules find nothing wrong.
fn typed<T: DeserializeOwned>(
    value: &Value,
    schema: &Value,
    rules: fn(&T, &mut Vec<Problem>),
) -> Result<T, Vec<Problem>> {
    let mut problems = Vec::new();
    schema::check(schema, value, "", &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut present = value.clone();
    drop_nulls(&mut present);
    let resource: T = serde_path_to_error::deserialize(present).map_err(|error| {
        // The schema lets through what the types take: this is for the fields of `metadata` and `status` that are not ours.
        vec![Problem::new(
            error.path().to_string(),
            format!("{}; remove the field if it is not needed", error.inner()),
        )]
    })?;
    rules(&resource, &mut problems);
    if problems.is_empty() {
        Ok(resource)
    } else {
        Err(problems)
    }
}

/// A null field is an absent field, as the API server has it.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
