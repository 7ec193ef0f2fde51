//! Changing a task: the one path for a PATCH, completing, reopening and deleting.
//!
//! Every command takes the task's row lock before it does anything else. The outbox depends on it: a transaction
//! that waits for the lock has no transaction id yet, so ids follow the order of versions (see
//! `todo_events::outbox`), and consumers see one task's events in the order in which it changed.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde_json::{Map, Value};
use sqlx::PgConnection;
use todo_events::{EventType, NewEvent, outbox};

use super::create::check_parent;
use super::input::{ReminderFields, series_start};
use super::query::get;
use super::{ReminderInput, Status, Task, TaskFields, TaskInput, TaskReminder};
use crate::caller::Caller;
use crate::clock;
use crate::error::{Error, Invalid, Result};
use crate::id::{ReminderId, TaskId, UserId};

/// How many levels of tasks may hang under each other.
const MAX_DEPTH: i32 = 10;

/// Takes the task's row lock, until the transaction ends. Must be a transaction's first statement.
pub async fn lock(conn: &mut PgConnection, user: &UserId, id: TaskId) -> Result<()> {
    sqlx::query_scalar!(
        r#"
        SELECT version
        FROM tasks
        WHERE user_id = $1
            AND id = $2
            AND deleted_at IS NULL
        FOR UPDATE
        "#,
        user.as_str(),
        id.0,
    )
    .fetch_optional(conn)
    .await?
    .map(drop)
    .ok_or(Error::NotFound("task"))
}

/// Locks the task and reads it; `if_match` is the version that the caller believes is current.
async fn lock_and_get(conn: &mut PgConnection, user: &UserId, id: TaskId, if_match: Option<i64>) -> Result<Task> {
    lock(conn, user, id).await?;
    // A second statement: its snapshot is taken after the lock, so tags and reminders are as current as the row.
    let task = get(conn, user, id).await?;
    match if_match {
        Some(version) if version != task.version => Err(Error::VersionMismatch { current: task.version }),
        _ => Ok(task),
    }
}

/// Changes a task to what `edit` makes of its writable fields, in the caller's transaction.
///
/// `edit` gets the task as a caller would write it and returns it changed. When nothing differs, nothing is
/// written: same version, no event. Completing sets `completed_at` and stops reminders; reopening starts those
/// that still lie ahead.
pub async fn change<E>(
    conn: &mut PgConnection,
    caller: &Caller,
    id: TaskId,
    if_match: Option<i64>,
    edit: impl FnOnce(TaskInput) -> Result<TaskInput, E>,
) -> Result<Task, E>
where
    E: From<Error>,
{
    let before = lock_and_get(conn, &caller.user, id, if_match).await?;
    let fields = edit(TaskInput::from(&before))?.parse().map_err(Error::Invalid)?;
    Ok(write(conn, caller, before, fields).await?)
}

/// Completes a task; one that is completed already stays as it is.
pub async fn complete(conn: &mut PgConnection, caller: &Caller, id: TaskId, if_match: Option<i64>) -> Result<Task> {
    change(conn, caller, id, if_match, |task| {
        Ok::<_, Error>(TaskInput {
            status: Status::Completed,
            ..task
        })
    })
    .await
}

/// Opens a completed task again; an open one stays as it is.
pub async fn reopen(conn: &mut PgConnection, caller: &Caller, id: TaskId, if_match: Option<i64>) -> Result<Task> {
    change(conn, caller, id, if_match, |task| {
        Ok::<_, Error>(TaskInput {
            status: Status::Open,
            ..task
        })
    })
    .await
}

/// Deletes a task and says what it was. Its history stays.
pub async fn delete(conn: &mut PgConnection, caller: &Caller, id: TaskId, if_match: Option<i64>) -> Result<Task> {
    let before = lock_and_get(conn, &caller.user, id, if_match).await?;
    let now = clock::now();
    let task = Task {
        version: before.version + 1,
        updated_at: now,
        ..before
    };
    sqlx::query!(
        r#"
        UPDATE tasks
        SET deleted_at = $2,
            updated_at = $2,
            version = $3
        WHERE id = $1
        "#,
        id.0,
        now.to_sqlx() as _,
        task.version,
    )
    .execute(&mut *conn)
    .await?;
    disarm_reminders(conn, id).await?;
    append(conn, caller, EventType::Deleted, &task, Map::new()).await?;
    Ok(task)
}

