//! Which reminders should have a job in an outside scheduler, and which of them it was told of.
//!
//! Here is the book-keeping and nothing that calls a scheduler. The database itself writes what is wanted (the
//! triggers of `migrations/0003_alarms.sql`); who tells the scheduler claims what differs ([`claim`]), makes the
//! call without holding any lock, and writes down how it went ([`settle`] or [`put_off`]).
//!
//! Any number of tellers may work side by side. A claim keeps two from telling different things of one reminder at
//! a time, and ends by itself, so one that dies holding it delays a job and loses nothing. A teller that learns that
//! it was slower than its claim does not know in which order the scheduler heard the two: then the job counts as
//! not known, and is told again.
//!
//! A scheduler may forget. What is set is told again when half of the time that is left has passed, though not
//! within a minute and at least once a day: few calls for what is far away, and a job that was lost is back
//! before its instant unless it was lost in the last moments.

use std::time::Duration;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::PgPool;
use uuid::Uuid;

use crate::error::Result;
use crate::id::ReminderId;

/// Something to tell the scheduler, claimed by whoever holds this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    /// Whose job.
    pub reminder: ReminderId,
    /// When it should ring; `None`: the job should be removed.
    pub at: Option<Timestamp>,
    claim: Uuid,
}

/// Claims what the scheduler should be told, for as long as `lease`: up to `limit` jobs to set, the soonest first,
/// and up to half as many more that are to be removed or said again. What has come due already needs no job.
pub async fn claim(pool: &PgPool, limit: i64, lease: Duration) -> Result<Vec<Telling>> {
    let rows = sqlx::query!(
        r#"
        WITH soonest AS (
            SELECT reminder_id
            FROM reminder_alarm
            WHERE (wanted_at = set_to) IS NOT TRUE
                AND wanted_at > now()
                AND (claimed_until IS NULL OR claimed_until <= now())
            ORDER BY wanted_at
            LIMIT $1
            FOR UPDATE SKIP LOCKED
        ), unwanted AS (
            SELECT reminder_id
            FROM reminder_alarm
            WHERE (wanted_at = set_to) IS NOT TRUE
                AND wanted_at IS NULL
                AND (claimed_until IS NULL OR claimed_until <= now())
            LIMIT GREATEST($1 / 4, $1 - (SELECT count(*) FROM soonest))
            FOR UPDATE SKIP LOCKED
        ), again AS (
            SELECT reminder_id
            FROM reminder_alarm
            WHERE (wanted_at = set_to) IS TRUE
                AND tell_again_at <= now()
                AND wanted_at > now()
            ORDER BY tell_again_at
            LIMIT GREATEST($1 / 4, $1 - (SELECT count(*) FROM soonest) - (SELECT count(*) FROM unwanted))
            FOR UPDATE SKIP LOCKED
        ), claimed AS (
            SELECT reminder_id FROM soonest
            UNION ALL
            SELECT reminder_id FROM unwanted
            UNION ALL
            SELECT reminder_id FROM again
        )
        UPDATE reminder_alarm AS a
        SET set_to = NULL,
            maybe_set = TRUE,
            claim = gen_random_uuid(),
            claimed_until = now() + make_interval(secs => $2)
        FROM claimed
        WHERE a.reminder_id = claimed.reminder_id
        RETURNING a.reminder_id, a.wanted_at, a.claim AS "claim!"
        "#,
        limit,
        lease.as_secs_f64(),
    )
    .fetch_all(pool)
    .await?;
    let mut tellings: Vec<Telling> = rows
        .into_iter()
        .map(|row| Telling {
            reminder: row.reminder_id.into(),
            at: row.wanted_at.map(jiff_sqlx::Timestamp::to_jiff),
            claim: row.claim,
        })
        .collect();
    tellings.sort_by_key(|telling| (telling.at.is_none(), telling.at));
    Ok(tellings)
}

