//! The outbox: append within a command's transaction, read in commit order.
//!
//! # The contract that keeps one task's events in order
//!
//! The relay delivers by `(xid, seq)`. For one task that is the order of its versions as long as every
//! transaction that changes an existing task gets its `xid` when nobody else can change the task any more:
//!
//! - **It begins with [`lock`]**, or with the SQL function `lock_subject` in the statement that reads the
//!   task, for every existing task that it is going to change. That is an advisory lock; a transaction
//!   that waits for one has no xid, and gets one with its first write or row lock afterwards, so a higher
//!   one than the transaction that it waited for.
//! - **Nothing is written and no row is locked before it**: no idempotency key, no counter.
//! - **Several tasks are locked at once**, or the first one's change fixes the xid before the second is
//!   held. New tasks need no lock: nobody else knows them.
//! - **Read committed**, PostgreSQL's default.
//!
//! Why `SELECT … FOR UPDATE` is not enough. A transaction that waits for a row which another has *updated*
//! gets its xid when that one commits, because it then locks the row's newer version
//! (`heap_lock_tuple` in PostgreSQL's `heapam.c`, "if there are updates, follow the update chain"). If a
//! third transaction was faster with that version, it waits again, with its xid, and writes the later
//! version of the task under the lower xid. With eight writers on three tasks this takes less than a
//! second to happen. A plain `UPDATE` takes its xid even before it waits for the first time.
//!
//! # Why `previous` is a column of its own
//!
//! So that a command can hand over both jsonb values as it has them, and no jsonb is merged or taken apart
//! for each row.

use jiff::Timestamp;
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

pub use crate::restore::rebase_after_restore;
use crate::{Error, Event, NewEvent};

/// Appends events in the transaction that `connection` is in, in one statement, in their order.
///
/// To append in the same statement as the change, use the SQL function `append_events`.
pub async fn append(connection: &mut PgConnection, events: &[NewEvent]) -> Result<(), Error> {
    let ids: Vec<_> = events.iter().map(|event| event.id).collect();
    let event_types: Vec<_> = events.iter().map(|event| event.event_type.as_str()).collect();
    let subjects: Vec<_> = events.iter().map(|event| event.subject).collect();
    let user_ids: Vec<_> = events.iter().map(|event| event.user_id.as_str()).collect();
    let versions: Vec<_> = events.iter().map(|event| event.version).collect();
    let actors: Vec<_> = events.iter().map(|event| event.actor.as_str()).collect();
    let data: Vec<_> = events.iter().map(|event| &event.data).collect();
    let previous: Vec<_> = events.iter().map(|event| event.previous.as_ref()).collect();
    let traceparents: Vec<_> = events.iter().map(|event| event.traceparent.as_deref()).collect();
    sqlx::query_scalar!(
        "SELECT append_events($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        &ids,
        &event_types as _,
        &subjects,
        &user_ids as _,
        &versions,
        &actors as _,
        &data as _,
        &previous as _,
        &traceparents as _,
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// Makes sure that nobody else changes these tasks until the end of the transaction: the first statement
/// of every command that changes existing tasks. One advisory lock for each, so not for many thousands.
pub async fn lock(connection: &mut PgConnection, subjects: &[Uuid]) -> Result<(), Error> {
    // In one order, or two commands could wait for each other.
    let mut subjects = subjects.to_vec();
    subjects.sort_unstable();
    sqlx::query("SELECT lock_subject(subject) FROM unnest($1::uuid[]) AS subject")
        .bind(&subjects)
        .execute(connection)
        .await?;
    Ok(())
}

/// A place in commit order. The first readable event is after [`Position::START`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// A PostgreSQL `xid8`; sqlx has no type for it, and it does not reach 2^63.
    pub(crate) xid: i64,
    pub(crate) seq: i64,
}

impl Position {
    pub(crate) const START: Self = Self { xid: 0, seq: 0 };
    /// No event is after it.
    pub(crate) const END: Self = Self {
        xid: i64::MAX,
        seq: i64::MAX,
    };
}

/// The first key of the cursors' advisory locks ("todr" in ASCII).
const CURSOR_LOCK: i32 = 0x746f_6472;

/// Takes a cursor until the end of the transaction; `None` when another relay has it.
///
/// An advisory lock and not the row's, because a row lock gives the transaction an xid: a pass whose
/// consumer waits for better times would hold back the outbox for every other consumer.
pub(crate) async fn try_lock_cursor(
    connection: &mut PgConnection,
    name: &str,
) -> Result<Option<Position>, sqlx::Error> {
    let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, hashtext($2))")
        .bind(CURSOR_LOCK)
        .bind(name)
        .fetch_one(&mut *connection)
        .await?;
    if !locked {
        return Ok(None);
    }
    // A statement of its own: its snapshot must be younger than the lock.
    let row = sqlx::query!(
        r#"SELECT xid::text::bigint AS "xid!", seq
           FROM relay_cursor
           WHERE name = $1"#,
        name,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Position {
        xid: row.xid,
        seq: row.seq,
    }))
}

