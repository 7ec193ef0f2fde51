//! Tasks: what one is, how a caller writes one, and the commands and queries over them.
//!
//! `input` parses, `create` and `change` are the commands (each one transaction with its event), `query` reads,
//! `row` is the shape in the database, `next` makes the next task of one that repeats, `parent` keeps tasks a tree.

use std::str::FromStr;

use jiff::{Timestamp, civil::DateTime};
use serde::{Deserialize, Serialize};
use todo_recurrence::RepeatSpec;
use utoipa::ToSchema;

use crate::due::Due;
use crate::id::{ReminderId, ScheduleId, TaskId, UserId};

mod change;
mod create;
mod input;
mod next;
mod parent;
mod query;
mod row;

pub(crate) use change::{append, changed_fields};
pub use change::{change, complete, delete, lock, reopen};
pub use create::create;
pub(crate) use create::{NewTask, insert};
pub use input::{ReminderInput, TaskFields, TaskInput};
pub use next::make_next;
pub use query::{Direction, Filter, ListQuery, Page, Position, Sort, get, list};
pub(crate) use row::{SELECT_TASKS, TaskRow};

/// How much a task matters. Sorts from low to critical.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema, sqlx::Type,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "task_priority", rename_all = "lowercase")]
pub enum Priority {
    /// Can wait.
    Low,
    /// What a task has when nothing is said.
    #[default]
    Medium,
    /// Before the others.
    High,
    /// Now.
    Critical,
}

/// Whether a task is still to be done.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema, sqlx::Type,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "task_status", rename_all = "lowercase")]
pub enum Status {
    /// To be done.
    #[default]
    Open,
    /// Done.
    Completed,
}

macro_rules! lowercase_from_str {
    ($name:ident { $($text:literal => $variant:ident),+ }) => {
        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(concat!("must be one of", $(" `", $text, "`"),+).to_owned()),
                }
            }
        }
    };
}
lowercase_from_str!(Priority { "low" => Low, "medium" => Medium, "high" => High, "critical" => Critical });
lowercase_from_str!(Status { "open" => Open, "completed" => Completed });

impl Priority {
    /// The name, as the API and the database have it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// A recurrence as the database keeps it.
pub(crate) fn recurrence_json(recurrence: &RepeatSpec) -> serde_json::Value {
    serde_json::to_value(recurrence).expect("a recurrence has only string keys, so it is always valid JSON")
}

/// A reminder as part of its task: what it says, not whether it went out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskReminder {
    /// The reminder.
    pub id: ReminderId,
    /// When it is to go out.
    #[serde(flatten)]
    pub when: ReminderInput,
}

/// A task, as the API shows it and as events carry it (`task_data`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// The task's id.
    pub id: TaskId,
    /// Whose it is.
    pub user_id: UserId,
    /// One line, 1 to 500 characters.
    pub title: String,
    /// Free text, at most 20,000 characters.
    pub description: String,
    /// Open or completed.
    pub status: Status,
    /// How much it matters.
    pub priority: Priority,
    /// One word of sorting, 1 to 100 characters.
    pub category: Option<String>,
    /// Lower case, sorted, no two alike.
    pub tags: Vec<String>,
    /// When it is due.
    pub due: Option<Due>,
    /// When it was completed.
    pub completed_at: Option<Timestamp>,
    /// The task that it is a part of.
    pub parent_id: Option<TaskId>,
    /// The schedule that made it.
    pub schedule_id: Option<ScheduleId>,
    /// The occurrence of that schedule that it stands for.
    pub occurrence_at: Option<Timestamp>,
    /// How it comes back when it is completed.
    #[schema(example = json!({"every": "1mo", "mode": "from_due"}))]
    pub recurrence: Option<RepeatSpec>,
    /// The civil due time of the first task of its series.
    #[schema(value_type = Option<String>)]
    pub series_start: Option<DateTime>,
    /// The task whose completion made it.
    pub previous_id: Option<TaskId>,
    /// Its reminders, by what they say.
    pub reminders: Vec<TaskReminder>,
    /// Counts its changes, from 1; the `ETag`.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Task {
    /// The task as JSON, for an event.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a task has only string keys, so it is always valid JSON")
    }
}
