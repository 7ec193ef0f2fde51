//! Puts the outbox right after a dump was loaded into another server.
//!
//! Transaction ids belong to a cluster. A dump carries those of its old one, and when the new cluster's
//! counter is lower, two things go wrong in silence: rows from the dump lie beyond every horizon and are
//! not read, and new rows lie before the cursors and are never read.
//!
//! The cure is an xid that precedes all that a cluster ever gives out (real ones begin at 3): the rows of
//! the dump get it, numbered anew in their old order, and each cursor is put after those that it had
//! passed. Whatever is written from then on comes after them, by whichever transaction.

use sqlx::PgPool;

use crate::Error;
use crate::outbox::{self, Position};

/// PostgreSQL's `FrozenTransactionId`: before every real transaction.
const FROZEN: i64 = 2;

/// Rewrites the order of the outbox if it holds transaction ids that this cluster has not given out yet;
/// returns how many events it moved. Changes nothing otherwise. Run it before the first relay.
///
/// Events written here before it ran are recognised by their higher sequence numbers and stay in order
/// after those of the dump. What is published a second time by it, the inbox removes.
pub async fn rebase_after_restore(pool: &PgPool) -> Result<u64, Error> {
    let mut transaction = pool.begin().await?;
    // Waits for the passes that run, and lets none begin.
    let cursors = outbox::lock_cursors(&mut transaction).await?;
    // A row that we can see is of a transaction that has ended, and so below the snapshot's xmax, if this
    // cluster wrote it.
    let state = sqlx::query!(
        r#"SELECT horizon::text::bigint AS "horizon!",
                  (SELECT max(seq) FROM outbox WHERE xid >= horizon) AS last_foreign,
                  (SELECT COALESCE(max(seq), 0) FROM outbox) AS "last!"
           FROM pg_snapshot_xmax(pg_current_snapshot()) AS horizon"#
    )
    .fetch_one(&mut *transaction)
    .await?;
    let foreign_cursors = cursors
        .iter()
        .filter(|(_, position)| position.xid >= state.horizon)
        .map(|(_, position)| position.seq);
    let Some(last_foreign) = foreign_cursors.chain(state.last_foreign).max() else {
        return Ok(0);
    };

    let mut passed = Vec::with_capacity(cursors.len());
    for (cursor, position) in cursors {
        let restored = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!"
               FROM outbox
               WHERE (xid <= $1::bigint::text::xid8 OR xid >= $2::bigint::text::xid8 OR seq <= $3::bigint)
                 AND (xid, seq) <= ($4::bigint::text::xid8, $5::bigint)"#,
            FROZEN,
            state.horizon,
            last_foreign,
            position.xid,
            position.seq,
        )
        .fetch_one(&mut *transaction)
        .await?;
        passed.push((cursor, restored));
    }
    let moved = sqlx::query!(
        "UPDATE outbox
         SET xid = $1::bigint::text::xid8,
             seq = $4::bigint + restored.place
         FROM (
             SELECT xid, seq, created_at, row_number() OVER (ORDER BY xid, seq) AS place
             FROM outbox
             WHERE xid <= $1::bigint::text::xid8 OR xid >= $2::bigint::text::xid8 OR seq <= $3::bigint
         ) AS restored
         WHERE outbox.xid = restored.xid
           AND outbox.seq = restored.seq
           AND outbox.created_at = restored.created_at",
        FROZEN,
        state.horizon,
        last_foreign,
        state.last,
    )
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    for (cursor, restored) in passed {
        let to = Position {
            xid: FROZEN,
            seq: state.last + restored,
        };
        outbox::move_cursor(&mut transaction, &cursor, to).await?;
    }
    transaction.commit().await?;
    tracing::warn!(events = moved, "the outbox comes from another cluster: order rewritten");
    Ok(moved)
}
