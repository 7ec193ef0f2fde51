//! Creating, changing and deleting schedules.
//!
//! A change first makes what is due under the old rule, in the same transaction: an occurrence that came due a
//! second before an edit is not lost to it. A new rule then counts from now.

use jiff_sqlx::ToSqlx;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use todo_recurrence::Schedule as Rule;

use super::make::{database_now, make};
use super::query::{SELECT_SCHEDULES, ScheduleRow, get};
use super::{CatchUpPolicy, Overlap, Schedule, ScheduleFields, ScheduleInput};
use crate::caller::Caller;
use crate::clock;
use crate::error::{Error, Result};
use crate::id::{ScheduleId, UserId};

/// Makes a schedule. Its first occurrence is the first after now.
pub async fn create(conn: &mut PgConnection, caller: &Caller, fields: ScheduleFields) -> Result<Schedule> {
    let id = insert(conn, &caller.user, None, &fields)
        .await?
        .ok_or(Error::NotFound("schedule"))?;
    get(conn, &caller.user, id).await
}

/// Changes a schedule to what `edit` makes of it; when nothing differs, nothing is written. `if_match` is the version
/// that the caller believes is current. One that a resource declares is then no longer what that says, and shown so to
/// whoever follows it. Call in a transaction.
pub async fn change<E>(
    conn: &mut PgConnection,
    caller: &Caller,
    id: ScheduleId,
    if_match: Option<i64>,
    edit: impl FnOnce(ScheduleInput) -> Result<ScheduleInput, E>,
) -> Result<Schedule, E>
where
    E: From<Error>,
{
    let before = lock(conn, &caller.user, id, if_match).await?;
    let input = edit(ScheduleInput::from(&before))?;
    // A rule that stays counts from where it did: one that has ended would be refused as one that never fires.
    let counts_from = if input.schedule == before.schedule {
        before.anchor_at
    } else {
        clock::now()
    };
    let fields = input.parse(counts_from).map_err(Error::Invalid)?;
    Ok(write(conn, before, fields).await?)
}

/// Suspends a schedule: it makes nothing until it is resumed.
pub async fn pause(conn: &mut PgConnection, caller: &Caller, id: ScheduleId) -> Result<Schedule> {
    change(conn, caller, id, None, |input| {
        Ok::<_, Error>(ScheduleInput {
            suspended: true,
            ..input
        })
    })
    .await
}

/// Resumes a schedule, from now on: what fell into the pause is neither made nor counted as missed.
pub async fn resume(conn: &mut PgConnection, caller: &Caller, id: ScheduleId) -> Result<Schedule> {
    change(conn, caller, id, None, |input| {
        Ok::<_, Error>(ScheduleInput {
            suspended: false,
            ..input
        })
    })
    .await
}

