//! How a caller writes a task, and the checks that make it one.
//!
//! [`TaskInput`] is the JSON document: the body of a POST, and what a PATCH merges into. [`TaskFields`] is the
//! same after parsing: whoever holds one need not check again.

use jiff::{Timestamp, civil::DateTime};
use serde::{Deserialize, Serialize};
use todo_recurrence::span::Span;
use todo_recurrence::{Repeat, RepeatSpec};
use utoipa::ToSchema;

use super::{Priority, Status, Task};
use crate::due::{Due, DueInput};
use crate::error::Invalid;
use crate::id::TaskId;

const MAX_TITLE: usize = 500;
const MAX_DESCRIPTION: usize = 20_000;
const MAX_CATEGORY: usize = 100;
const MAX_TAG: usize = 50;
const MAX_TAGS: usize = 50;
const MAX_REMINDERS: usize = 20;
/// The longest time before a due date, in seconds: 366 days.
const MAX_BEFORE_SECONDS: u64 = 366 * 86_400;

/// When a reminder goes out: some time before the task is due, or at a time of its own. Exactly one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReminderInput {
    /// A length of time before the due date: `30m`, `2h`, `1d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "30m")]
    pub before: Option<Span>,
    /// A time of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DueInput>,
}

/// A task as a caller writes it. Absent fields take their defaults.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskInput {
    /// One line, 1 to 500 characters.
    #[schema(min_length = 1, max_length = 500)]
    pub title: String,
    /// Free text, at most 20,000 characters.
    #[serde(default)]
    #[schema(max_length = 20000)]
    pub description: String,
    /// Open or completed.
    #[serde(default)]
    pub status: Status,
    /// How much it matters.
    #[serde(default)]
    pub priority: Priority,
    /// One word of sorting, 1 to 100 characters.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 100)]
    pub category: Option<String>,
    /// At most 50, of at most 50 characters each; kept in lower case.
    #[serde(default)]
    #[schema(max_items = 50)]
    pub tags: Vec<String>,
    /// When it is due.
    #[serde(default)]
    pub due: Option<DueInput>,
    /// The task that it is a part of.
    #[serde(default)]
    pub parent_id: Option<TaskId>,
    /// How it comes back when it is completed; needs `due`.
    #[serde(default, deserialize_with = "crate::known_fields::recurrence")]
    #[schema(example = json!({"every": "1mo", "mode": "from_due"}))]
    pub recurrence: Option<RepeatSpec>,
    /// At most 20.
    #[serde(default)]
    #[schema(max_items = 20)]
    pub reminders: Vec<ReminderInput>,
}

/// When a reminder goes out, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReminderFields {
    /// Seconds before the due date.
    Before(i64),
    /// At a civil time of its own.
    At(Due),
}

impl ReminderFields {
    /// The instant at which it goes out for a task that is due at `due`; `None` when there is none.
    pub(crate) fn fire_at(&self, due: Option<&Due>) -> Option<Timestamp> {
        match self {
            Self::Before(seconds) => {
                let at = due?.at.as_second().checked_sub(*seconds)?;
                Timestamp::from_second(at).ok()
            }
            Self::At(at) => Some(at.at),
        }
    }

    /// What tells two reminders of one task apart, as the database keeps it.
    pub(crate) fn key(&self) -> (Option<i64>, Option<DateTime>, Option<&str>) {
        match self {
            Self::Before(seconds) => (Some(*seconds), None, None),
            Self::At(due) => (None, Some(due.local), Some(&due.time_zone)),
        }
    }
}

impl From<&ReminderFields> for ReminderInput {
    fn from(fields: &ReminderFields) -> Self {
        match fields {
            ReminderFields::Before(seconds) => Self {
                before: Some(Span::from_seconds(seconds.unsigned_abs())),
                at: None,
            },
            ReminderFields::At(due) => Self {
                before: None,
                at: Some(due.into()),
            },
        }
    }
}

