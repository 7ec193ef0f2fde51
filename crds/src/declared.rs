//! A `RecurringSchedule` as its platform takes it: the one conversion, for manifests on one machine and for resources of
//! a cluster.
//!
//! The names are those of the platform's HTTP API and not of the resource. Beside the content stands what tells the
//! resource from others: where it is, the keys that the same schedule has on a machine without a cluster, and a hash of
//! all of it, by which whoever sends it sees without a comparison whether it is in force.

use kube::ResourceExt as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use todo_recurrence::ScheduleSpec;
use todo_recurrence::span::Span;
use uuid::Uuid;

use crate::schedule::{CatchUpPolicy, Overlap, Priority, RecurringSchedule};
use crate::validate::Problem;

/// The UUIDv5 name space of schedules that have no UID of a cluster.
const SCHEDULES: Uuid = Uuid::from_u128(0x6f1c_6a52_0f0e_5d5e_9a53_3c64_8e0b_7d21);

/// The namespace of a resource that names none.
const DEFAULT_NAMESPACE: &str = "default";

/// A schedule as the platform takes it. As JSON it is the body of `PUT /internal/v1/schedules/{uid}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeclaredSchedule {
    /// The resource, `NAMESPACE/NAME`.
    pub origin: String,
    /// The keys that the same schedule has where its manifest runs without a cluster, the likeliest first.
    pub adopt: Vec<String>,
    /// SHA-256, in hexadecimal, of this as JSON without the hash: fields in the order of their declaration, no spaces.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// Whose tasks it makes.
    pub user: String,
    /// Its name.
    pub name: String,
    /// When.
    pub schedule: ScheduleSpec,
    /// What each occurrence makes.
    pub template: DeclaredTemplate,
    /// What happens while a task that it made is open.
    pub overlap: DeclaredOverlap,
    /// What happens after downtime.
    pub catch_up: DeclaredCatchUp,
    /// It makes nothing.
    pub suspended: bool,
}

/// The task that each occurrence makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeclaredTemplate {
    /// The title, with placeholders.
    pub title: String,
    /// Free text, with placeholders.
    pub description: String,
    /// How much the tasks matter.
    pub priority: Priority,
    /// The category.
    pub category: Option<String>,
    /// The tags.
    pub tags: Vec<String>,
    /// How long after the occurrence a task is due.
    pub due_in: Option<Span>,
    /// Reminders before the due date.
    pub reminders: Vec<DeclaredReminder>,
}

/// A reminder before the due date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DeclaredReminder {
    /// How long before.
    pub before: Span,
}

/// What happens while the task before is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeclaredOverlap {
    /// The next task is made all the same.
    Allow,
    /// No task is made.
    Skip,
}

/// What happens to occurrences that passed while nothing ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DeclaredCatchUp {
    /// Which of them get a task.
    pub policy: DeclaredCatchUpPolicy,
    /// How far back.
    pub window: Span,
    /// How many at most.
    pub max: u32,
}

/// Which of the passed occurrences get a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeclaredCatchUpPolicy {
    /// All within the window and the maximum.
    All,
    /// The latest one.
    Latest,
    /// None.
    None,
}

/// What the keys of all schedules begin with that a manifest declares for this platform on one machine.
pub fn manifest_prefix(platform: &str) -> String {
    format!("manifest/{platform}/")
}

impl RecurringSchedule {
    /// What the schedule's platform is to be told.
    ///
    /// # Errors
    /// The field that says no time. A [valid](RecurringSchedule::validate) schedule has none.
    ///
    /// # Panics
    /// Never: what is declared has only string keys.
    pub fn declared(&self, platform: &str) -> Result<DeclaredSchedule, Problem> {
        let (spec, name) = (&self.spec, self.name_any());
        let (namespace, template) = (self.namespace_or_default(), &spec.template);
        // A manifest need not say the namespace that it is applied to.
        let mut adopt = vec![key(platform, namespace_uid(&namespace, &name))];
        if namespace != DEFAULT_NAMESPACE {
            adopt.push(key(platform, namespace_uid(DEFAULT_NAMESPACE, &name)));
        }
        let mut declared = DeclaredSchedule {
            origin: format!("{namespace}/{name}"),
            adopt,
            hash: String::new(),
            user: spec.user.clone(),
            name,
            schedule: spec.recurrence().map_err(|error| Problem::of_rule(&error))?,
            template: DeclaredTemplate {
                title: template.title.clone(),
                description: template.description.clone().unwrap_or_default(),
                priority: template.priority,
                category: template.category.clone(),
                tags: template.tags.clone(),
                due_in: template.due_in,
                reminders: template
                    .reminders
                    .iter()
                    .map(|reminder| DeclaredReminder {
                        before: reminder.before,
                    })
                    .collect(),
            },
            overlap: match spec.overlap {
                Overlap::Allow => DeclaredOverlap::Allow,
                Overlap::Skip => DeclaredOverlap::Skip,
            },
            catch_up: DeclaredCatchUp {
                policy: match spec.catch_up.policy {
                    CatchUpPolicy::All => DeclaredCatchUpPolicy::All,
                    CatchUpPolicy::Latest => DeclaredCatchUpPolicy::Latest,
                    CatchUpPolicy::None => DeclaredCatchUpPolicy::None,
                },
                window: spec.catch_up.window,
                max: spec.catch_up.max,
            },
            suspended: spec.suspend,
        };
        let json = serde_json::to_vec(&declared).expect("a declared schedule has only string keys");
        declared.hash = hex(&Sha256::digest(json));
        Ok(declared)
    }

    /// The key of the schedule where its manifest runs without a cluster: [`manifest_prefix`] and a UUID, the same at
    /// each start.
    pub fn manifest_key(&self, platform: &str) -> String {
        key(platform, self.stable_uid())
    }

    /// What identifies the schedule for good: the UID that a cluster gave it, else one made of its namespace and name,
    /// the same at each start.
    pub fn stable_uid(&self) -> Uuid {
        let given = self.metadata.uid.as_deref().and_then(|uid| Uuid::parse_str(uid).ok());
        given.unwrap_or_else(|| namespace_uid(&self.namespace_or_default(), &self.name_any()))
    }

    fn namespace_or_default(&self) -> String {
        self.namespace().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
    }
}

fn namespace_uid(namespace: &str, name: &str) -> Uuid {
    Uuid::new_v5(&SCHEDULES, format!("{namespace}/{name}").as_bytes())
}

fn key(platform: &str, uid: Uuid) -> String {
    format!("{}{uid}", manifest_prefix(platform))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)])
        .collect()
}
