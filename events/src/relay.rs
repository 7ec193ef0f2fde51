//! The relay: reads the outbox in commit order and publishes it on the bus.
//!
//! One pass is one transaction: it takes the cursor's lock, reads a batch after the cursor, publishes it,
//! moves the cursor, commits. Any number of relays may run on one cursor, in any number of processes:
//! one has the lock, the others look again later, and one of them goes on when it is gone. A relay that
//! dies between publishing and committing has published events that will be published again; the inbox
//! removes them.
//!
//! Why there is a cursor for each consumer on a [`crate::LocalBus`], and not one for all: processes run
//! different roles. With one cursor, the process that has the lock would move it past events that only
//! another process has the consumer for. Also, no consumer waits for a slower one. A broker keeps its
//! consumers' places itself, so a bus to one has a single cursor.
//!
//! The relay never gives up. A pass that fails is logged, and tried again after a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::PgPool;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::backoff::Backoff;
use crate::bus::Bus;
use crate::cursors::{self, Succession};
use crate::waker::{Channel, Waker};
use crate::{Error, Event, Trace, dead_letters, measure, outbox, traced};

/// How often a relay says that it is there.
const ATTEND_EVERY: Duration = Duration::from_secs(15);

/// How a relay works.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The most events of one pass.
    pub batch: u16,
    /// How often to look when nothing wakes it.
    pub poll: Duration,
    /// How often to look while events keep coming: what gathers meanwhile is one batch.
    pub busy_poll: Duration,
    /// The wait after a pass that failed.
    pub backoff: Backoff,
    /// How often what waits is counted, for the metrics.
    pub measure: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch: 1000,
            poll: Duration::from_secs(1),
            busy_poll: Duration::from_millis(20),
            backoff: Backoff::default(),
            measure: Duration::from_secs(15),
        }
    }
}

/// What a pass found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Nothing to publish.
    Idle,
    /// Another relay is at it.
    Elsewhere,
    /// There are events, but a transaction that still runs may precede them.
    HeldBack,
    /// This many events were published and the cursor is after them.
    Published(usize),
}

/// Publishes the outbox on a bus.
pub struct Relay {
    pool: PgPool,
    cursor: &'static str,
    succession: Option<Succession>,
    registered: AtomicBool,
    bus: Arc<dyn Bus>,
    waker: Waker,
    settings: Settings,
}

impl Relay {
    /// A relay from this database to this bus. A pass holds one connection of the pool, and
    /// takes a second one to read.
    ///
    /// `cursor` names the place that it keeps: the consumer's name for a [`crate::LocalBus`], a name of its
    /// own for a broker. Under a new name it begins with the oldest event that is kept; what was applied
    /// before, under another name, the inbox knows.
    pub fn new(pool: PgPool, cursor: &'static str, bus: Arc<dyn Bus>, waker: Waker, settings: Settings) -> Self {
        Self {
            pool,
            cursor,
            succession: None,
            registered: AtomicBool::new(false),
            bus,
            waker,
            settings,
        }
    }

    /// The same, of a kind that may come after another: it looks after the other's cursors, too.
    #[must_use]
    pub fn succeeding(self, succession: Succession) -> Self {
        debug_assert!(succession.own.contains(&self.cursor), "it is of its own kind");
        Self {
            succession: Some(succession),
            ..self
        }
    }

    /// Publishes until `shutdown`, and then to the end of the pass that runs.
    pub async fn run(&self, shutdown: CancellationToken) {
        measure::describe_metrics();
        // Beside the passes: one that cannot end is just what the measures must show.
        tokio::join!(
            self.publish(&shutdown),
            self.measure(&shutdown),
            self.attend_until(&shutdown)
        );
    }