/// Writes the difference between `before` and `fields`, if there is one.
async fn write(conn: &mut PgConnection, caller: &Caller, before: Task, fields: TaskFields) -> Result<Task> {
    let now = clock::now();
    let after = apply(&before, &fields, now);
    let previous = changed_fields(&before, &after);
    if previous.is_empty() {
        return Ok(before);
    }
    if after.parent_id != before.parent_id
        && let Some(parent) = after.parent_id
    {
        check_parent(conn, &caller.user, parent).await?;
        check_ancestry(conn, &caller.user, after.id, parent).await?;
    }
    update_row(conn, &after).await?;
    if after.tags != before.tags {
        replace_tags(conn, &after).await?;
    }
    replace_reminders(conn, &before, &after).await?;
    rearm_reminders(conn, &before, &after).await?;
    let event_type = match (before.status, after.status) {
        (Status::Open, Status::Completed) => EventType::Completed,
        _ => EventType::Updated,
    };
    append(conn, caller, event_type, &after, previous).await?;
    Ok(after)
}

/// The task as it is after the change.
fn apply(before: &Task, fields: &TaskFields, now: Timestamp) -> Task {
    let completed_at = match fields.status {
        Status::Completed => before.completed_at.or(Some(now)),
        Status::Open => None,
    };
    // A due date or a rule that the user sets anew begins a new series.
    let same_series = before.due == fields.due && before.recurrence == fields.recurrence;
    let earlier = before.series_start.filter(|_| same_series);
    Task {
        title: fields.title.clone(),
        description: fields.description.clone(),
        status: fields.status,
        priority: fields.priority,
        category: fields.category.clone(),
        tags: fields.tags.clone(),
        parent_id: fields.parent_id,
        series_start: series_start(fields.recurrence.as_ref(), fields.due.as_ref(), earlier),
        due: fields.due.clone(),
        recurrence: fields.recurrence.clone(),
        completed_at,
        reminders: reminders_after(&before.reminders, &fields.reminders),
        version: before.version + 1,
        updated_at: now,
        ..before.clone()
    }
}

/// Reminders that say the same as before keep their ids, and so remember whether they went out.
fn reminders_after(before: &[TaskReminder], fields: &[ReminderFields]) -> Vec<TaskReminder> {
    let mut reminders: Vec<TaskReminder> = fields
        .iter()
        .map(|fields| {
            let when = ReminderInput::from(fields);
            let kept = before.iter().find(|reminder| reminder.when == when);
            TaskReminder {
                id: kept.map_or_else(ReminderId::new, |reminder| reminder.id),
                when,
            }
        })
        .collect();
    reminders.sort_unstable_by_key(|reminder| reminder.id);
    reminders
}

/// The former values of the fields that differ, without those that follow from every change.
fn changed_fields(before: &Task, after: &Task) -> Map<String, Value> {
    let (Value::Object(before), Value::Object(after)) = (before.to_json(), after.to_json()) else {
        return Map::new();
    };
    before
        .into_iter()
        .filter(|(name, value)| !matches!(name.as_str(), "version" | "updated_at") && after.get(name) != Some(value))
        .collect()
}

/// A task may not hang under itself, nor deeper than [`MAX_DEPTH`].
async fn check_ancestry(conn: &mut PgConnection, user: &UserId, id: TaskId, parent: TaskId) -> Result<()> {
    let ancestry = sqlx::query!(
        r#"
        WITH RECURSIVE ancestor AS (
            SELECT t.id, t.parent_id, 1 AS depth
            FROM tasks AS t
            WHERE t.user_id = $1
                AND t.id = $2
            UNION ALL
            SELECT t.id, t.parent_id, a.depth + 1
            FROM ancestor AS a
            JOIN tasks AS t ON t.user_id = $1 AND t.id = a.parent_id
            WHERE a.depth <= $3
        )
        SELECT
            COALESCE(bool_or(id = $4), FALSE) AS "is_cycle!",
            COALESCE(max(depth), 0) AS "depth!"
        FROM ancestor
        "#,
        user.as_str(),
        parent.0,
        MAX_DEPTH,
        id.0,
    )
    .fetch_one(conn)
    .await?;
    if ancestry.is_cycle {
        return Err(Invalid::new("parent_id", "must not be the task itself or one below it").into());
    }
    if ancestry.depth > MAX_DEPTH {
        return Err(Invalid::new("parent_id", format!("tasks nest at most {MAX_DEPTH} levels deep")).into());
    }
    Ok(())
}

