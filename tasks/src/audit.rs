//! The audit log: who did what to a task and when, before and after. Written by a consumer, read as a task's history.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use todo_events::Event;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::id::{TaskId, UserId};
use crate::task::Page;

/// One thing that happened to a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct HistoryEntry {
    /// The event.
    pub event_id: Uuid,
    /// What happened: `created`, `updated`, `completed`, `deleted`, `reminder`, `recurring_spawn`.
    pub event_type: String,
    /// Who did it: a user, or `system:` and a role.
    pub actor: String,
    /// The task's version after it.
    pub version: i64,
    /// When it happened.
    pub at: Timestamp,
    /// The former values of the fields that changed; `null` when the task was new.
    #[schema(value_type = Option<Object>)]
    pub before: Option<Value>,
    /// The task after it.
    #[schema(value_type = Object)]
    pub after: Value,
}

/// Records a batch of events, in their order.
pub async fn record(conn: &mut PgConnection, events: &[Event]) -> Result<()> {
    let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    let tasks: Vec<Uuid> = events.iter().map(|event| event.subject).collect();
    let users: Vec<&str> = events.iter().map(|event| event.user_id.as_str()).collect();
    let actors: Vec<&str> = events.iter().map(|event| event.actor.as_str()).collect();
    let types: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
    let versions: Vec<i64> = events.iter().map(|event| event.version).collect();
    let before: Vec<Option<&Value>> = events.iter().map(|event| event.previous.as_ref()).collect();
    let after: Vec<&Value> = events.iter().map(|event| &event.data).collect();
    let times: Vec<jiff_sqlx::Timestamp> = events.iter().map(|event| event.time.to_sqlx()).collect();
    sqlx::query!(
        r#"
        INSERT INTO audit (event_id, task_id, user_id, actor, event_type, version, before, after, occurred_at)
        SELECT n.event_id, n.task_id, n.user_id, n.actor, n.event_type, n.version, n.before, n.after, n.occurred_at
        FROM UNNEST(
            $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::jsonb[], $8::jsonb[],
            $9::timestamptz[]
        ) WITH ORDINALITY AS n (
            event_id, task_id, user_id, actor, event_type, version, before, after, occurred_at, position
        )
        ORDER BY n.position
        "#,
        &ids,
        &tasks,
        &users as _,
        &actors as _,
        &types as _,
        &versions,
        &before as _,
        &after as _,
        &times as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets what was recorded of events since `since`, so that it can be recorded anew.
pub async fn forget(conn: &mut PgConnection, since: Timestamp) -> Result<()> {
    sqlx::query!(
        r#"
        DELETE FROM audit
        WHERE occurred_at >= $1
        "#,
        since.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A page of a task's history, the oldest first; `after` is the last entry's place. Deleted tasks have one too.
pub async fn history(
    conn: &mut PgConnection,
    user: &UserId,
    task: TaskId,
    after: Option<i64>,
    limit: u16,
) -> Result<Page<HistoryEntry, i64>> {
    let exists = sqlx::query_scalar!(
        r#"
        SELECT EXISTS (
            SELECT
            FROM tasks
            WHERE user_id = $1
                AND id = $2
        ) AS "exists!"
        "#,
        user.as_str(),
        task.0,
    )
    .fetch_one(&mut *conn)
    .await?;
    if !exists {
        return Err(Error::NotFound("task"));
    }
    let mut rows = sqlx::query!(
        r#"
        SELECT event_id, seq, event_type, actor, version, occurred_at, before, after
        FROM audit
        WHERE task_id = $1
            AND user_id = $2
            AND seq > $3
        ORDER BY seq
        LIMIT $4
        "#,
        task.0,
        user.as_str(),
        after.unwrap_or_default(),
        i64::from(limit) + 1,
    )
    .fetch_all(conn)
    .await?;
    let has_more = rows.len() > usize::from(limit);
    rows.truncate(usize::from(limit));
    let next = rows.last().filter(|_| has_more).map(|last| last.seq);
    let items = rows
        .into_iter()
        .map(|row| HistoryEntry {
            event_id: row.event_id,
            event_type: row.event_type,
            actor: row.actor,
            version: row.version,
            at: row.occurred_at.to_jiff(),
            before: row.before,
            after: row.after,
        })
        .collect();
    Ok(Page { items, next })
}
