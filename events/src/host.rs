//! The host of a consumer: takes events for it, and returns when each is settled.
//!
//! An event is settled when it is applied (an inbox row, in the transaction of the effect) or among the
//! dead letters: never both, never neither.
//!
//! One delivery is one transaction:
//!
//! 1. A shared advisory lock on the consumer, which a rebuild holds alone. The relay's cursor lock would not
//!    do for that: the delivery of a relay that lost its connection may still run, and a broker's consumers
//!    have no cursor.
//! 2. Inbox rows for the batch. Those that were there are duplicates and go no further; one that another
//!    delivery is writing now is waited for.
//! 3. Which of the tasks have dead letters. Only now: what another delivery buried while we waited in
//!    step 2 must be seen.
//! 4. The consumer handles the rest.
//! 5. Events of the tasks of step 3 are parked behind their dead letter, and lose their inbox row.
//!
//! A batch that fails is halved until the one event that fails is alone: order is kept, and one bad event
//! in a thousand costs some twenty transactions rather than a thousand.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use jiff::Timestamp;
use sqlx::{Acquire, PgConnection, PgPool, Postgres, Transaction};
use tokio_util::sync::CancellationToken;
use tracing::Span;
use tracing::field::Empty;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::consumer::{Consumer, HandleError};
use crate::{Event, Trace, dead_letters, traced};

/// How stubborn a delivery is.
#[derive(Debug, Clone)]
pub struct Retry {
    /// How often an event is tried before it is a dead letter. At least 1.
    pub attempts: u32,
    /// The wait between attempts.
    pub backoff: Backoff,
    /// Ends the waiting for better times. A delivery that succeeds is never cut short.
    pub shutdown: CancellationToken,
}

impl Retry {
    /// Five attempts with the default backoff.
    pub fn until(shutdown: CancellationToken) -> Self {
        Self {
            attempts: 5,
            backoff: Backoff::default(),
            shutdown,
        }
    }
}

/// What became of a batch, in events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Handled and committed now.
    pub applied: u64,
    /// Applied earlier.
    pub duplicate: u64,
    /// Failed, and now among the dead letters.
    pub dead: u64,
    /// Waiting among the dead letters for an earlier event of the same task.
    pub parked: u64,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.applied += other.applied;
        self.duplicate += other.duplicate;
        self.dead += other.dead;
        self.parked += other.parked;
    }
}

/// The shutdown token fired before the batch was settled. What was settled stays so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopped before the batch was settled")]
pub struct Stopped;

/// Settles the events that `consumer` subscribes to, each of them, in their order.
///
/// Safe to call with events that were delivered before, from any number of processes. May be dropped at
/// any time.
pub async fn apply(
    pool: &PgPool,
    consumer: &dyn Consumer,
    events: &[Event],
    retry: &Retry,
) -> Result<Outcome, Stopped> {
    let mut events = subscribed(consumer, events);
    let processing = follow(consumer, &mut events);
    let mut failures = 0;
    let mut settling = Settling::new(&events);
    loop {
        match settling.go_on(&mut Scope::Pool(pool), consumer, retry).await {
            Ok(()) => break,
            Err(Unsettled::Stopped) => return Err(Stopped),
            Err(Unsettled::Transient { error, progressed }) => {
                failures = if progressed { 1 } else { failures + 1 };
                tracing::warn!(consumer = consumer.name(), %error, failures, "cannot deliver now, trying again");
                for span in &processing {
                    span.record("error", &error);
                }
                wait(retry, failures).await?;
            }
        }
    }
    drop(processing);
    count(consumer, settling.outcome);
    Ok(settling.outcome)
}

