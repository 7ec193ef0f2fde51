//! Rebuilds what a consumer derived, from the outbox.
//!
//! Everything happens in one transaction, so that readers see what was derived before or what was derived
//! now, and never half of it. The consumer's advisory lock waits for the deliveries that run and keeps the
//! next ones waiting. The price of one transaction: events that are written while it runs reach all
//! consumers only after it, because it holds the outbox's horizon.
//!
//! It does not stop at the relay's cursor. Events beyond it are handled as well, in their order, and are
//! duplicates when the relay brings them; a broker's consumers have no cursor here at all.

use jiff::Timestamp;
use sqlx::PgPool;

use crate::Error;
use crate::consumer::Consumer;
use crate::host::{self, Outcome, Retry, Unsettled};
use crate::outbox::{self, Position};

const BATCH: i64 = 1000;

/// How far a rebuild got, in events of all types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Read so far.
    pub done: u64,
    /// To be read.
    pub total: u64,
}

/// Makes `consumer` forget what it derived from events of `since` and later, and handle them again, in
/// order, up to the last that can be read; with those that are older and have come after one of them. Events that fail become dead letters, as they would from the relay; a
/// task that has an older dead letter stays parked.
///
/// Fails with nothing changed: with
/// [`Error::NotRetained`] when `since` is before what the outbox keeps, with [`Error::Interrupted`] at a
/// transient failure or when the shutdown token of `retry` fires.
pub async fn since(
    pool: &PgPool,
    consumer: &dyn Consumer,
    since: Timestamp,
    retry: &Retry,
    mut progress: impl FnMut(Progress) + Send,
) -> Result<Outcome, Error> {
    let mut transaction = pool.begin().await?;
    host::lock_alone(&mut transaction, consumer).await?;
    // Holds the row: nothing is dropped from the outbox before this transaction ends.
    let retained_from = outbox::hold_retained_from(&mut transaction).await?;
    if let Some(retained_from) = retained_from.filter(|&retained_from| since < retained_from) {
        return Err(Error::NotRetained { since, retained_from });
    }

    let cut = outbox::cut(&mut transaction, since).await?;
    let (mut position, since) = cut.unwrap_or((Position::END, since));
    let from = jiff_sqlx::Timestamp::from(since);
    sqlx::query!(
        "DELETE FROM inbox
         USING outbox
         WHERE inbox.consumer = $1
           AND inbox.event_id = outbox.id
           AND outbox.created_at >= $2",
        consumer.name(),
        from,
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!(
        "DELETE FROM dead_letters AS late
         WHERE consumer = $1
           AND event_time >= $2
           AND NOT EXISTS (
               SELECT
               FROM dead_letters AS early
               WHERE early.consumer = late.consumer
                 AND early.subject = late.subject
                 AND early.event_time < $2
           )",
        consumer.name(),
        from,
    )
    .execute(&mut *transaction)
    .await?;
    let total = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!"
           FROM outbox
           WHERE (xid, seq) > ($1::bigint::text::xid8, $2::bigint)
             AND xid < pg_snapshot_xmin(pg_current_snapshot())"#,
        position.xid,
        position.seq,
    )
    .fetch_one(&mut *transaction)
    .await?;
    let total = u64::try_from(total).unwrap_or_default();
    consumer
        .forget(&mut transaction, since)
        .await
        .map_err(|error| Error::Interrupted(error.to_string()))?;

    let mut outcome = Outcome::default();
    let mut done = 0;
    loop {
        progress(Progress { done, total });
        let batch = outbox::read_after(&mut transaction, position, BATCH).await?;
        let Some(&(last, _)) = batch.last() else {
            break;
        };
        position = last;
        done += batch.len() as u64;
        let events: Vec<_> = batch.into_iter().map(|(_, event)| event).collect();
        outcome += host::apply_within(&mut transaction, consumer, &events, retry)
            .await
            .map_err(|unsettled| {
                Error::Interrupted(match unsettled {
                    Unsettled::Stopped => "stopped".to_owned(),
                    Unsettled::Transient { error, .. } => error,
                })
            })?;
    }
    transaction.commit().await?;
    Ok(outcome)
}
