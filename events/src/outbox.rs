//! The outbox: append within a command's transaction, read in commit order.
//!
//! # The contract that keeps one task's events in order
//!
//! The relay delivers by `(xid, seq)`. For one task that is the order of its versions as long as every
//! transaction that changes an existing task gets its `xid` after it holds the task's row lock:
//!
//! - **The first statement is `SELECT … FOR UPDATE` of that one task** (or one statement that does this
//!   in a CTE before it writes). PostgreSQL gives a transaction its xid with its first write or row lock,
//!   and a `SELECT … FOR UPDATE` that waits has none yet: it gets one when the wait is over, after the
//!   transaction that it waited for, and so a higher one.
//! - **Nothing is written before it.** A plain `UPDATE` takes its xid before it waits, and so does whatever
//!   came first: an idempotency key, a rate counter, another row.
//! - **One transaction changes one existing task.** With two, the lock of the first fixes the xid before
//!   the second is held. New tasks are free: nobody else can have changed them.
//! - **Read committed**, PostgreSQL's default.
//!
//! # Why `previous` is a column of its own
//!
//! So that a command can hand over both jsonb values as it has them, and no jsonb is merged or taken apart
//! for each row.

use sqlx::PgConnection;

use crate::{Error, NewEvent};

/// Appends events in the transaction that `connection` is in, in one statement, in their order.
///
/// To append in the same statement as the change, use the SQL function `append_event` instead.
pub async fn append(connection: &mut PgConnection, events: &[NewEvent]) -> Result<(), Error> {
    let ids: Vec<_> = events.iter().map(|event| event.id).collect();
    let event_types: Vec<_> = events
        .iter()
        .map(|event| event.event_type.as_str())
        .collect();
    let subjects: Vec<_> = events.iter().map(|event| event.subject).collect();
    let user_ids: Vec<_> = events.iter().map(|event| event.user_id.as_str()).collect();
    let versions: Vec<_> = events.iter().map(|event| event.version).collect();
    let actors: Vec<_> = events.iter().map(|event| event.actor.as_str()).collect();
    let data: Vec<_> = events.iter().map(|event| &event.data).collect();
    let previous: Vec<_> = events.iter().map(|event| event.previous.as_ref()).collect();
    let traceparents: Vec<_> = events
        .iter()
        .map(|event| event.traceparent.as_deref())
        .collect();
    sqlx::query!(
        "INSERT INTO outbox (id, event_type, subject, user_id, version, actor, data, previous, traceparent)
         SELECT *
         FROM unnest(
             $1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::bigint[],
             $6::text[], $7::jsonb[], $8::jsonb[], $9::text[]
         )",
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
    .execute(connection)
    .await?;
    Ok(())
}