async fn update_row(conn: &mut PgConnection, task: &Task) -> Result<()> {
    let due = task.due.as_ref();
    sqlx::query!(
        r#"
        UPDATE tasks
        SET title = $2,
            description = $3,
            status = $4,
            priority = $5,
            category = $6,
            due_local = $7,
            due_zone = $8,
            due_at = $9,
            completed_at = $10,
            parent_id = $11,
            recurrence = $12,
            series_start = $13,
            version = $14,
            updated_at = $15
        WHERE id = $1
        "#,
        task.id.0,
        task.title,
        task.description,
        task.status as Status,
        task.priority as super::Priority,
        task.category,
        due.map(|due| due.local.to_sqlx()) as _,
        due.map(|due| &due.time_zone) as _,
        due.map(|due| due.at.to_sqlx()) as _,
        task.completed_at.map(ToSqlx::to_sqlx) as _,
        task.parent_id.map(|parent| parent.0),
        task.recurrence.as_ref().map(super::recurrence_json) as _,
        task.series_start.map(ToSqlx::to_sqlx) as _,
        task.version,
        task.updated_at.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn replace_tags(conn: &mut PgConnection, task: &Task) -> Result<()> {
    sqlx::query!(
        r#"
        WITH gone AS (
            DELETE FROM task_tags
            WHERE task_id = $2
                AND tag <> ALL ($3::text[])
        ), known_tag AS (
            INSERT INTO tags (user_id, name)
            SELECT $1, n.tag
            FROM UNNEST($3::text[]) AS n (tag)
            ORDER BY n.tag
            ON CONFLICT DO NOTHING
        )
        INSERT INTO task_tags (user_id, task_id, tag)
        SELECT $1, $2, n.tag
        FROM UNNEST($3::text[]) AS n (tag)
        ON CONFLICT DO NOTHING
        "#,
        task.user_id.as_str(),
        task.id.0,
        &task.tags,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Removes the reminders that are gone and adds the new ones; [`rearm_reminders`] then sets when they go out.
async fn replace_reminders(conn: &mut PgConnection, before: &Task, after: &Task) -> Result<()> {
    if before.reminders == after.reminders {
        return Ok(());
    }
    let kept: Vec<uuid::Uuid> = after.reminders.iter().map(|reminder| reminder.id.0).collect();
    sqlx::query!(
        r#"
        DELETE FROM reminders
        WHERE task_id = $1
            AND id <> ALL ($2)
        "#,
        after.id.0,
        &kept,
    )
    .execute(&mut *conn)
    .await?;
    for reminder in after
        .reminders
        .iter()
        .filter(|reminder| !before.reminders.contains(reminder))
    {
        let fields = reminder.when.parse()?;
        let (before_seconds, local, zone) = fields.key();
        sqlx::query!(
            r#"
            INSERT INTO reminders (id, user_id, task_id, before_seconds, at_local, at_zone)
            VALUES ($1, $2, $3, $4, $5, $6)
            "#,
            reminder.id.0,
            after.user_id.as_str(),
            after.id.0,
            before_seconds,
            local.map(ToSqlx::to_sqlx) as _,
            zone,
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// Sets when each reminder goes out after a change of due date, of status, or of the reminders themselves.
///
/// One that went out goes out again only when it moved to an instant that still lies ahead. A task that is opened
/// again takes up only what lies ahead; one that was changed while open also sends what came due meanwhile.
async fn rearm_reminders(conn: &mut PgConnection, before: &Task, after: &Task) -> Result<()> {
    if after.status == Status::Completed {
        if before.status == Status::Open {
            disarm_reminders(conn, after.id).await?;
        }
        return Ok(());
    }
    let reopened = before.status == Status::Completed;
    if !reopened && before.due == after.due && before.reminders == after.reminders {
        return Ok(());
    }
    let mut ids = Vec::with_capacity(after.reminders.len());
    let mut fire_at = Vec::with_capacity(after.reminders.len());
    for reminder in &after.reminders {
        ids.push(reminder.id.0);
        fire_at.push(reminder.when.parse()?.fire_at(after.due.as_ref()).map(ToSqlx::to_sqlx));
    }
    sqlx::query!(
        r#"
        UPDATE reminders AS r
        SET fire_at = n.fire_at,
            sent_at = NULL,
            late = FALSE
        FROM UNNEST($2::uuid[], $3::timestamptz[]) AS n (id, fire_at)
        WHERE r.task_id = $1
            AND r.id = n.id
            AND r.fire_at IS DISTINCT FROM n.fire_at
            AND (n.fire_at > now() OR (r.sent_at IS NULL AND NOT $4))
        "#,
        after.id.0,
        &ids,
        &fire_at as _,
        reopened,
    )
    .execute(&mut *conn)
    .await?;
    Ok(())
}

/// Nothing that is not out yet goes out any more.
async fn disarm_reminders(conn: &mut PgConnection, id: TaskId) -> Result<()> {
    sqlx::query!(
        r#"
        UPDATE reminders
        SET fire_at = NULL
        WHERE task_id = $1
            AND sent_at IS NULL
            AND fire_at IS NOT NULL
        "#,
        id.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn append(
    conn: &mut PgConnection,
    caller: &Caller,
    event_type: EventType,
    task: &Task,
    previous: Map<String, Value>,
) -> Result<()> {
    let event = NewEvent {
        id: NewEvent::new_id(),
        event_type,
        subject: task.id.0,
        user_id: task.user_id.to_string(),
        version: task.version,
        actor: caller.actor.clone(),
        data: task.to_json(),
        previous: Some(Value::Object(previous)),
        traceparent: caller.traceparent.clone(),
    };
    outbox::append(conn, &[event]).await?;
    Ok(())
}