/// The same within one transaction of the caller, for a rebuild. A transient failure is the caller's: its
/// transaction cannot go on.
pub(crate) async fn apply_within(
    transaction: &mut PgConnection,
    consumer: &dyn Consumer,
    events: &[Event],
    retry: &Retry,
) -> Result<Outcome, Unsettled> {
    let events = subscribed(consumer, events);
    let mut settling = Settling::new(&events);
    settling
        .go_on(&mut Scope::Transaction(transaction), consumer, retry)
        .await?;
    Ok(settling.outcome)
}

/// Why events are not settled.
#[derive(Debug)]
pub(crate) enum Unsettled {
    Stopped,
    Transient {
        error: String,
        /// Whether anything was settled since the last time.
        progressed: bool,
    },
}

fn subscribed<'a>(consumer: &dyn Consumer, events: &'a [Event]) -> Cow<'a, [Event]> {
    let wanted = |event: &Event| {
        event
            .event_type
            .topics()
            .iter()
            .any(|topic| consumer.topics().contains(topic))
    };
    if events.iter().all(wanted) {
        Cow::Borrowed(events)
    } else {
        Cow::Owned(events.iter().filter(|event| wanted(event)).cloned().collect())
    }
}

/// A span for each event whose trace is recorded, in that trace; what the consumer causes continues from there. A batch
/// is one transaction, so the spans last as long as the batch.
fn follow(consumer: &dyn Consumer, events: &mut Cow<'_, [Event]>) -> Vec<Span> {
    let recorded = |event: &Event| {
        let cause = event.traceparent.as_deref().and_then(Trace::parse);
        cause.filter(|cause| cause.is_recorded())
    };
    if !events.iter().any(|event| recorded(event).is_some()) {
        return vec![];
    }
    let mut spans = vec![];
    for event in events.to_mut() {
        let Some(cause) = recorded(event) else { continue };
        let trace = cause.child();
        event.traceparent = Some(trace.traceparent());
        spans.push(traced!(
            trace,
            "process",
            kind = "consumer",
            consumer = consumer.name(),
            messaging.message.id = %event.id,
            todo.event.type = event.event_type.as_str(),
            error = Empty
        ));
    }
    spans
}

/// Runs `log` so that its lines show the trace of the event and not that of the batch.
fn within_trace_of(event: &Event, log: impl FnOnce()) {
    let trace = Trace::under(event.traceparent.as_deref());
    traced!(trace, "event", kind = "internal", idle = true).in_scope(log);
}

async fn wait(retry: &Retry, failures: u32) -> Result<(), Stopped> {
    tokio::select! {
        () = retry.shutdown.cancelled() => Err(Stopped),
        () = tokio::time::sleep(retry.backoff.delay(failures)) => Ok(()),
    }
}

fn count(consumer: &dyn Consumer, outcome: Outcome) {
    for (label, events) in [
        ("applied", outcome.applied),
        ("duplicate", outcome.duplicate),
        ("dead", outcome.dead),
        ("parked", outcome.parked),
    ] {
        metrics::counter!("todo_consumer_events_total", "consumer" => consumer.name(), "outcome" => label)
            .increment(events);
    }
}

/// From the transaction of the change, by the database's clock, to the effect, by this machine's.
fn measure_delay(consumer: &dyn Consumer, applied: &[Event]) {
    let now = Timestamp::now();
    let histogram = metrics::histogram!("todo_consumer_event_delay_seconds", "consumer" => consumer.name());
    for event in applied {
        histogram.record(now.duration_since(event.time).as_secs_f64().max(0.0));
    }
}

/// Where a delivery's transaction begins: a connection of the pool, or a savepoint.
enum Scope<'a> {
    Pool(&'a PgPool),
    Transaction(&'a mut PgConnection),
}

impl Scope<'_> {
    async fn begin(&mut self) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
        match self {
            Self::Pool(pool) => pool.begin().await,
            Self::Transaction(connection) => connection.begin().await,
        }
    }
}

