//! Reminders: under their task for the user, and as what comes due for the worker.
//!
//! What a reminder says is part of its task and changes with it (one version, one event). Whether it went out is
//! its own affair: `send` claims what is due and tells, exactly once. `alarm` keeps the books of jobs in a scheduler
//! that wake the worker for it.

use jiff::Timestamp;
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::error::{Error, Invalid, Result};
use crate::id::{ReminderId, TaskId, UserId};
use crate::task::{self, ReminderInput, TaskInput};

pub mod alarm;
mod send;

pub use send::{LATE_AFTER, Sent, send_late, send_on_time, until_next};

/// A reminder, and whether it went out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reminder {
    /// The reminder.
    pub id: ReminderId,
    /// Its task.
    pub task_id: TaskId,
    /// What it says.
    #[serde(flatten)]
    pub when: ReminderInput,
    /// When it goes out; `null` while there is nothing to send: no due date, or the task is completed.
    pub fire_at: Option<Timestamp>,
    /// When it went out.
    pub sent_at: Option<Timestamp>,
    /// It went out more than 60 seconds after `fire_at`, after downtime.
    pub late: bool,
}

/// A task's reminders, the oldest first.
pub async fn list(conn: &mut PgConnection, user: &UserId, task: TaskId) -> Result<Vec<Reminder>> {
    let definitions = task::get(conn, user, task).await?.reminders;
    let states = sqlx::query!(
        r#"
        SELECT id, fire_at, sent_at, late
        FROM reminders
        WHERE task_id = $1
        ORDER BY id
        "#,
        task.0,
    )
    .fetch_all(conn)
    .await?;
    let reminder = |definition: task::TaskReminder| {
        let state = states.iter().find(|state| state.id == definition.id.0)?;
        Some(Reminder {
            id: definition.id,
            task_id: task,
            when: definition.when,
            fire_at: state.fire_at.map(jiff_sqlx::Timestamp::to_jiff),
            sent_at: state.sent_at.map(jiff_sqlx::Timestamp::to_jiff),
            late: state.late,
        })
    };
    Ok(definitions.into_iter().filter_map(reminder).collect())
}

/// Adds a reminder to a task. One that says the same as another is refused.
pub async fn add(conn: &mut PgConnection, caller: &Caller, task: TaskId, reminder: ReminderInput) -> Result<Reminder> {
    let reminder = ReminderInput::from(&reminder.parse()?);
    let changed = task::change(conn, caller, task, None, |input| {
        if reminder.before.is_some() && input.due.is_none() {
            return Err(Error::from(Invalid::new(
                "before",
                "needs a task with a due date; set due, or use at",
            )));
        }
        if input.reminders.contains(&reminder) {
            return Err(Error::Conflict("the task has this reminder already".to_owned()));
        }
        let mut reminders = input.reminders.clone();
        reminders.push(reminder.clone());
        Ok(TaskInput { reminders, ..input })
    })
    .await?;
    let added = changed
        .reminders
        .iter()
        .find(|candidate| candidate.when == reminder)
        .map(|added| added.id);
    let all = list(conn, &caller.user, task).await?;
    all.into_iter()
        .find(|candidate| Some(candidate.id) == added)
        .ok_or(Error::NotFound("reminder"))
}

/// Removes a reminder from its task.
pub async fn remove(conn: &mut PgConnection, caller: &Caller, task: TaskId, id: ReminderId) -> Result<()> {
    task::lock(conn, &caller.user, task).await?;
    let before = task::get(conn, &caller.user, task).await?;
    let reminders: Vec<ReminderInput> = before
        .reminders
        .iter()
        .filter(|reminder| reminder.id != id)
        .map(|reminder| reminder.when.clone())
        .collect();
    if reminders.len() == before.reminders.len() {
        return Err(Error::NotFound("reminder"));
    }
    task::change(conn, caller, task, None, |input| {
        Ok::<_, Error>(TaskInput { reminders, ..input })
    })
    .await?;
    Ok(())
}