impl ReminderInput {
    /// Checks it.
    pub(crate) fn parse(&self) -> Result<ReminderFields, Invalid> {
        match (&self.before, &self.at) {
            (Some(span), None) => {
                let seconds = span.seconds();
                if seconds > MAX_BEFORE_SECONDS {
                    return Err(Invalid::new("before", "must be at most 366d"));
                }
                Ok(ReminderFields::Before(seconds.cast_signed()))
            }
            (None, Some(at)) => at
                .parse()
                .map(ReminderFields::At)
                .map_err(|invalid| invalid.under("at")),
            _ => Err(Invalid::new("before", "exactly one of before and at is required")),
        }
    }
}

/// A task's writable fields, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskFields {
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) status: Status,
    pub(crate) priority: Priority,
    pub(crate) category: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) due: Option<Due>,
    pub(crate) parent_id: Option<TaskId>,
    pub(crate) recurrence: Option<RepeatSpec>,
    pub(crate) reminders: Vec<ReminderFields>,
}

impl TaskInput {
    /// A task with this title and nothing else.
    pub fn titled(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            description: String::new(),
            status: Status::Open,
            priority: Priority::default(),
            category: None,
            tags: Vec::new(),
            due: None,
            parent_id: None,
            recurrence: None,
            reminders: Vec::new(),
        }
    }

    /// Checks every field, and names each that is wrong.
    pub fn parse(self) -> Result<TaskFields, Vec<Invalid>> {
        let mut invalid = Vec::new();
        let title = self.title.trim().to_owned();
        check_text(&mut invalid, "title", &title, 1, MAX_TITLE);
        if title.contains(['\n', '\r']) {
            invalid.push(Invalid::new("title", "must be one line"));
        }
        check_text(&mut invalid, "description", &self.description, 0, MAX_DESCRIPTION);
        let category = self.category.map(|category| category.trim().to_owned());
        if let Some(category) = &category {
            check_text(&mut invalid, "category", category, 1, MAX_CATEGORY);
        }
        let tags = parse_tags(&mut invalid, self.tags);
        let due = match self.due.as_ref().map(DueInput::parse).transpose() {
            Ok(due) => due,
            Err(wrong) => {
                invalid.push(wrong.under("due"));
                None
            }
        };
        if let Some(recurrence) = &self.recurrence {
            if let Err(wrong) = Repeat::new(recurrence) {
                invalid.push(Invalid::new(wrong.field, wrong.message).under("recurrence"));
            }
            if self.due.is_none() {
                invalid.push(Invalid::new("recurrence", "needs a due date to count from; set due"));
            }
        }
        let reminders = parse_reminders(&mut invalid, &self.reminders);
        if !invalid.is_empty() {
            return Err(invalid);
        }
        Ok(TaskFields {
            title,
            description: self.description,
            status: self.status,
            priority: self.priority,
            category,
            tags,
            due,
            parent_id: self.parent_id,
            recurrence: self.recurrence,
            reminders,
        })
    }
}

impl From<&Task> for TaskInput {
    /// The document that a PATCH merges into.
    fn from(task: &Task) -> Self {
        Self {
            title: task.title.clone(),
            description: task.description.clone(),
            status: task.status,
            priority: task.priority,
            category: task.category.clone(),
            tags: task.tags.clone(),
            due: task.due.as_ref().map(DueInput::from),
            parent_id: task.parent_id,
            recurrence: task.recurrence.clone(),
            reminders: task.reminders.iter().map(|reminder| reminder.when.clone()).collect(),
        }
    }
}

fn check_text(invalid: &mut Vec<Invalid>, field: &str, text: &str, min: usize, max: usize) {
    let chars = text.chars().count();
    if chars < min || chars > max {
        invalid.push(Invalid::new(
            field,
            format!("must have {min} to {max} characters, has {chars}"),
        ));
    }
    // PostgreSQL's text cannot hold it.
    if text.contains('\0') {
        invalid.push(Invalid::new(field, "must not contain the character U+0000"));
    }
}

