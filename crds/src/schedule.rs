//! `RecurringSchedule`: a task that comes back, as people write it down.
//!
//! Here are the fields, their defaults, their bounds and the CEL rules that tie fields together. What CEL cannot say is
//! in `validate`; when occurrences are is the crate `todo-recurrence`.

#![allow(clippy::duplicated_attributes, reason = "each printer column has a name and a type")]
#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a function, where nothing is reachable"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use todo_recurrence::span::Span;

use crate::schema::{optional_span_schema, span_schema};

/// A task that comes back: when, for whom, and what the task looks like.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "todoplatform.dev",
    version = "v1alpha1",
    kind = "RecurringSchedule",
    plural = "recurringschedules",
    shortname = "taskschedule",
    shortname = "tsched",
    category = "todoplatform",
    namespaced,
    status = "RecurringScheduleStatus",
    derive = "PartialEq",
    doc = "A task that comes back: when, for whom, and what the task looks like.",
    printcolumn(
        name = "Platform",
        type_ = "string",
        json_path = ".spec.platformRef.name",
        description = "The platform that makes the tasks."
    ),
    printcolumn(
        name = "Schedule",
        type_ = "string",
        json_path = ".status.schedule",
        description = "The rule."
    ),
    printcolumn(
        name = "Zone",
        type_ = "string",
        json_path = ".spec.timeZone",
        description = "The time zone that the rule is read in."
    ),
    printcolumn(
        name = "Next",
        type_ = "string",
        json_path = ".status.next",
        description = "The next occurrence."
    ),
    printcolumn(
        name = "Last",
        type_ = "string",
        json_path = ".status.last",
        description = "The last occurrence whose task was made."
    ),
    printcolumn(
        name = "Made",
        type_ = "integer",
        json_path = ".status.made",
        description = "How many tasks were made."
    ),
    printcolumn(
        name = "Missed",
        type_ = "integer",
        json_path = ".status.missed",
        description = "How many occurrences have no task, by the catch-up policy."
    ),
    printcolumn(
        name = "Skipped",
        type_ = "integer",
        json_path = ".status.skipped",
        description = "How many occurrences have no task because the task before was open.",
        priority = 1
    ),
    printcolumn(
        name = "Suspended",
        type_ = "boolean",
        json_path = ".spec.suspend",
        description = "Whether it makes no tasks for now."
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the platform took it over."
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        description = "Why, in words.",
        priority = 1
    ),
    printcolumn(
        name = "User",
        type_ = "string",
        json_path = ".spec.user",
        description = "Whose tasks it makes.",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.at) || !has(self.schedule.cron)")
        .message("a cron expression says the time of day itself: at goes with rrule or every"),
    validation = Rule::new("size(self.template.reminders) == 0 || has(self.template.dueIn)")
        .message("template.reminders are before the due time: give template.dueIn")
)]
pub struct RecurringScheduleSpec {
    /// The platform that makes the tasks, in the same namespace. It cannot be changed: the tasks made so far are there.
    #[x_kube(validation = Rule::new("self == oldSelf").message("platformRef cannot be changed: delete the schedule and make another"))]
    pub platform_ref: PlatformRef,

    /// Whose tasks these are: the `sub` of that person's tokens. It cannot be changed.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("user cannot be changed: delete the schedule and make another"))]
    pub user: String,

    /// When: exactly one of `cron`, `rrule` and `every`.
    pub schedule: Rhythm,

    /// The civil time of day ("17:00") for an `rrule` or `every` that does not say one. Without it: the time of
    /// `start` (midnight when that is a day), else the time at which the schedule was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), regex(pattern = TIME_PATTERN))]
    pub at: Option<String>,

    /// The IANA time zone that all civil times here are read in, for example "Europe/Berlin".
    #[serde(default = "crate::default_time_zone")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,

    /// The first day ("2026-01-01") or civil time ("2026-01-01T09:00") at which an occurrence may be, and what an
    /// `rrule` or `every` counts from. Without it: the day on which the schedule was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 19), regex(pattern = CIVIL_PATTERN))]
    pub start: Option<String>,

    /// The last day (inclusive) or civil time at which an occurrence may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 19), regex(pattern = CIVIL_PATTERN))]
    pub end: Option<String>,

    /// What a month without the day (29 to 31) does, for `rrule` and `every`. Without it: a day that comes from the
    /// start is clamped, and one that the rule names itself (`BYMONTHDAY=31`) is strict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub month_end: Option<MonthEnd>,

    /// While true it makes no tasks. Occurrences in that time are not made up for.
    #[serde(default)]
    pub suspend: bool,

    /// What happens while the task before is still open.
    #[serde(default)]
    pub overlap: Overlap,

    /// What happens to occurrences that passed while nothing ran.
    #[serde(default)]
    pub catch_up: CatchUp,

