//! Changing a task: the one path for a PATCH, completing, reopening and deleting.
//!
//! Every command takes the task's lock before it does anything else. The outbox depends on it: a transaction that
//! waits for that lock has no transaction id yet, so ids follow the order of versions (see `todo_events::outbox`),
//! and consumers see one task's events in the order in which it changed.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde_json::{Map, Value};
use sqlx::PgConnection;
use todo_events::{EventType, NewEvent, outbox};

use super::input::{ReminderFields, series_start};
use super::parent::{check_parent, lock_tree};
use super::query::get;
use super::{ReminderInput, Status, Task, TaskFields, TaskInput, TaskReminder};
use crate::caller::Caller;
use crate::clock;
use crate::error::{Error, Result};
use crate::id::{ReminderId, TaskId, UserId};

/// Takes the task's lock and its row's, until the transaction ends. Must be a transaction's first statement.
///
/// The row's is NO KEY, because a task's key never changes: who makes or moves a task under this one need not wait.
pub async fn lock(conn: &mut PgConnection, user: &UserId, id: TaskId) -> Result<()> {
    sqlx::query_scalar!(
        r#"
        SELECT t.version
        FROM lock_subject($2) AS held (id)
        CROSS JOIN LATERAL (
            SELECT version
            FROM tasks
            WHERE tasks.user_id = $1
                AND tasks.id = held.id
                AND tasks.deleted_at IS NULL
            FOR NO KEY UPDATE
        ) AS t
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
        lock_tree(conn, &caller.user).await?;
        check_parent(conn, &caller.user, after.id, parent).await?;
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
pub(crate) fn changed_fields(before: &Task, after: &Task) -> Map<String, Value> {
    let (Value::Object(before), Value::Object(after)) = (before.to_json(), after.to_json()) else {
        return Map::new();
    };
    before
        .into_iter()
        .filter(|(name, value)| !matches!(name.as_str(), "version" | "updated_at") && after.get(name) != Some(value))
        .collect()
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
/// One that went out goes out again only when it moved to an instant that still lies ahead; moved back to an instant
/// at which it went out, it has gone out. A task that is opened again takes up only what lies ahead, and what it passed
/// over stays so until it moves; one that was changed while open also sends what came due meanwhile.
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
    let mut moved = Vec::with_capacity(after.reminders.len());
    for reminder in &after.reminders {
        let when = reminder.when.parse()?;
        let now_at = when.fire_at(after.due.as_ref());
        ids.push(reminder.id.0);
        fire_at.push(now_at.map(ToSqlx::to_sqlx));
        let is_new = !before.reminders.contains(reminder);
        moved.push(!reopened && (is_new || when.fire_at(before.due.as_ref()) != now_at));
    }
    sqlx::query!(
        r#"
        UPDATE reminders AS r
        SET fire_at = n.fire_at,
            sent_at = told.created_at,
            late = COALESCE(told.late, FALSE)
        FROM UNNEST($2::uuid[], $3::timestamptz[], $4::bool[]) AS n (id, fire_at, moved)
        LEFT JOIN notifications AS told ON told.reminder_id = n.id AND told.scheduled_for = n.fire_at
        WHERE r.task_id = $1
            AND r.id = n.id
            AND r.fire_at IS DISTINCT FROM n.fire_at
            AND (n.fire_at > now() OR (r.sent_at IS NULL AND (r.fire_at IS NOT NULL OR n.moved)))
        "#,
        after.id.0,
        &ids,
        &fire_at as _,
        &moved,
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

/// Appends the event of a change; `previous` holds the former values of the fields that differ.
pub(crate) async fn append(
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::super::NewTask;
    use super::*;

    const NOW: &str = "2026-11-21T09:00:00.123456Z";

    fn task(document: Value) -> Task {
        let fields = serde_json::from_value::<TaskInput>(document).unwrap().parse().unwrap();
        NewTask::new(
            UserId::parse("ada").unwrap(),
            fields,
            "2026-01-01T00:00:00Z".parse().unwrap(),
        )
        .task
    }

    fn monthly() -> Task {
        task(json!({
            "title": "rent",
            "due": {"local": "2101-01-31T09:00:00"},
            "recurrence": {"every": "1mo"},
            "reminders": [{"before": "1h"}, {"at": {"local": "2101-01-01T00:00:00"}}],
        }))
    }

    /// The task after an edit of its document.
    fn edited(before: &Task, edit: impl FnOnce(&mut TaskInput)) -> Task {
        let mut input = TaskInput::from(before);
        edit(&mut input);
        apply(before, &input.parse().unwrap(), NOW.parse().unwrap())
    }

    #[test]
    fn without_a_difference_no_field_has_changed() {
        let before = monthly();
        let after = edited(&before, |_| {});
        assert_eq!(changed_fields(&before, &after), Map::new());
        assert_eq!((after.version, after.updated_at), (2, NOW.parse().unwrap()));
    }

    #[test]
    fn changed_fields_hold_the_former_values() {
        let before = monthly();
        let after = edited(&before, |input| {
            input.title = "other".to_owned();
            input.category = Some("home".to_owned());
        });
        let expected = json!({"title": "rent", "category": null});
        assert_eq!(Value::Object(changed_fields(&before, &after)), expected);
    }

    #[test]
    fn completing_sets_the_time_once_and_reopening_clears_it() {
        let open = monthly();
        let done = edited(&open, |input| input.status = Status::Completed);
        assert_eq!(done.completed_at, Some(NOW.parse().unwrap()));
        let earlier = Task {
            completed_at: Some("2026-06-01T00:00:00Z".parse().unwrap()),
            ..done
        };
        let renamed = edited(&earlier, |input| input.title = "other".to_owned());
        assert_eq!(renamed.completed_at, earlier.completed_at);
        assert_eq!(edited(&earlier, |input| input.status = Status::Open).completed_at, None);
    }

    #[test]
    fn a_series_goes_on_until_its_due_date_or_rule_is_set_anew() {
        let first = "2100-12-31T09:00:00".parse().unwrap();
        let before = Task {
            series_start: Some(first),
            ..monthly()
        };
        let due = before.due.as_ref().unwrap().local;
        let kept = edited(&before, |input| input.title = "other".to_owned());
        assert_eq!(kept.series_start, Some(first));
        let other_rule = edited(&before, |input| {
            input.recurrence.as_mut().unwrap().every = Some("2mo".to_owned());
        });
        assert_eq!(other_rule.series_start, Some(due));
        let moved = edited(&before, |input| {
            input.due.as_mut().unwrap().local = Some("2101-02-15T09:00:00".parse().unwrap());
        });
        assert_eq!(moved.series_start, Some("2101-02-15T09:00:00".parse().unwrap()));
        let ended = edited(&before, |input| input.recurrence = None);
        assert_eq!(ended.series_start, None);
    }

    #[test]
    fn reminders_that_say_the_same_are_the_same() {
        let before = monthly();
        let after = edited(&before, |input| {
            input.reminders.remove(1);
            let half_an_hour = serde_json::from_value(json!({"before": "30m"})).unwrap();
            input.reminders.insert(0, half_an_hour);
        });
        assert_eq!(after.reminders.len(), 2);
        assert!(after.reminders.contains(&before.reminders[0]));
        assert!(!after.reminders.contains(&before.reminders[1]));
        assert!(after.reminders.is_sorted_by_key(|reminder| reminder.id));
    }
}
