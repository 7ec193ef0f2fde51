//! A task as the database holds it, and the one list of columns that reads it.

use jiff_sqlx::{DateTime, Timestamp};
use sqlx::types::Json;
use todo_recurrence::RepeatSpec;
use uuid::Uuid;

use super::input::ReminderFields;
use super::{Priority, ReminderInput, Status, Task, TaskReminder};
use crate::due::Due;
use crate::id::{ReminderId, UserId};

/// A task's row, with its tags and reminders gathered.
#[derive(sqlx::FromRow)]
pub(crate) struct TaskRow {
    pub(crate) id: Uuid,
    pub(crate) user_id: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) status: Status,
    pub(crate) priority: Priority,
    pub(crate) category: Option<String>,
    pub(crate) due_local: Option<DateTime>,
    pub(crate) due_zone: Option<String>,
    pub(crate) due_at: Option<Timestamp>,
    pub(crate) completed_at: Option<Timestamp>,
    pub(crate) parent_id: Option<Uuid>,
    pub(crate) schedule_id: Option<Uuid>,
    pub(crate) occurrence_at: Option<Timestamp>,
    pub(crate) recurrence: Option<Json<RepeatSpec>>,
    pub(crate) series_start: Option<DateTime>,
    pub(crate) previous_id: Option<Uuid>,
    pub(crate) version: i64,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) tags: Vec<String>,
    pub(crate) reminders: Json<Vec<ReminderRow>>,
}

/// A reminder as it is gathered into its task's row.
#[derive(serde::Deserialize)]
pub(crate) struct ReminderRow {
    id: Uuid,
    before_seconds: Option<i64>,
    at_local: Option<jiff::civil::DateTime>,
    at_zone: Option<String>,
    fire_at: Option<jiff::Timestamp>,
}

/// The start of every query that reads whole tasks: `SELECT … FROM tasks AS t`.
pub(crate) const SELECT_TASKS: &str = "
    SELECT
        t.id, t.user_id, t.title, t.description, t.status, t.priority, t.category,
        t.due_local, t.due_zone, t.due_at, t.completed_at, t.parent_id, t.schedule_id, t.occurrence_at,
        t.recurrence, t.series_start, t.previous_id, t.version, t.created_at, t.updated_at,
        ARRAY(SELECT g.tag FROM task_tags AS g WHERE g.task_id = t.id ORDER BY g.tag COLLATE \"C\") AS tags,
        COALESCE(
            (SELECT jsonb_agg(
                jsonb_build_object(
                    'id', r.id, 'before_seconds', r.before_seconds,
                    'at_local', r.at_local, 'at_zone', r.at_zone, 'fire_at', r.fire_at
                ) ORDER BY r.id)
            FROM reminders AS r
            WHERE r.task_id = t.id),
            '[]'
        ) AS reminders
    FROM tasks AS t
";

impl ReminderRow {
    /// The reminder's id and what it says. The instant of one with a time of its own is its `fire_at`, or is
    /// computed where that is gone because the task is closed.
    pub(crate) fn fields(self) -> (ReminderId, ReminderFields) {
        let fields = match (self.before_seconds, self.at_local, self.at_zone) {
            (Some(seconds), _, _) => ReminderFields::Before(seconds),
            (None, Some(local), Some(time_zone)) => ReminderFields::At(stored_due(local, time_zone, self.fire_at)),
            (None, _, _) => unreachable!("the constraint reminders_kind allows no third kind"),
        };
        (self.id.into(), fields)
    }
}

/// A due date from its stored parts; `at` is computed only where it was not stored.
pub(crate) fn stored_due(local: jiff::civil::DateTime, time_zone: String, at: Option<jiff::Timestamp>) -> Due {
    let at = at.unwrap_or_else(|| {
        let zone = todo_recurrence::zone::time_zone(&time_zone).unwrap_or(jiff::tz::TimeZone::UTC);
        todo_recurrence::zone::resolve(local, &zone)
    });
    Due { local, time_zone, at }
}

impl From<TaskRow> for Task {
    fn from(row: TaskRow) -> Self {
        let due = match (row.due_local, row.due_zone, row.due_at) {
            (Some(local), Some(time_zone), Some(at)) => Some(Due {
                local: local.to_jiff(),
                time_zone,
                at: at.to_jiff(),
            }),
            _ => None,
        };
        Self {
            id: row.id.into(),
            user_id: UserId::stored(row.user_id),
            title: row.title,
            description: row.description,
            status: row.status,
            priority: row.priority,
            category: row.category,
            tags: row.tags,
            due,
            completed_at: row.completed_at.map(Timestamp::to_jiff),
            parent_id: row.parent_id.map(Into::into),
            schedule_id: row.schedule_id.map(Into::into),
            occurrence_at: row.occurrence_at.map(Timestamp::to_jiff),
            recurrence: row.recurrence.map(|recurrence| recurrence.0),
            series_start: row.series_start.map(DateTime::to_jiff),
            previous_id: row.previous_id.map(Into::into),
            reminders: row
                .reminders
                .0
                .into_iter()
                .map(|reminder| {
                    let (id, fields) = reminder.fields();
                    TaskReminder {
                        id,
                        when: ReminderInput::from(&fields),
                    }
                })
                .collect(),
            version: row.version,
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
        }
    }
}
