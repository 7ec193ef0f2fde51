//! New time-zone rules: instants are computed again from civil time and zone.
//!
//! Governments move clocks. What a user said (civil time and zone) stays; the instant that follows from it is
//! computed anew when this binary brings other rules than those the stored instants were computed with. Reminders
//! that went out stay sent.

use jiff::{Timestamp, civil::DateTime};
use jiff_sqlx::ToSqlx;
use sqlx::PgPool;
use todo_events::EventType;
use todo_recurrence::{Schedule as Rule, ScheduleSpec, zone};
use uuid::Uuid;

use crate::caller::Caller;
use crate::due::Due;
use crate::error::Result;
use crate::id::{TaskId, UserId};
use crate::task;

/// How many rows are read at once.
const BATCH: i64 = 1_000;

/// What changed under the new rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Tasks whose due instant moved.
    pub tasks: usize,
    /// Reminders with a time of their own that moved.
    pub reminders: usize,
    /// Schedules whose next occurrence moved.
    pub schedules: usize,
}

/// Computes instants anew if they were computed with other rules than `version`. A crash half-way is made good by
/// the next call: the version is written last.
pub async fn refresh(pool: &PgPool, version: &str) -> Result<Option<Refreshed>> {
    let stored = sqlx::query_scalar!(
        r#"
        SELECT version
        FROM time_zone_database
        "#,
    )
    .fetch_optional(pool)
    .await?;
    if stored.as_deref() == Some(version) {
        return Ok(None);
    }
    let refreshed = Refreshed {
        tasks: refresh_tasks(pool).await?,
        reminders: refresh_reminders(pool).await?,
        schedules: refresh_schedules(pool).await?,
    };
    sqlx::query!(
        r#"
        INSERT INTO time_zone_database (version)
        VALUES ($1)
        ON CONFLICT (only_row) DO UPDATE
        SET version = EXCLUDED.version,
            updated_at = now()
        "#,
        version,
    )
    .execute(pool)
    .await?;
    Ok(Some(refreshed))
}

/// Where the civil time lies under the rules of today; `None` when `at` already stands for it, in either pass of
/// an overlap, or when the zone is not known.
fn moved(local: DateTime, time_zone: &str, at: Timestamp) -> Option<Timestamp> {
    let zone = zone::time_zone(time_zone).ok()?;
    if zone.to_datetime(at) == local {
        return None;
    }
    Some(zone::resolve(local, &zone)).filter(|resolved| *resolved != at)
}

async fn refresh_tasks(pool: &PgPool) -> Result<usize> {
    let mut count = 0;
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!(
            r#"
            SELECT id, user_id, due_local AS "due_local!", due_zone AS "due_zone!", due_at AS "due_at!"
            FROM tasks
            WHERE id > $1
                AND due_at > now()
                AND due_zone <> 'UTC'
                AND deleted_at IS NULL
            ORDER BY id
            LIMIT $2
            "#,
            after,
            BATCH,
        )
        .fetch_all(pool)
        .await?;
        let Some(last) = rows.last() else { return Ok(count) };
        after = last.id;
        for row in rows {
            if moved(row.due_local.to_jiff(), &row.due_zone, row.due_at.to_jiff()).is_some()
                && refresh_task(pool, &UserId::stored(row.user_id), row.id.into()).await?
            {
                count += 1;
            }
        }
    }
}

/// Moves one task's due instant and its reminders: a change of the task like any other, with its event.
async fn refresh_task(pool: &PgPool, user: &UserId, id: TaskId) -> Result<bool> {
    let mut tx = pool.begin().await?;
    match task::lock(&mut tx, user, id).await {
        Ok(()) => {}
        Err(crate::Error::NotFound(_)) => return Ok(false),
        Err(error) => return Err(error),
    }
    let before = task::get(&mut tx, user, id).await?;
    let Some(due) = &before.due else { return Ok(false) };
    let Some(at) = moved(due.local, &due.time_zone, due.at) else {
        return Ok(false);
    };
    let after = task::Task {
        due: Some(Due { at, ..due.clone() }),
        version: before.version + 1,
        updated_at: crate::clock::now(),
        ..before.clone()
    };
    sqlx::query!(
        r#"
        WITH reminder AS (
            UPDATE reminders
            SET fire_at = $2::timestamptz - make_interval(secs => before_seconds)
            WHERE task_id = $1
                AND before_seconds IS NOT NULL
                AND sent_at IS NULL
                AND fire_at IS NOT NULL
        )
        UPDATE tasks
        SET due_at = $2,
            version = $3,
            updated_at = $4
        WHERE id = $1
        "#,
        id.0,
        at.to_sqlx() as _,
        after.version,
        after.updated_at.to_sqlx() as _,
    )
    .execute(&mut *tx)
    .await?;
    let caller = Caller::system("time-zones", user.clone());
    let previous = task::changed_fields(&before, &after);
    task::append(&mut tx, &caller, EventType::Updated, &after, previous).await?;
    tx.commit().await?;
    Ok(true)
}

async fn refresh_reminders(pool: &PgPool) -> Result<usize> {
    let mut count = 0;
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!(
            r#"
            SELECT id, at_local AS "at_local!", at_zone AS "at_zone!", fire_at AS "fire_at!"
            FROM reminders
            WHERE id > $1
                AND at_local IS NOT NULL
                AND sent_at IS NULL
                AND fire_at IS NOT NULL
            ORDER BY id
            LIMIT $2
            "#,
            after,
            BATCH,
        )
        .fetch_all(pool)
        .await?;
        let Some(last) = rows.last() else { return Ok(count) };
        after = last.id;
        for row in rows {
            let Some(fire_at) = moved(row.at_local.to_jiff(), &row.at_zone, row.fire_at.to_jiff()) else {
                continue;
            };
            let updated = sqlx::query!(
                r#"
                UPDATE reminders
                SET fire_at = $2
                WHERE id = $1
                    AND sent_at IS NULL
                    AND fire_at = $3
                "#,
                row.id,
                fire_at.to_sqlx() as _,
                row.fire_at as _,
            )
            .execute(pool)
            .await?;
            count += usize::from(updated.rows_affected() > 0);
        }
    }
}

async fn refresh_schedules(pool: &PgPool) -> Result<usize> {
    let mut count = 0;
    let mut after = Uuid::nil();
    loop {
        let mut tx = pool.begin().await?;
        let rows = sqlx::query!(
            r#"
            SELECT id, rule, anchor_at, cursor_at, next_at
            FROM schedules
            WHERE id > $1
                AND deleted_at IS NULL
            ORDER BY id
            LIMIT $2
            FOR UPDATE
            "#,
            after,
            BATCH,
        )
        .fetch_all(&mut *tx)
        .await?;
        let Some(last) = rows.last() else { return Ok(count) };
        after = last.id;
        for row in rows {
            // One that this version cannot read is stopped, with its reason, by the worker.
            let Ok(spec) = serde_json::from_value::<ScheduleSpec>(row.rule) else {
                continue;
            };
            let Ok(rule) = Rule::new(&spec, row.anchor_at.to_jiff()) else {
                continue;
            };
            let next = rule.next_after(row.cursor_at.to_jiff());
            if next == row.next_at.map(jiff_sqlx::Timestamp::to_jiff) {
                continue;
            }
            sqlx::query!(
                r#"
                UPDATE schedules
                SET next_at = $2
                WHERE id = $1
                "#,
                row.id,
                next.map(ToSqlx::to_sqlx) as _,
            )
            .execute(&mut *tx)
            .await?;
            count += 1;
        }
        tx.commit().await?;
    }
}
