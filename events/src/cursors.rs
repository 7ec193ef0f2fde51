//! The places that relays keep in the outbox, one row of `relay_cursor` each: who made them, whether a relay
//! still attends to them, and when one goes.
//!
//! What does not live here: reading and moving one in a pass ([`crate::relay`]).
//!
//! A platform may change from relays of one kind to those of another: from one for each consumer in a process
//! to one for a broker, and back. While processes are replaced both run, and both deliver: the inbox removes
//! what comes twice, and each delivers a task's events in order, so a consumer sees them in order. Each keeps
//! its own cursors, and says every few seconds that it attends to them ([`attend`]). A cursor of the other kind
//! that nobody has attended to for [`ABANDONED_AFTER`] is removed ([`retire`]), or it would keep old days of
//! the outbox for ever. A relay that finds its cursor gone makes it again, so that a process which slept so
//! long goes on: nothing is lost, something may come twice.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::PgPool;

use crate::Error;

/// After how long a cursor that no relay attends to is no longer kept for the relays of another kind. Longer
/// than a process takes to be replaced.
pub const ABANDONED_AFTER: Duration = Duration::from_mins(10);

/// How long ago a relay may have attended to a cursor that can be removed by hand.
const ATTENDED_WITHIN: Duration = Duration::from_mins(1);

/// Which cursors a kind of relays keeps, and which the kind that it may come after.
#[derive(Debug, Clone, Copy)]
pub struct Succession {
    /// Those of this kind, the relay's own among them.
    pub own: &'static [&'static str],
    /// Those of the other kind.
    pub former: &'static [&'static str],
    /// Where the relay's own begins when it is new.
    pub begins: Begins,
}

/// Where a new cursor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// With the oldest event that is kept. What the former relays have published may still be on its way, with
    /// nobody left to take it.
    AtTheOldest,
    /// Where the last of the former ones stands, if all of them are there: what a relay to a consumer in the
    /// process has passed is settled.
    WhereFormerStand,
}

/// A relay's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Its name: a consumer's, or a broker's.
    pub name: String,
    /// When a relay last attended to it.
    pub attended_at: Timestamp,
    /// When the oldest event beyond it was written; `None` when it has passed all.
    pub oldest_beyond: Option<Timestamp>,
}

/// What became of the wish to remove a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// A relay has attended to it a moment ago, and would make it again.
    Attended,
    /// There is none of this name.
    Missing,
}

/// Every cursor, by name.
pub async fn list(pool: &PgPool) -> Result<Vec<Cursor>, Error> {
    // One probe of the index for each partition; see `outbox::oldest_beyond`.
    let rows = sqlx::query!(
        r#"SELECT name, updated_at, oldest.created_at AS "oldest_beyond?"
           FROM relay_cursor
           LEFT JOIN LATERAL (
               SELECT created_at
               FROM outbox
               WHERE (outbox.xid, outbox.seq) > (relay_cursor.xid, relay_cursor.seq)
               ORDER BY outbox.xid, outbox.seq
               LIMIT 1
           ) AS oldest ON TRUE
           ORDER BY name"#
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Cursor {
            name: row.name,
            attended_at: row.updated_at.to_jiff(),
            oldest_beyond: row.oldest_beyond.map(jiff_sqlx::Timestamp::to_jiff),
        })
        .collect())
}

/// Removes the cursor of a consumer, or of a broker, that was given up for good: events are no longer kept for
/// it. Should it come back, it begins with the oldest event that is kept then.
pub async fn remove(pool: &PgPool, name: &str) -> Result<Removal, Error> {
    let mut transaction = pool.begin().await?;
    let attended = sqlx::query_scalar!(
        r#"SELECT updated_at > now() - make_interval(secs => $2) AS "attended!"
           FROM relay_cursor
           WHERE name = $1
           FOR UPDATE"#,
        name,
        ATTENDED_WITHIN.as_secs_f64(),
    )
    .fetch_optional(&mut *transaction)
    .await?;
    match attended {
        None => return Ok(Removal::Missing),
        Some(true) => return Ok(Removal::Attended),
        Some(false) => {}
    }
    sqlx::query!(
        "DELETE FROM relay_cursor
         WHERE name = $1",
        name
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Removal::Removed)
}

/// Makes a relay's cursor, if it is not there.
pub(crate) async fn ensure(pool: &PgPool, name: &str, succession: Option<&Succession>) -> Result<(), sqlx::Error> {
    if let Some(succession) = succession
        && succession.begins == Begins::WhereFormerStand
        && continue_from(pool, name, succession.former).await?
    {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO relay_cursor (name) VALUES ($1) ON CONFLICT DO NOTHING",
        name
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Makes a cursor where the last of the former ones stands, unless one of those is missing: its consumer may not have
/// seen any event yet.
async fn continue_from(pool: &PgPool, name: &str, former: &[&str]) -> Result<bool, sqlx::Error> {
    let former: Vec<String> = former.iter().map(|&name| name.to_owned()).collect();
    let made = sqlx::query!(
        "INSERT INTO relay_cursor (name, xid, seq)
         SELECT $1, former.xid, former.seq
         FROM relay_cursor AS former
         WHERE former.name = ANY($2)
           AND (SELECT count(*) FROM relay_cursor WHERE name = ANY($2)) = cardinality($2)
         ORDER BY former.xid, former.seq
         LIMIT 1
         ON CONFLICT DO NOTHING",
        name,
        &former,
    )
    .execute(pool)
    .await?
    .rows_affected();
    if made > 0 {
        tracing::info!(cursor = name, ?former, "publishes from where the former relays stand");
    }
    Ok(made > 0)
}

/// Says that a relay is there for this cursor; `false` when it is gone.
pub(crate) async fn attend(pool: &PgPool, name: &str) -> Result<bool, sqlx::Error> {
    let attended = sqlx::query!(
        "UPDATE relay_cursor
         SET updated_at = now()
         WHERE name = $1",
        name,
    )
    .execute(pool)
    .await?;
    Ok(attended.rows_affected() > 0)
}

/// Removes the cursors of the other kind that nobody attends to any more, once all of this kind are there: from then
/// on nothing is kept for them that is not kept for these.
pub(crate) async fn retire(pool: &PgPool, succession: &Succession) -> Result<(), sqlx::Error> {
    let own: Vec<String> = succession.own.iter().map(|&name| name.to_owned()).collect();
    let former: Vec<String> = succession.former.iter().map(|&name| name.to_owned()).collect();
    let retired = sqlx::query_scalar!(
        "DELETE FROM relay_cursor
         WHERE name = ANY($1)
           AND updated_at < now() - make_interval(secs => $2)
           AND (SELECT count(*) FROM relay_cursor WHERE name = ANY($3)) = cardinality($3)
         RETURNING name",
        &former,
        ABANDONED_AFTER.as_secs_f64(),
        &own,
    )
    .fetch_all(pool)
    .await?;
    for cursor in retired {
        tracing::info!(cursor, instead = ?succession.own, "removed a cursor that no relay attends to any more");
    }
    Ok(())
}