/// Takes every cursor until the end of the transaction, after the passes that run.
pub(crate) async fn lock_cursors(connection: &mut PgConnection) -> Result<Vec<(String, Position)>, sqlx::Error> {
    sqlx::query(
        "SELECT pg_advisory_xact_lock($1, hashtext(name)) FROM (SELECT name FROM relay_cursor ORDER BY name) AS cursor",
    )
    .bind(CURSOR_LOCK)
    .execute(&mut *connection)
    .await?;
    let rows = sqlx::query!(
        r#"SELECT name, xid::text::bigint AS "xid!", seq
           FROM relay_cursor"#
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let position = Position {
                xid: row.xid,
                seq: row.seq,
            };
            (row.name, position)
        })
        .collect())
}

pub(crate) async fn move_cursor(connection: &mut PgConnection, name: &str, to: Position) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE relay_cursor
         SET xid = $2::bigint::text::xid8,
             seq = $3,
             updated_at = now()
         WHERE name = $1",
        name,
        to.xid,
        to.seq,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// When the oldest event beyond this cursor was written, be it readable yet or held back by a transaction
/// that still runs. One index probe for each partition: the ORDER BY keeps the planner from scanning a day
/// of published rows in search of one that is not.
pub(crate) async fn oldest_beyond(pool: &PgPool, name: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    let created_at = sqlx::query_scalar!(
        r#"SELECT oldest.created_at AS "created_at!"
           FROM relay_cursor
           CROSS JOIN LATERAL (
               SELECT created_at
               FROM outbox
               WHERE (outbox.xid, outbox.seq) > (relay_cursor.xid, relay_cursor.seq)
               ORDER BY outbox.xid, outbox.seq
               LIMIT 1
           ) AS oldest
           WHERE relay_cursor.name = $1"#,
        name,
    )
    .fetch_optional(pool)
    .await?;
    Ok(created_at.map(jiff_sqlx::Timestamp::to_jiff))
}

/// The most events that [`depth`] counts one by one.
const COUNTED: i64 = 10_000;

/// How many events are beyond this cursor. Up to ten thousand they are counted, one index probe each; of more it says
/// how many numbers were given out since, and so a little too many: a transaction that was rolled back used some.
pub(crate) async fn depth(pool: &PgPool, name: &str) -> Result<i64, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT (
               SELECT count(*)
               FROM (
                   SELECT
                   FROM outbox
                   WHERE (outbox.xid, outbox.seq) > (relay_cursor.xid, relay_cursor.seq)
                   ORDER BY outbox.xid, outbox.seq
                   LIMIT $2
               ) AS beyond
           ) AS "counted!",
           (SELECT last_value FROM outbox_seq) - relay_cursor.seq AS "numbered!"
           FROM relay_cursor
           WHERE relay_cursor.name = $1"#,
        name,
        COUNTED,
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map_or(0, |row| {
        if row.counted < COUNTED {
            row.counted
        } else {
            row.numbered.max(COUNTED)
        }
    }))
}