/// Tags in lower case, sorted, no two alike.
fn parse_tags(invalid: &mut Vec<Invalid>, tags: Vec<String>) -> Vec<String> {
    if tags.len() > MAX_TAGS {
        invalid.push(Invalid::new(
            "tags",
            format!("must be at most {MAX_TAGS}, are {}", tags.len()),
        ));
        return Vec::new();
    }
    let mut parsed: Vec<String> = tags.into_iter().map(|tag| tag.trim().to_lowercase()).collect();
    for (index, tag) in parsed.iter().enumerate() {
        check_text(invalid, &format!("tags[{index}]"), tag, 1, MAX_TAG);
    }
    parsed.sort_unstable();
    parsed.dedup();
    parsed
}

fn parse_reminders(invalid: &mut Vec<Invalid>, reminders: &[ReminderInput]) -> Vec<ReminderFields> {
    if reminders.len() > MAX_REMINDERS {
        invalid.push(Invalid::new(
            "reminders",
            format!("must be at most {MAX_REMINDERS}, are {}", reminders.len()),
        ));
        return Vec::new();
    }
    let mut parsed: Vec<ReminderFields> = Vec::with_capacity(reminders.len());
    for (index, reminder) in reminders.iter().enumerate() {
        match reminder.parse() {
            Ok(fields) if parsed.iter().any(|other| other.key() == fields.key()) => {
                invalid.push(Invalid::new(format!("reminders[{index}]"), "is there twice"));
            }
            Ok(fields) => parsed.push(fields),
            Err(wrong) => invalid.push(wrong.under(&format!("reminders[{index}]"))),
        }
    }
    parsed
}

/// A reminder before a due date that is not there would never go out: said when it is made. (One whose task
/// loses its due date later stays, and waits for the next.)
pub(crate) fn check_reminders_have_a_due_date(reminders: &[ReminderFields], due: Option<&Due>) -> Result<(), Invalid> {
    let waits = |reminder: &ReminderFields| matches!(reminder, ReminderFields::Before(_));
    match reminders.iter().position(waits) {
        Some(index) if due.is_none() => Err(Invalid::new(
            format!("reminders[{index}].before"),
            "needs a task with a due date; set due, or use at",
        )),
        _ => Ok(()),
    }
}