/// A batch on its way, with what is left of it. Survives a transient failure, so that what was settled is
/// not done again.
struct Settling<'a> {
    /// What is to be delivered, the first slice last.
    ahead: Vec<&'a [Event]>,
    /// How often the first slice, one event, has failed.
    failures: u32,
    outcome: Outcome,
}

impl<'a> Settling<'a> {
    fn new(events: &'a [Event]) -> Self {
        let ahead = if events.is_empty() { vec![] } else { vec![events] };
        Self {
            ahead,
            failures: 0,
            outcome: Outcome::default(),
        }
    }

    async fn go_on(&mut self, scope: &mut Scope<'_>, consumer: &dyn Consumer, retry: &Retry) -> Result<(), Unsettled> {
        let mut progressed = false;
        while let Some(&slice) = self.ahead.last() {
            let error = match deliver(scope, consumer, slice).await {
                Ok(outcome) => {
                    self.settled(outcome);
                    progressed = true;
                    continue;
                }
                Err(HandleError::Transient(error)) => {
                    return Err(Unsettled::Transient {
                        error: error.to_string(),
                        progressed,
                    });
                }
                Err(error) => error,
            };
            if let [event] = slice {
                self.failures += 1;
                if self.failures < retry.attempts && matches!(error, HandleError::Failed(_)) {
                    within_trace_of(event, || {
                        tracing::debug!(consumer = consumer.name(), event = %event.id, %error, failures = self.failures, "event failed");
                    });
                    wait(retry, self.failures).await.map_err(|Stopped| Unsettled::Stopped)?;
                    continue;
                }
                within_trace_of(event, || {
                    tracing::warn!(consumer = consumer.name(), event = %event.id, task = %event.subject, %error, attempts = self.failures, "dead letter");
                });
                let outcome = bury(scope, consumer, event, &error, self.failures)
                    .await
                    .map_err(|error| Unsettled::Transient {
                        error: error.to_string(),
                        progressed,
                    })?;
                self.settled(outcome);
                progressed = true;
            } else {
                let (first, second) = slice.split_at(slice.len() / 2);
                self.ahead.pop();
                self.ahead.extend([second, first]);
            }
        }
        Ok(())
    }

    fn settled(&mut self, outcome: Outcome) {
        self.ahead.pop();
        self.failures = 0;
        self.outcome += outcome;
    }
}

/// One transaction: the module's five steps.
async fn deliver(scope: &mut Scope<'_>, consumer: &dyn Consumer, events: &[Event]) -> Result<Outcome, HandleError> {
    // Whatever fails before and after the consumer's own work is not the event's fault.
    let mut transaction = scope.begin().await.map_err(HandleError::transient)?;
    lock_shared(&mut transaction, consumer)
        .await
        .map_err(HandleError::transient)?;
    let mut new = record(&mut transaction, consumer, events)
        .await
        .map_err(HandleError::transient)?;
    let duplicate = (events.len() - new.len()) as u64;
    if new.is_empty() {
        transaction.rollback().await.map_err(HandleError::transient)?;
        return Ok(Outcome {
            duplicate,
            ..Outcome::default()
        });
    }
    let blocked = dead_letters::blocking(&mut transaction, consumer.name(), events)
        .await
        .map_err(HandleError::transient)?;

    let (ready, parked) = if duplicate == 0 && blocked.is_empty() {
        (Cow::Borrowed(events), vec![])
    } else {
        // `remove`, so that an event that stands twice in one batch is handled once.
        let (parked, ready): (Vec<_>, Vec<_>) = events
            .iter()
            .filter(|event| new.remove(&event.id))
            .partition(|event| blocked.contains_key(&event.subject));
        (Cow::Owned(ready.into_iter().cloned().collect()), parked)
    };
    if !ready.is_empty() {
        handle(&mut transaction, consumer, &ready).await?;
    }
    if !parked.is_empty() {
        park(&mut transaction, consumer, &parked, &blocked)
            .await
            .map_err(HandleError::transient)?;
    }
    transaction.commit().await?;
    if matches!(scope, Scope::Pool(_)) {
        // Not of a rebuild: its events are old on purpose.
        measure_delay(consumer, &ready);
    }
    Ok(Outcome {
        applied: ready.len() as u64,
        duplicate,
        dead: 0,
        parked: parked.len() as u64,
    })
}