/// The name and place of the cursor that is farthest behind, if there is any.
pub(crate) async fn last_cursor(connection: &mut PgConnection) -> Result<Option<(String, Position)>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT name, xid::text::bigint AS "xid!", seq
           FROM relay_cursor
           ORDER BY relay_cursor.xid, seq
           LIMIT 1"#
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| {
        (
            row.name,
            Position {
                xid: row.xid,
                seq: row.seq,
            },
        )
    }))
}

/// From when on the outbox is whole, and so until the end of the transaction; `None` while nothing was
/// dropped.
pub(crate) async fn hold_retained_from(connection: &mut PgConnection) -> Result<Option<Timestamp>, sqlx::Error> {
    let retained_from = sqlx::query_scalar!("SELECT retained_from FROM outbox_retained FOR SHARE")
        .fetch_one(connection)
        .await?;
    Ok(retained_from.map(jiff_sqlx::Timestamp::to_jiff))
}

/// The next events in commit order, at most `limit`, that no running transaction can still precede.
pub(crate) async fn read_after(
    connection: &mut PgConnection,
    after: Position,
    limit: i64,
) -> Result<Vec<(Position, Event)>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT xid::text::bigint AS "xid!", seq, id, event_type, subject, user_id, version, actor,
                  data, previous, traceparent, created_at
           FROM outbox
           WHERE (xid, seq) > ($1::bigint::text::xid8, $2::bigint)
             AND xid < pg_snapshot_xmin(pg_current_snapshot())
           ORDER BY outbox.xid, seq
           LIMIT $3"#,
        after.xid,
        after.seq,
        limit,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Row::into_event).collect()
}

/// Where events of `since` and later begin, and the time of the earliest from there on; `None` when there are none.
///
/// An event's time is when its transaction began, and its place is by when that first wrote: of two that ran beside each
/// other, the older may come after the younger. No event from the place on is before the time, and no other is after it.
pub(crate) async fn cut(
    connection: &mut PgConnection,
    since: Timestamp,
) -> Result<Option<(Position, Timestamp)>, sqlx::Error> {
    let mut cut = since;
    loop {
        let found = sqlx::query!(
            r#"SELECT first.xid::text::bigint AS "xid!", first.seq AS "seq!", earliest.created_at AS "created_at!"
               FROM (
                   SELECT xid, seq FROM outbox WHERE created_at >= $1 ORDER BY outbox.xid, seq LIMIT 1
               ) AS first,
               LATERAL (
                   SELECT min(created_at) AS created_at FROM outbox WHERE (xid, seq) >= (first.xid, first.seq)
               ) AS earliest"#,
            jiff_sqlx::Timestamp::from(cut),
        )
        .fetch_optional(&mut *connection)
        .await?;
        let Some(found) = found else {
            return Ok(None);
        };
        let earliest = found.created_at.to_jiff();
        if earliest >= cut {
            let before = Position {
                xid: found.xid,
                seq: found.seq - 1,
            };
            return Ok(Some((before, cut)));
        }
        cut = earliest;
    }
}

struct Row {
    xid: i64,
    seq: i64,
    id: Uuid,
    event_type: String,
    subject: Uuid,
    user_id: String,
    version: i64,
    actor: String,
    data: Value,
    previous: Option<Value>,
    traceparent: Option<String>,
    created_at: jiff_sqlx::Timestamp,
}

impl Row {
    /// Fails on an event type that only a newer version knows: then the relay of that version must read
    /// it, and this one waits rather than skips.
    fn into_event(self) -> Result<(Position, Event), Error> {
        let event = Event {
            id: self.id,
            event_type: self.event_type.parse()?,
            subject: self.subject,
            user_id: self.user_id,
            version: self.version,
            actor: self.actor,
            data: self.data,
            previous: self.previous,
            traceparent: self.traceparent,
            time: self.created_at.to_jiff(),
        };
        Ok((
            Position {
                xid: self.xid,
                seq: self.seq,
            },
            event,
        ))
    }
}