/// Writes down that the scheduler did as it was told.
pub async fn settle(pool: &PgPool, telling: &Telling) -> Result<()> {
    let was_in_time = match telling.at {
        Some(at) => settle_set(pool, telling, at).await?,
        None => settle_removed(pool, telling).await?,
    };
    if !was_in_time {
        make_unknown(pool, telling.reminder).await?;
    }
    Ok(())
}

async fn settle_set(pool: &PgPool, telling: &Telling, at: Timestamp) -> Result<bool> {
    let settled = sqlx::query!(
        r#"
        UPDATE reminder_alarm
        SET set_to = $3,
            tell_again_at = now() + LEAST(GREATEST(($3 - now()) / 2, interval '1 minute'), interval '1 day'),
            claim = NULL,
            claimed_until = NULL
        WHERE reminder_id = $1
            AND claim = $2
        "#,
        telling.reminder.0,
        telling.claim,
        at.to_sqlx() as _,
    )
    .execute(pool)
    .await?;
    Ok(settled.rows_affected() > 0)
}

/// The row goes with the job, unless the reminder is armed again meanwhile.
async fn settle_removed(pool: &PgPool, telling: &Telling) -> Result<bool> {
    let gone = sqlx::query!(
        r#"
        DELETE FROM reminder_alarm
        WHERE reminder_id = $1
            AND claim = $2
            AND wanted_at IS NULL
        "#,
        telling.reminder.0,
        telling.claim,
    )
    .execute(pool)
    .await?;
    if gone.rows_affected() > 0 {
        return Ok(true);
    }
    put_off(pool, telling, Duration::ZERO).await
}

/// Hands a claim back for `pause`, after which anybody may take it: the call failed, or was not made. Whether it had
/// an effect is not known, and need not be. Says whether the claim still held.
pub async fn put_off(pool: &PgPool, telling: &Telling, pause: Duration) -> Result<bool> {
    let handed_back = sqlx::query!(
        r#"
        UPDATE reminder_alarm
        SET claimed_until = now() + make_interval(secs => $3)
        WHERE reminder_id = $1
            AND claim = $2
        "#,
        telling.reminder.0,
        telling.claim,
        pause.as_secs_f64(),
    )
    .execute(pool)
    .await?;
    Ok(handed_back.rows_affected() > 0)
}

/// After two tellers may have spoken at a time: the scheduler is told once more, whatever it holds. A row that is
/// gone comes back, for the slower of the two may have set a job that nobody wants.
async fn make_unknown(pool: &PgPool, reminder: ReminderId) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO reminder_alarm (reminder_id, maybe_set)
        VALUES ($1, TRUE)
        ON CONFLICT (reminder_id) DO UPDATE
        SET set_to = NULL,
            maybe_set = TRUE
        "#,
        reminder.0,
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Has the scheduler told again of all that rings within `horizon`, and says of how many: after a start, when it may
/// have been wiped together with whoever told it.
pub async fn tell_again(pool: &PgPool, horizon: Duration) -> Result<u64> {
    let again = sqlx::query!(
        r#"
        UPDATE reminder_alarm AS a
        SET tell_again_at = now()
        FROM (
            SELECT reminder_id
            FROM reminder_alarm
            WHERE (wanted_at = set_to) IS TRUE
                AND tell_again_at > now()
                AND wanted_at > now()
                AND wanted_at <= now() + make_interval(secs => $1)
            FOR UPDATE SKIP LOCKED
        ) AS near
        WHERE a.reminder_id = near.reminder_id
        "#,
        horizon.as_secs_f64(),
    )
    .execute(pool)
    .await?;
    Ok(again.rows_affected())
}

/// How many jobs are not as they should be, as far as is known: to be set, moved or removed.
pub async fn differences(pool: &PgPool) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"
        SELECT count(*) AS "count!"
        FROM reminder_alarm
        WHERE (wanted_at = set_to) IS NOT TRUE
            AND (wanted_at IS NULL OR wanted_at > now())
        "#,
    )
    .fetch_one(pool)
    .await?;
    Ok(count)
}