/// The consumer's own work, with a panic made an error.
pub(crate) async fn handle(
    transaction: &mut PgConnection,
    consumer: &dyn Consumer,
    events: &[Event],
) -> Result<(), HandleError> {
    let handled = AssertUnwindSafe(async { consumer.handle(transaction, events).await })
        .catch_unwind()
        .await;
    handled.unwrap_or_else(|_| Err(HandleError::failed("the consumer panicked")))?;
    // A consumer that ignored the error of a statement has left a transaction in which nothing can be
    // committed, and COMMIT would say so only in passing. Any statement finds out.
    sqlx::query("SELECT 1").execute(transaction).await?;
    Ok(())
}

/// Takes the consumer's advisory lock beside other deliveries.
pub(crate) async fn lock_shared(connection: &mut PgConnection, consumer: &dyn Consumer) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock_shared($1, hashtext($2))")
        .bind(CONSUMER_LOCK)
        .bind(consumer.name())
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes the consumer's advisory lock alone: no delivery runs until the end of the transaction.
pub(crate) async fn lock_alone(connection: &mut PgConnection, consumer: &dyn Consumer) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2))")
        .bind(CONSUMER_LOCK)
        .bind(consumer.name())
        .execute(connection)
        .await?;
    Ok(())
}

/// The first key of the consumers' advisory locks ("todo" in ASCII).
const CONSUMER_LOCK: i32 = 0x746f_646f;

/// Writes the inbox rows; returns the ids that were not there.
pub(crate) async fn record(
    connection: &mut PgConnection,
    consumer: &dyn Consumer,
    events: &[Event],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    let new = sqlx::query_scalar!(
        "INSERT INTO inbox (consumer, event_id)
         SELECT $1, event_id
         FROM unnest($2::uuid[]) AS event_id
         ON CONFLICT DO NOTHING
         RETURNING event_id",
        consumer.name(),
        &ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(new.into_iter().collect())
}

async fn unrecord(connection: &mut PgConnection, consumer: &dyn Consumer, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM inbox
         WHERE consumer = $1
           AND event_id = ANY($2)",
        consumer.name(),
        ids,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn park(
    transaction: &mut PgConnection,
    consumer: &dyn Consumer,
    parked: &[&Event],
    blocked: &HashMap<Uuid, Uuid>,
) -> Result<(), sqlx::Error> {
    dead_letters::park(transaction, consumer.name(), parked, blocked).await?;
    let ids: Vec<Uuid> = parked.iter().map(|event| event.id).collect();
    unrecord(transaction, consumer, &ids).await
}

/// Makes an event a dead letter, unless another delivery has applied it in the meantime.
async fn bury(
    scope: &mut Scope<'_>,
    consumer: &dyn Consumer,
    event: &Event,
    error: &HandleError,
    attempts: u32,
) -> Result<Outcome, sqlx::Error> {
    let mut transaction = scope.begin().await?;
    lock_shared(&mut transaction, consumer).await?;
    // The inbox row stands guard: a delivery of the same event in another process waits for us, or we
    // for it.
    let new = record(&mut transaction, consumer, std::slice::from_ref(event)).await?;
    if new.is_empty() {
        return Ok(Outcome {
            duplicate: 1,
            ..Outcome::default()
        });
    }
    dead_letters::bury(&mut transaction, consumer.name(), event, &error.to_string(), attempts).await?;
    unrecord(&mut transaction, consumer, &[event.id]).await?;
    transaction.commit().await?;
    Ok(Outcome {
        dead: 1,
        ..Outcome::default()
    })
}
