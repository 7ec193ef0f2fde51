//! Schedules: what one is, how a caller writes one, and the commands and queries over them.
//!
//! `input` parses, `command` creates and changes, `query` reads, `catch_up` decides (purely) which occurrences are
//! made and which are missed, and `make` is what the worker calls: due occurrences become tasks. `declared` keeps the
//! schedules that files and the resources of a cluster declare, and `feed` says what became of the latter.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use todo_recurrence::ScheduleSpec;
use utoipa::ToSchema;

use crate::id::{ScheduleId, UserId};

mod catch_up;
mod command;
mod declared;
mod feed;
mod input;
mod make;
mod query;

pub use command::{change, create, delete, pause, resume};
pub use declared::{Declaration, delete_declared, put_declared, put_external, resource_field, retain_external};
pub use feed::{Changes, DeclaredState, FeedPosition, changed_after, rebase_after_restore};
pub use input::{CatchUpInput, ScheduleFields, ScheduleInput, TaskTemplate, TemplateReminder};
pub use make::{Made, make_due, until_next};
pub use query::{get, list, upcoming};

/// What happens to an occurrence while a task that the schedule made is still open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// It makes its task.
    #[default]
    Allow,
    /// It makes none and is counted as skipped.
    Skip,
}

/// Which of the occurrences that came due while nothing ran are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CatchUpPolicy {
    /// All of them, within the window and the maximum.
    #[default]
    All,
    /// Only the latest.
    Latest,
    /// None.
    None,
}

/// A schedule, as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Schedule {
    /// The schedule.
    pub id: ScheduleId,
    /// Whose tasks it makes.
    pub user_id: UserId,
    /// Its name.
    pub name: String,
    /// When.
    #[schema(example = json!({"cron": "0 9 * * 1", "time_zone": "Europe/Berlin"}))]
    pub schedule: ScheduleSpec,
    /// What it makes.
    pub template: TaskTemplate,
    /// What happens while one is open.
    pub overlap: Overlap,
    /// What happens after downtime.
    pub catch_up: CatchUpInput,
    /// It makes nothing until it is resumed.
    pub suspended: bool,
    /// The next occurrence; `null` when the rule has ended.
    pub next_at: Option<Timestamp>,
    /// The last occurrence that made a task.
    pub last_at: Option<Timestamp>,
    /// Tasks that it made.
    pub made: i64,
    /// Occurrences that made none because nothing ran in time.
    pub missed: i64,
    /// Occurrences that made none because an earlier task was open.
    pub skipped: i64,
    /// Why it makes nothing although it is not suspended.
    pub problem: Option<String>,
    /// Counts its changes, from 1; the `ETag`.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Where its rule counts from.
    #[serde(skip)]
    pub(crate) anchor_at: Timestamp,
    /// The last instant that was dealt with.
    #[serde(skip)]
    pub(crate) cursor_at: Timestamp,
}