    async fn publish(&self, shutdown: &CancellationToken) {
        let mut wakeups = self.waker.subscribe(Channel::Outbox);
        let held_back = Backoff {
            first: self.settings.busy_poll,
            max: self.settings.poll,
        };
        let mut in_a_row = 0;
        while !shutdown.is_cancelled() {
            let trace = Trace::begin();
            let span = traced!(
                trace,
                "relay pass",
                kind = "internal",
                cursor = self.cursor,
                idle = Empty,
                error = Empty
            );
            let pass = self.pass_in(trace).instrument(span.clone()).await;
            match &pass {
                Ok(Pass::Published(_)) => {}
                Ok(_) => {
                    span.record("idle", true);
                }
                Err(error) => {
                    span.record("error", tracing::field::display(error));
                }
            }
            in_a_row = match pass {
                Ok(Pass::HeldBack) | Err(_) => in_a_row + 1,
                Ok(_) => 0,
            };
            let (pause, woken_early) = match pass {
                Ok(Pass::Published(events)) if events >= usize::from(self.settings.batch) => continue,
                Ok(Pass::Published(_)) => (self.settings.busy_poll, false),
                Ok(Pass::HeldBack) => (held_back.delay(in_a_row), false),
                Ok(Pass::Elsewhere) => (self.settings.poll, false),
                Ok(Pass::Idle) => (self.settings.poll, true),
                Err(error) => {
                    if !shutdown.is_cancelled() {
                        span.in_scope(|| {
                            tracing::warn!(cursor = self.cursor, %error, failures = in_a_row, "relay pass failed, trying again");
                        });
                    }
                    (self.settings.backoff.delay(in_a_row), false)
                }
            };
            drop(span);
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
                () = wakeups.woken(), if woken_early => {}
            }
        }
    }

    /// One pass.
    pub async fn pass(&self) -> Result<Pass, Error> {
        self.pass_in(Trace::begin()).await
    }

    async fn pass_in(&self, trace: Trace) -> Result<Pass, Error> {
        let started = Instant::now();
        if !self.registered.load(Ordering::Relaxed) {
            cursors::ensure(&self.pool, self.cursor, self.succession.as_ref()).await?;
            self.registered.store(true, Ordering::Relaxed);
        }
        if self.oldest().await?.is_none() {
            return Ok(Pass::Idle);
        }

        let mut transaction = self.pool.begin().await?;
        let Some(position) = outbox::try_lock_cursor(&mut transaction, self.cursor).await? else {
            return Ok(Pass::Elsewhere);
        };
        let batch = {
            // Not in the transaction of the pass: that would keep the outbox's partitions locked, against
            // making and dropping them, for as long as the consumer takes.
            let mut reader = self.pool.acquire().await?;
            outbox::read_after(&mut reader, position, i64::from(self.settings.batch)).await?
        };
        let Some(&(last, _)) = batch.last() else {
            // Here and now, not when the pool gets to it: the next pass must not find the lock taken.
            transaction.rollback().await?;
            return Ok(Pass::HeldBack);
        };
        let mut events: Vec<_> = batch.into_iter().map(|(_, event)| event).collect();
        let publishing = self.follow(&mut events, trace);
        if let Err(error) = self.bus.publish(&events).await {
            for span in publishing {
                span.record("error", tracing::field::display(&error));
            }
            transaction.rollback().await?;
            return Err(error.into());
        }
        outbox::move_cursor(&mut transaction, self.cursor, last).await?;
        transaction.commit().await?;
        drop(publishing);

        metrics::counter!("todo_outbox_published_total", "cursor" => self.cursor).increment(events.len() as u64);
        metrics::histogram!("todo_relay_pass_seconds", "cursor" => self.cursor).record(started.elapsed());
        Ok(Pass::Published(events.len()))
    }

    /// A span for each event whose trace is recorded, in that trace; the event then carries the span's `traceparent`
    /// to its consumers. Beside the span of the pass, which no single event's trace is.
    fn follow(&self, events: &mut [Event], pass: Trace) -> Vec<Span> {
        let mut spans = vec![];
        for event in events {
            // What time brought about and no request did begins its trace here.
            let trace = Trace::under(event.traceparent.as_deref());
            if !trace.is_recorded() {
                continue;
            }
            event.traceparent = Some(trace.traceparent());
            spans.push(traced!(
                trace,
                "publish",
                kind = "producer",
                cursor = self.cursor,
                messaging.message.id = %event.id,
                todo.event.type = event.event_type.as_str(),
                link = %pass,
                error = Empty
            ));
        }
        spans
    }

    /// When the oldest event that waits was written.
    async fn oldest(&self) -> Result<Option<Timestamp>, Error> {
        let oldest = outbox::oldest_beyond(&self.pool, self.cursor).await?;
        let age = oldest.map_or(Duration::ZERO, |oldest| {
            Timestamp::now().duration_since(oldest).try_into().unwrap_or_default()
        });
        metrics::gauge!("todo_outbox_oldest_age_seconds", "cursor" => self.cursor).set(age);
        Ok(oldest)
    }

    async fn attend_until(&self, shutdown: &CancellationToken) {
        let mut due = tokio::time::interval(ATTEND_EVERY);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = due.tick() => {}
            }
            if let Err(error) = self.attend().await {
                tracing::debug!(cursor = self.cursor, %error, "the cursor was not attended to");
            }
        }
    }

    /// Says that this relay's cursor is in use, and removes those of another kind that are not. [`Relay::run`] does it
    /// every few seconds, also while a pass takes long.
    pub async fn attend(&self) -> Result<(), Error> {
        if !self.registered.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !cursors::attend(&self.pool, self.cursor).await? {
            tracing::warn!(cursor = self.cursor, "the cursor is gone, making it again");
            self.registered.store(false, Ordering::Relaxed);
            return Ok(());
        }
        if let Some(succession) = &self.succession {
            cursors::retire(&self.pool, succession).await?;
        }
        Ok(())
    }

    async fn measure(&self, shutdown: &CancellationToken) {
        let mut due = tokio::time::interval(self.settings.measure);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = due.tick() => {}
            }
            if let Err(error) = self.count().await {
                tracing::debug!(%error, "what waits was not counted");
            }
        }
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "a gauge is a float, and 2^53 events do not fit a disk"
    )]
    async fn count(&self) -> Result<(), Error> {
        self.oldest().await?;
        let letters = dead_letters::count(&self.pool).await?;
        metrics::gauge!("todo_dead_letters").set(letters as f64);
        let depth = outbox::depth(&self.pool, self.cursor).await?;
        metrics::gauge!("todo_outbox_depth_events", "cursor" => self.cursor).set(depth as f64);
        Ok(())
    }
}