/// Deletes a schedule. What it made stays.
pub async fn delete(conn: &mut PgConnection, caller: &Caller, id: ScheduleId, if_match: Option<i64>) -> Result<()> {
    lock(conn, &caller.user, id, if_match).await?;
    sqlx::query!(
        r#"
        UPDATE schedules
        SET deleted_at = now(),
            version = version + 1
        WHERE id = $1
        "#,
        id.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks the schedule's row and reads it.
pub(super) async fn lock(
    conn: &mut PgConnection,
    user: &UserId,
    id: ScheduleId,
    if_match: Option<i64>,
) -> Result<Schedule> {
    let mut query = QueryBuilder::<Postgres>::new(SELECT_SCHEDULES);
    query
        .push(" WHERE deleted_at IS NULL AND user_id = ")
        .push_bind(user.as_str());
    query.push(" AND id = ").push_bind(id.0).push(" FOR UPDATE");
    let row: Option<ScheduleRow> = query.build_query_as().fetch_optional(conn).await?;
    let schedule = row.map(Schedule::from).ok_or(Error::NotFound("schedule"))?;
    match if_match {
        Some(version) if version != schedule.version => Err(Error::VersionMismatch {
            current: schedule.version,
        }),
        _ => Ok(schedule),
    }
}

/// Writes the difference between a locked schedule and `fields`, if there is one. It is no longer what a resource
/// declared, unless whoever calls knows better.
pub(super) async fn write(conn: &mut PgConnection, before: Schedule, fields: ScheduleFields) -> Result<Schedule> {
    let same_rule = before.schedule == fields.spec;
    let unchanged = same_rule
        && before.name == fields.name
        && before.template == fields.template
        && before.overlap == fields.overlap
        && before.catch_up == fields.catch_up
        && before.suspended == fields.suspended;
    if unchanged && before.problem.is_none() {
        return Ok(before);
    }
    let (id, user) = (before.id, before.user_id.clone());
    let resumed = before.suspended && !fields.suspended;
    let now = database_now(conn).await?;
    let mut before = before;
    // One that slept long takes several turns.
    while !before.suspended && before.problem.is_none() && before.next_at.is_some_and(|next| next <= now) {
        make(conn, vec![before]).await?;
        before = get(conn, &user, id).await?;
    }
    let (anchor, cursor) = match (same_rule, resumed) {
        (true, false) => (before.anchor_at, before.cursor_at),
        (true, true) => (before.anchor_at, before.cursor_at.max(now)),
        (false, _) => (fields.anchor, before.cursor_at.max(now)),
    };
    let rule = Rule::new(&fields.spec, anchor)
        .map_err(|wrong| crate::Invalid::new(wrong.field, wrong.message).under("schedule"))?;
    let next = rule.next_after(cursor);
    sqlx::query!(
        r#"
        UPDATE schedules
        SET name = $2,
            rule = $3,
            template = $4,
            overlap = $5,
            catch_up_policy = $6,
            catch_up_window_seconds = $7,
            catch_up_max = $8,
            suspended = $9,
            anchor_at = $10,
            cursor_at = $11,
            next_at = $12,
            problem = NULL,
            external_hash = NULL,
            version = version + 1,
            updated_at = $13
        WHERE id = $1
        "#,
        id.0,
        fields.name,
        json(&fields.spec),
        json(&fields.template),
        overlap_name(fields.overlap),
        policy_name(fields.catch_up.policy),
        fields.catch_up.window.seconds().cast_signed(),
        fields.catch_up.max,
        fields.suspended,
        anchor.to_sqlx() as _,
        cursor.to_sqlx() as _,
        next.map(ToSqlx::to_sqlx) as _,
        now.to_sqlx() as _,
    )
    .execute(&mut *conn)
    .await?;
    get(conn, &user, id).await
}

/// Inserts a schedule; `None` when one with this UID is there.
pub(super) async fn insert(
    conn: &mut PgConnection,
    user: &UserId,
    external_uid: Option<&str>,
    fields: &ScheduleFields,
) -> Result<Option<ScheduleId>> {
    let now = database_now(conn).await?;
    let rule = Rule::new(&fields.spec, fields.anchor)
        .map_err(|wrong| crate::Invalid::new(wrong.field, wrong.message).under("schedule"))?;
    let id = sqlx::query_scalar!(
        r#"
        INSERT INTO schedules (
            id, user_id, external_uid, name, rule, template, overlap, catch_up_policy, catch_up_window_seconds,
            catch_up_max, suspended, anchor_at, cursor_at, next_at, created_at, updated_at
        )
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $13, $13)
        ON CONFLICT (external_uid) DO NOTHING
        RETURNING id
        "#,
        ScheduleId::new().0,
        user.as_str(),
        external_uid,
        fields.name,
        json(&fields.spec),
        json(&fields.template),
        overlap_name(fields.overlap),
        policy_name(fields.catch_up.policy),
        fields.catch_up.window.seconds().cast_signed(),
        fields.catch_up.max,
        fields.suspended,
        fields.anchor.to_sqlx() as _,
        now.to_sqlx() as _,
        rule.next_after(now).map(ToSqlx::to_sqlx) as _,
    )
    .fetch_optional(conn)
    .await?;
    Ok(id.map(ScheduleId))
}

fn json(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).expect("rules and templates have only string keys, so they are always valid JSON")
}

const fn overlap_name(overlap: Overlap) -> &'static str {
    match overlap {
        Overlap::Allow => "allow",
        Overlap::Skip => "skip",
    }
}

const fn policy_name(policy: CatchUpPolicy) -> &'static str {
    match policy {
        CatchUpPolicy::All => "all",
        CatchUpPolicy::Latest => "latest",
        CatchUpPolicy::None => "none",
    }
}
