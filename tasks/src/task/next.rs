//! The next task of one that repeats: made when it is completed, by the consumer of that event.

use std::collections::HashMap;

use jiff::civil::DateTime;
use serde_json::Value;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use todo_events::EventType;
use todo_recurrence::{Completion, Repeat, zone};

use super::create::{NewTask, insert};
use super::input::ReminderFields;
use super::row::{SELECT_TASKS, TaskRow};
use super::{Status, Task, TaskInput};
use crate::caller::Caller;
use crate::clock;
use crate::due::Due;
use crate::error::{Error, Invalid, Result};
use crate::id::TaskId;

/// The most tasks that may hang under one that repeats.
const MAX_SUBTREE: i64 = 500;

/// Makes the next task of one that was completed, with the tasks under it open again, and says which it is.
///
/// `completed` is `task_data` of the `completed` event: the task as it was then. Nothing is made when it does not
/// repeat, when its series has ended, or when its next one is there already: a task has at most one next, however
/// often it is reopened and completed again. `traceparent` is what its event carries on, if anything.
pub async fn make_next(
    conn: &mut PgConnection,
    completed: &Value,
    traceparent: Option<&str>,
) -> Result<Option<TaskId>> {
    let task: Task = serde_json::from_value(completed.clone())
        .map_err(|error| Invalid::new("task_data", format!("is not a task: {error}")))?;
    let (Some(recurrence), Some(due), Some(completed_at)) = (&task.recurrence, &task.due, task.completed_at) else {
        return Ok(None);
    };
    if has_next(conn, task.id).await? {
        return Ok(None);
    }
    let repeat = Repeat::new(recurrence).map_err(|wrong| Invalid::new(wrong.field, wrong.message))?;
    let zone = zone::time_zone(&due.time_zone).map_err(|error| Invalid::new("time_zone", error.to_string()))?;
    let series_start = task.series_start.unwrap_or(due.local);
    let completion = Completion {
        due: Some(due.local),
        series_start: Some(series_start),
        zone: &zone,
        completed_at,
    };
    let Some(local) = repeat.next_due(&completion) else {
        return Ok(None);
    };
    let shift = Shift {
        from: due.local,
        to: local,
    };
    let mut next = again(&task, shift)?;
    next.task.previous_id = Some(task.id);
    next.task.parent_id = task.parent_id;
    next.task.series_start = Some(series_start);
    let id = next.task.id;
    let mut copies = HashMap::from([(task.id, id)]);
    let mut new = vec![next];
    for child in subtree(conn, task.id).await? {
        let mut copy = again(&child, shift)?;
        copy.task.parent_id = child.parent_id.and_then(|parent| copies.get(&parent).copied());
        // A task under it that repeats by itself does so by its own completion.
        copy.task.recurrence = None;
        copy.task.series_start = None;
        copies.insert(child.id, copy.task.id);
        new.push(copy);
    }
    let caller = Caller::system("recurring", task.user_id.clone());
    insert(conn, &new, EventType::RecurringSpawn, &caller.actor, traceparent).await?;
    Ok(Some(id))
}

/// The tasks under `root`, parents before their children. Of one that came back by itself only the latest: its former
/// ones are history.
async fn subtree(conn: &mut PgConnection, root: TaskId) -> Result<Vec<Task>> {
    let mut query = QueryBuilder::<Postgres>::new(
        "WITH RECURSIVE below AS (
            SELECT c.id, 1 AS depth
            FROM tasks AS c
            WHERE c.deleted_at IS NULL
                AND NOT EXISTS (SELECT FROM tasks AS n WHERE n.previous_id = c.id)
                AND c.parent_id = ",
    );
    query.push_bind(root.0);
    query.push(
        " UNION ALL
            SELECT c.id, b.depth + 1
            FROM below AS b
            JOIN tasks AS c ON c.parent_id = b.id
            WHERE c.deleted_at IS NULL
                AND NOT EXISTS (SELECT FROM tasks AS n WHERE n.previous_id = c.id)
        )",
    );
    query.push(SELECT_TASKS);
    query
        .push(" JOIN below AS b ON b.id = t.id ORDER BY b.depth, t.id LIMIT ")
        .push_bind(MAX_SUBTREE);
    let rows: Vec<TaskRow> = query.build_query_as().fetch_all(conn).await?;
    Ok(rows.into_iter().map(Task::from).collect())
}

async fn has_next(conn: &mut PgConnection, id: TaskId) -> Result<bool> {
    let has_next = sqlx::query_scalar!(
        r#"
        SELECT EXISTS (
            SELECT
            FROM tasks
            WHERE previous_id = $1
        ) AS "has_next!"
        "#,
        id.0,
    )
    .fetch_one(conn)
    .await?;
    Ok(has_next)
}

/// From the due date that was to the one that comes: what else has a date moves as far in civil time.
#[derive(Clone, Copy)]
struct Shift {
    from: DateTime,
    to: DateTime,
}

impl Shift {
    fn apply(self, due: &Due) -> Result<Due> {
        let moved = self.from.until(self.to).and_then(|span| due.local.checked_add(span));
        let local = moved.map_err(|error| Invalid::new("due", error.to_string()))?;
        Ok(Due::new(local, &due.time_zone)?)
    }
}

/// The same task again, open, its dates moved.
fn again(task: &Task, shift: Shift) -> Result<NewTask> {
    let input = TaskInput {
        status: Status::Open,
        parent_id: None,
        ..TaskInput::from(task)
    };
    let mut fields = input.parse().map_err(Error::Invalid)?;
    fields.due = fields.due.as_ref().map(|due| shift.apply(due)).transpose()?;
    for reminder in &mut fields.reminders {
        if let ReminderFields::At(at) = reminder {
            *at = shift.apply(at)?;
        }
    }
    Ok(NewTask::new(task.user_id.clone(), fields, clock::now()))
}
