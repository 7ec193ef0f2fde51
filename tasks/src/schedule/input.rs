//! How a caller writes a schedule, and the checks that make it one.

use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use todo_recurrence::placeholder::Template;
use todo_recurrence::span::Span;
use todo_recurrence::{ScheduleSpec, zone};
use utoipa::ToSchema;

use super::{CatchUpPolicy, Overlap, Schedule};
use crate::due::DueInput;
use crate::error::Invalid;
use crate::task::{Priority, ReminderInput, TaskFields, TaskInput};

const MAX_NAME: usize = 253;
const MAX_CATCH_UP: i32 = 10_000;
/// The longest catch-up window, in seconds: ten years.
const MAX_WINDOW_SECONDS: u64 = 10 * 366 * 86_400;

/// A reminder of the tasks that a schedule makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateReminder {
    /// How long before the task is due.
    #[schema(value_type = String, example = "30m")]
    pub before: Span,
}

/// The task that each occurrence makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskTemplate {
    /// One line; `{{date}}`, `{{date:%B %Y}}`, `{{time}}`, `{{weekday}}`, `{{week}}` and `{{n}}` stand for the occurrence.
    pub title: String,
    /// Free text, with the same placeholders.
    #[serde(default)]
    pub description: String,
    /// How much the tasks matter.
    #[serde(default)]
    pub priority: Priority,
    /// One word of sorting.
    #[serde(default)]
    pub category: Option<String>,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// How long after the occurrence a task is due; without it tasks have no due date.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "8h")]
    pub due_in: Option<Span>,
    /// Reminders before the due date.
    #[serde(default)]
    pub reminders: Vec<TemplateReminder>,
}

/// What is done about occurrences that came due while nothing ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CatchUpInput {
    /// Which of them are made.
    pub policy: CatchUpPolicy,
    /// Older ones than this are missed.
    #[schema(value_type = String, example = "30d")]
    pub window: Span,
    /// At most this many are made, the latest; the others are missed.
    #[schema(minimum = 1, maximum = 10000)]
    pub max: i32,
}

impl Default for CatchUpInput {
    fn default() -> Self {
        Self {
            policy: CatchUpPolicy::All,
            window: Span::days(30),
            max: 1000,
        }
    }
}

/// A schedule as a caller writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleInput {
    /// A name, 1 to 253 characters.
    pub name: String,
    /// When: exactly one of `cron`, `rrule` and `every`, and the time zone.
    #[serde(deserialize_with = "crate::known_fields::schedule")]
    #[schema(example = json!({"cron": "0 9 * * 1", "time_zone": "Europe/Berlin"}))]
    pub schedule: ScheduleSpec,
    /// What each occurrence makes.
    pub template: TaskTemplate,
    /// What happens while a task that it made is open.
    #[serde(default)]
    pub overlap: Overlap,
    /// What happens after downtime.
    #[serde(default)]
    pub catch_up: CatchUpInput,
    /// It makes nothing until it is resumed.
    #[serde(default)]
    pub suspended: bool,
}

/// A schedule's writable fields, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleFields {
    pub(crate) name: String,
    pub(crate) spec: ScheduleSpec,
    pub(crate) template: TaskTemplate,
    pub(crate) overlap: Overlap,
    pub(crate) catch_up: CatchUpInput,
    pub(crate) suspended: bool,
    pub(crate) anchor: Timestamp,
}

impl ScheduleInput {
    /// Checks every field and names each that is wrong. `now` is where a rule without a start counts from.
    pub fn parse(self, now: Timestamp) -> Result<ScheduleFields, Vec<Invalid>> {
        let mut invalid = Vec::new();
        let name = self.name.trim().to_owned();
        if !(1..=MAX_NAME).contains(&name.chars().count()) || name.chars().any(char::is_control) {
            invalid.push(Invalid::new(
                "name",
                format!("must be 1 to {MAX_NAME} characters, on one line"),
            ));
        }
        let anchor = anchor(now);
        if let Err(wrong) = todo_recurrence::Schedule::new(&self.schedule, anchor) {
            invalid.push(Invalid::new(wrong.field, wrong.message).under("schedule"));
        }
        if !(1..=MAX_CATCH_UP).contains(&self.catch_up.max) {
            invalid.push(Invalid::new("catch_up.max", format!("must be 1 to {MAX_CATCH_UP}")));
        }
        if self.catch_up.window.seconds() > MAX_WINDOW_SECONDS {
            invalid.push(Invalid::new("catch_up.window", "must be at most ten years"));
        }
        if self.template.due_in.is_none() && !self.template.reminders.is_empty() {
            invalid.push(Invalid::new(
                "template.reminders",
                "need a due date to come before; set template.due_in",
            ));
        }
        // The task of an occurrence now shows what the task of any occurrence would be refused for.
        if invalid.is_empty()
            && let Err(wrong) = self.template.task(&now.to_zoned(zone_of(&self.schedule)), 1)
        {
            invalid.extend(wrong.into_iter().map(|wrong| wrong.under("template")));
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        Ok(ScheduleFields {
            name,
            spec: self.schedule,
            template: self.template,
            overlap: self.overlap,
            catch_up: self.catch_up,
            suspended: self.suspended,
            anchor,
        })
    }
}

/// The anchor of a rule that begins `now`: a whole second, as a user would name it.
fn anchor(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// The zone of a rule that was checked.
pub(crate) fn zone_of(spec: &ScheduleSpec) -> jiff::tz::TimeZone {
    zone::time_zone(&spec.time_zone).unwrap_or(jiff::tz::TimeZone::UTC)
}

impl TaskTemplate {
    /// The task of the `n`-th occurrence, at `at`.
    pub(crate) fn task(&self, at: &Zoned, n: u64) -> Result<TaskFields, Vec<Invalid>> {
        let render = |field: &str, text: &str| {
            Template::parse(text)
                .map(|template| template.render(at, n))
                .map_err(|message| vec![Invalid::new(field, message)])
        };
        let due = self
            .due_in
            .and_then(|due_in| at.timestamp().checked_add(due_in.duration()).ok());
        let zone = at.time_zone().iana_name().unwrap_or("UTC");
        let due = due.map(|due| DueInput {
            local: None,
            time_zone: Some(zone.to_owned()),
            at: Some(due),
        });
        TaskInput {
            title: render("title", &self.title)?,
            description: render("description", &self.description)?,
            priority: self.priority,
            category: self.category.clone(),
            tags: self.tags.clone(),
            due,
            reminders: self
                .reminders
                .iter()
                .map(|reminder| ReminderInput {
                    before: Some(reminder.before),
                    at: None,
                })
                .collect(),
            ..TaskInput::titled("")
        }
        .parse()
    }
}

impl From<&Schedule> for ScheduleInput {
    /// The document that a PATCH merges into.
    fn from(schedule: &Schedule) -> Self {
        Self {
            name: schedule.name.clone(),
            schedule: schedule.schedule.clone(),
            template: schedule.template.clone(),
            overlap: schedule.overlap,
            catch_up: schedule.catch_up,
            suspended: schedule.suspended,
        }
    }
}