/// The civil time that a series begins at: kept from `earlier` while the task keeps repeating, else its due date.
pub(crate) fn series_start(
    recurrence: Option<&RepeatSpec>,
    due: Option<&Due>,
    earlier: Option<DateTime>,
) -> Option<DateTime> {
    recurrence?;
    earlier.or_else(|| due.map(|due| due.local))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::{Value, json};

    use super::*;

    /// A task with one field other than its default.
    fn with(field: &str, value: Value) -> TaskInput {
        let mut document = json!({"title": "a task", "due": {"local": "2101-01-31T09:00:00"}});
        document[field] = value;
        serde_json::from_value(document).unwrap()
    }

    /// The fields that are refused.
    fn refused(input: TaskInput) -> Vec<String> {
        let wrong = input.parse().unwrap_err();
        wrong.into_iter().map(|wrong| wrong.field).collect()
    }

    #[test]
    fn each_limit_counts_characters_and_its_last_one_is_allowed() {
        for (field, most) in [("title", 500), ("description", 20_000), ("category", 100)] {
            assert!(with(field, "ß".repeat(most).into()).parse().is_ok(), "{field}");
            assert_eq!(refused(with(field, "ß".repeat(most + 1).into())), [field]);
        }
        assert!(with("tags", json!(["ß".repeat(50)])).parse().is_ok());
        assert_eq!(refused(with("tags", json!(["fine", "ß".repeat(51)]))), ["tags[1]"]);
        let tags = |count: usize| Value::from((0..count).map(|tag| tag.to_string()).collect::<Vec<_>>());
        assert!(with("tags", tags(50)).parse().is_ok());
        assert_eq!(refused(with("tags", tags(51))), ["tags"]);
        let reminders = |count: usize| {
            Value::from(
                (0..count)
                    .map(|n| json!({"before": format!("{n}m")}))
                    .collect::<Vec<_>>(),
            )
        };
        assert!(with("reminders", reminders(20)).parse().is_ok());
        assert_eq!(refused(with("reminders", reminders(21))), ["reminders"]);
    }

    #[test]
    fn what_no_task_can_have_is_refused_by_its_field() {
        for (field, value, refused_field) in [
            ("title", json!("  "), "title"),
            ("title", json!("two\nlines"), "title"),
            ("title", json!("a\0b"), "title"),
            ("description", json!("a\0b"), "description"),
            ("category", json!(" "), "category"),
            ("category", json!("a\0b"), "category"),
            ("tags", json!(["a", " "]), "tags[1]"),
            (
                "due",
                json!({"local": "2101-01-31T09:00:00", "time_zone": "Mars/Olympus"}),
                "due.time_zone",
            ),
            ("recurrence", json!({"every": "sometimes"}), "recurrence.every"),
            (
                "recurrence",
                json!({"every": "1d", "cron": "0 9 * * *"}),
                "recurrence.every",
            ),
            ("reminders", json!([{"before": "1h"}, {}]), "reminders[1].before"),
            ("reminders", json!([{"before": "367d"}]), "reminders[0].before"),
            (
                "reminders",
                json!([{"before": "1h"}, {"before": "60m"}]),
                "reminders[1]",
            ),
            (
                "reminders",
                json!([{"at": {"time_zone": "UTC"}}]),
                "reminders[0].at.local",
            ),
        ] {
            assert_eq!(refused(with(field, value.clone())), [refused_field], "{field}: {value}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let input = TaskInput {
            category: Some(String::new()),
            recurrence: Some(RepeatSpec {
                every: Some("1d".to_owned()),
                ..RepeatSpec::default()
            }),
            ..TaskInput::titled("")
        };
        assert_eq!(refused(input), ["title", "category", "recurrence"]);
    }

    #[test]
    fn tags_are_lower_case_sorted_and_no_two_alike() {
        let fields = with("tags", json!([" Home ", "b", "HOME", "a", "ÄRGER"]))
            .parse()
            .unwrap();
        assert_eq!(fields.tags, ["a", "b", "home", "ärger"]);
    }

    #[test]
    fn a_misspelled_field_is_refused() {
        for document in [
            json!({"title": "a", "prio": "high"}),
            json!({"title": "a", "due": {"on": "2101-01-01"}}),
            json!({"title": "a", "reminders": [{"after": "1h"}]}),
        ] {
            assert!(
                serde_json::from_value::<TaskInput>(document.clone()).is_err(),
                "{document}"
            );
        }
    }

    #[test]
    fn a_reminder_counts_back_from_the_due_instant() {
        let due = Due::new("2101-03-01T00:30:00".parse().unwrap(), "UTC").unwrap();
        let before = ReminderFields::Before(3600);
        assert_eq!(
            before.fire_at(Some(&due)),
            Some("2101-02-28T23:30:00Z".parse().unwrap())
        );
        assert_eq!(before.fire_at(None), None);
        let at = ReminderFields::At(due.clone());
        assert_eq!(at.fire_at(None), Some(due.at));
    }

    #[test]
    fn a_series_begins_at_its_first_due_date_and_only_where_there_is_one() {
        let due = Due::new("2101-02-28T09:00:00".parse().unwrap(), "UTC").unwrap();
        let earlier = "2101-01-31T09:00:00".parse().unwrap();
        let monthly = RepeatSpec {
            every: Some("1mo".to_owned()),
            ..RepeatSpec::default()
        };
        assert_eq!(series_start(Some(&monthly), Some(&due), None), Some(due.local));
        assert_eq!(series_start(Some(&monthly), Some(&due), Some(earlier)), Some(earlier));
        assert_eq!(series_start(None, Some(&due), Some(earlier)), None);
    }

    #[test]
    fn reminders_before_need_a_due_date_and_those_at_do_not() {
        let due = Due::new("2101-02-28T09:00:00".parse().unwrap(), "UTC").unwrap();
        let reminders = [ReminderFields::At(due.clone()), ReminderFields::Before(60)];
        assert!(check_reminders_have_a_due_date(&reminders, Some(&due)).is_ok());
        assert!(check_reminders_have_a_due_date(&reminders[..1], None).is_ok());
        let wrong = check_reminders_have_a_due_date(&reminders, None).unwrap_err();
        assert_eq!(wrong.field, "reminders[1].before");
    }
}