    /// What each task looks like.
    pub template: TaskTemplate,
}

/// A civil time of day.
pub(crate) const TIME_PATTERN: &str = "^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$";
/// A civil date, or a civil date and time without a zone.
pub(crate) const CIVIL_PATTERN: &str = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?)?$";

/// The platform that makes the tasks.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PlatformRef {
    /// Its name.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
}

/// When: exactly one of the three.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.cron), has(self.rrule), has(self.every)].filter(given, given).size() == 1")
    .message("give exactly one of cron, rrule, every"))]
pub struct Rhythm {
    /// A cron expression: five fields (minute hour day-of-month month day-of-week), six with seconds first, or "@daily" and its kin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub cron: Option<String>,

    /// An RFC 5545 recurrence rule, for example "FREQ=MONTHLY;BYMONTHDAY=-1". `FREQ` is `DAILY` or slower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub rrule: Option<String>,

    /// An interval: a whole number and one of s, m, h (exact), d, w, mo, y (steps on the calendar), for example "2w".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16))]
    pub every: Option<String>,
}

impl Rhythm {
    /// The rule in one line, as `kubectl get` shows it.
    pub fn shown(&self) -> String {
        match self {
            Self { cron: Some(cron), .. } => cron.clone(),
            Self { rrule: Some(rrule), .. } => rrule.clone(),
            Self { every: Some(every), .. } => format!("every {every}"),
            Self { .. } => String::new(),
        }
    }
}

/// What a month without the day does.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonthEnd {
    /// Its last day is taken; the day asked for is remembered for the next month.
    Clamp,
    /// It is skipped, as RFC 5545 says.
    Strict,
}

/// What happens while the task before is still open.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// The next task is made all the same.
    #[default]
    Allow,
    /// No task is made.
    Skip,
}

/// What happens to occurrences that passed while nothing ran. What is not made is counted as missed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CatchUp {
    /// Which of them get a task.
    #[serde(default)]
    pub policy: CatchUpPolicy,

    /// How far back, at most "3660d".
    #[serde(default = "CatchUp::default_window")]
    #[schemars(schema_with = "span_schema")]
    pub window: Span,

    /// How many at most, the latest ones.
    #[serde(default = "CatchUp::default_max")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max: u32,
}

impl CatchUp {
    fn default_window() -> Span {
        Span::days(30)
    }

    fn default_max() -> u32 {
        1000
    }
}

impl Default for CatchUp {
    fn default() -> Self {
        Self {
            policy: CatchUpPolicy::default(),
            window: Self::default_window(),
            max: Self::default_max(),
        }
    }
}

/// Which of the passed occurrences get a task.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CatchUpPolicy {
    /// All within the window and the maximum.
    #[default]
    All,
    /// The latest one.
    Latest,
    /// None.
    None,
}

/// What each task looks like.
///
/// `title` and `description` may hold placeholders, which show the occurrence: `{{date}}`, `{{date:%B %Y}}`, `{{time}}`,
/// `{{weekday}}`, `{{week}}`, `{{n}}`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TaskTemplate {
    /// The title, one line, with placeholders such as "{{date}}".
    #[schemars(length(min = 1, max = 500))]
    pub title: String,

    /// The description, with placeholders such as "{{date}}".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20_000))]
    pub description: Option<String>,

    /// The category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub category: Option<String>,

    /// The tags.
    #[serde(default)]
    #[schemars(length(max = 50), inner(length(min = 1, max = 50)))]
    pub tags: Vec<String>,

    /// How much it matters.
    #[serde(default)]
    pub priority: Priority,

    /// How long after the occurrence the task is due, for example "8h". Without it the task has no due time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_span_schema")]
    pub due_in: Option<Span>,

    /// Reminders before the due time. None may be before the occurrence itself.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub reminders: Vec<ReminderTemplate>,
}

/// A reminder before the due time.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReminderTemplate {
    /// How long before, for example "30m", at most "366d".
    #[schemars(schema_with = "span_schema")]
    pub before: Span,
}

/// How much a task matters.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Priority {
    /// It can wait.
    Low,
    /// As usual.
    #[default]
    Medium,
    /// Before others.
    High,
    /// Before all others.
    Critical,
}

impl Priority {
    /// The name, as in the manifest and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// What became of the schedule.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RecurringScheduleStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The rule in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,

    /// The next occurrence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Time>,

    /// The last occurrence whose task was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Time>,

    /// How many tasks were made.
    #[serde(default)]
    pub made: i64,

    /// How many occurrences have no task, by the catch-up policy.
    #[serde(default)]
    pub missed: i64,

    /// How many occurrences have no task because the task before was still open (`overlap: Skip`).
    #[serde(default)]
    pub skipped: i64,

    /// The details, by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}
