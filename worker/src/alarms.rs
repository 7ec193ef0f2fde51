//! Alarm clocks for reminders: a scheduler outside of the database holds a job for each reminder that waits, and
//! calls when its instant has come.
//!
//! An alarm wakes the clock of reminders and does nothing else ([`ring`]): what is due, and whether it went out, the
//! database knows. So a scheduler that is down, slow, wiped, or calls ten times costs nothing but its own use. And
//! telling it is a task of its own, with a time limit for each call and pauses that grow while it fails: however long
//! it hangs, sending never waits for it.
//!
//! Which jobs there should be is in the books of [`todo_tasks::reminder::alarm`]; here a few of them at a time are
//! claimed, told, and written down.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sqlx::PgPool;
use todo_events::waker::Wakeups;
use todo_events::{BoxFuture, Channel, Waker};
use todo_tasks::ReminderId;
use todo_tasks::reminder::alarm::{self, Telling};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::LONGEST_SLEEP;

/// How many jobs are told at a time.
const BATCH: i64 = 16;
/// What lies between two batches, so that a large change does not become a storm on the scheduler: at most about 300
/// calls a second from one process.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one call may take.
const CALL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a claim holds: longer than any call, so that only a process that was frozen or died loses one.
const LEASE: Duration = Duration::from_mins(1);
/// How long a reminder whose call failed makes room for others.
const PUT_OFF: Duration = Duration::from_secs(10);
/// The pauses while the scheduler takes nothing.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// What rings within this time is told again when a process starts.
const TOLD_AT_START: Duration = Duration::from_hours(1);
/// How often the open differences are counted for the gauge.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// The names of the jobs begin with this; the reminder's id follows.
const NAME_PREFIX: &str = "reminder-";

/// A scheduler that calls back once, by name, at an instant: late, twice or not at all are allowed.
pub trait AlarmClock: fmt::Debug + Send + Sync {
    /// Has `name` ring at `at`, and no more when it would have rung before. May be told the same twice.
    fn set<'a>(&'a self, name: &'a str, at: Timestamp) -> BoxFuture<'a, Result<(), AlarmError>>;

    /// Has `name` ring no more. That it was never set, or has rung, is no error.
    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), AlarmError>>;
}

/// Why a scheduler did not do as it was told, for the log.
pub type AlarmError = Box<dyn std::error::Error + Send + Sync>;

/// What to do when the scheduler calls for the job of this name, however often it does: whoever sends reminders looks
/// at what is due. A name that is not that of a reminder's job is ignored.
pub fn ring(waker: &Waker, name: &str) {
    let id = name.strip_prefix(NAME_PREFIX).map(str::parse::<ReminderId>);
    if matches!(id, Some(Ok(_))) {
        metrics::counter!("todo_alarms_received_total").increment(1);
        waker.wake(Channel::Reminders);
    } else {
        tracing::debug!(name, "ignored an alarm that is not of a reminder");
    }
}

/// Keeps the scheduler told until `shutdown`; what is under way then is handed back.
pub(crate) async fn run(pool: PgPool, clock: Arc<dyn AlarmClock>, mut wakeups: Wakeups, shutdown: CancellationToken) {
    describe_metrics();
    let teller = Teller { pool, clock };
    let mut failures: u32 = 0;
    let mut is_started = false;
    let mut counted: Option<Instant> = None;
    while !shutdown.is_cancelled() {
        // One call is enough to find out that nothing has changed.
        let batch = if failures == 0 { BATCH } else { 1 };
        let outcome = teller.pass(batch, &mut is_started, &shutdown).await;
        let next = Next::after(&outcome, &mut failures);
        if let Err(error) = outcome {
            tracing::warn!(%error, failures, "could not keep the alarms, trying again");
        }
        if counted.is_none_or(|counted| counted.elapsed() >= COUNT_EVERY) {
            teller.count().await;
            counted = Some(Instant::now());
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(next.pause) => {}
            () = wakeups.woken(), if next.may_be_woken => {}
        }
    }
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    done: usize,
    failed: usize,
}

/// When the next pass begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Next {
    pause: Duration,
    may_be_woken: bool,
}

impl Next {
    /// A scheduler that takes nothing is left alone for longer and longer, whatever happens meanwhile.
    fn after(outcome: &Result<Told, todo_tasks::Error>, failures: &mut u32) -> Self {
        let pause = match outcome {
            Ok(Told { done: 0, failed: 0 }) => {
                return Self {
                    pause: LONGEST_SLEEP,
                    may_be_woken: true,
                };
            }
            Err(_) | Ok(Told { done: 0, .. }) => {
                let pause = FIRST_BACKOFF.saturating_mul(1 << (*failures).min(8));
                *failures = failures.saturating_add(1);
                pause.min(LONGEST_BACKOFF)
            }
            Ok(_) => {
                *failures = 0;
                PAUSE
            }
        };
        Self {
            pause,
            may_be_woken: false,
        }
    }
}

struct Teller {
    pool: PgPool,
    clock: Arc<dyn AlarmClock>,
}

impl Teller {
    /// Claims a batch, makes its calls side by side, and writes down each as it ends.
    async fn pass(
        &self,
        batch: i64,
        is_started: &mut bool,
        shutdown: &CancellationToken,
    ) -> Result<Told, todo_tasks::Error> {
        if !*is_started {
            let again = alarm::tell_again(&self.pool, TOLD_AT_START).await?;
            tracing::debug!(alarms = again, "telling the scheduler again after a start");
            *is_started = true;
        }
        let mut open = alarm::claim(&self.pool, batch, LEASE).await?;
        let mut calls = JoinSet::new();
        for telling in &open {
            calls.spawn(call(Arc::clone(&self.clock), telling.clone()));
        }
        let mut told = Told::default();
        loop {
            let ended = tokio::select! {
                () = shutdown.cancelled() => break,
                ended = calls.join_next() => ended,
            };
            let Some(ended) = ended else { break };
            // One that panicked is handed back below, with those that were cut short.
            let Ok((telling, outcome)) = ended else {
                told.failed += 1;
                continue;
            };
            open.retain(|other| other.reminder != telling.reminder);
            self.write_down(&telling, outcome, &mut told).await?;
        }
        calls.shutdown().await;
        for telling in &open {
            alarm::put_off(&self.pool, telling, Duration::ZERO).await?;
        }
        Ok(told)
    }

    async fn write_down(
        &self,
        telling: &Telling,
        outcome: Result<(), AlarmError>,
        told: &mut Told,
    ) -> Result<(), todo_tasks::Error> {
        match outcome {
            Ok(()) => {
                told.done += 1;
                let counter = if telling.at.is_some() {
                    metrics::counter!("todo_alarms_set_total")
                } else {
                    metrics::counter!("todo_alarms_removed_total")
                };
                counter.increment(1);
                alarm::settle(&self.pool, telling).await
            }
            Err(error) => {
                told.failed += 1;
                metrics::counter!("todo_alarm_failures_total").increment(1);
                tracing::warn!(reminder = %telling.reminder, %error, "the scheduler was not told; reminders go out without it");
                alarm::put_off(&self.pool, telling, PUT_OFF).await.map(drop)
            }
        }
    }

    async fn count(&self) {
        match alarm::differences(&self.pool).await {
            #[allow(
                clippy::cast_precision_loss,
                reason = "a number of rows that does not fit a float's 52 bits does not fit a disk"
            )]
            Ok(count) => metrics::gauge!("todo_alarms_pending").set(count as f64),
            Err(error) => tracing::debug!(%error, "could not count the alarms to be set"),
        }
    }
}

async fn call(clock: Arc<dyn AlarmClock>, telling: Telling) -> (Telling, Result<(), AlarmError>) {
    let name = format!("{NAME_PREFIX}{}", telling.reminder);
    let call = match telling.at {
        Some(at) => clock.set(&name, at),
        None => clock.remove(&name),
    };
    let outcome = tokio::time::timeout(CALL_PATIENCE, call)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {CALL_PATIENCE:?}").into()));
    (telling, outcome)
}

fn describe_metrics() {
    metrics::describe_counter!(
        "todo_alarms_set_total",
        "Jobs that the scheduler was told to set or to move."
    );
    metrics::describe_counter!(
        "todo_alarms_removed_total",
        "Jobs that the scheduler was told to remove."
    );
    metrics::describe_counter!(
        "todo_alarm_failures_total",
        "Calls by which the scheduler was not told, or did not say so in time."
    );
    metrics::describe_counter!(
        "todo_alarms_received_total",
        "Calls of the scheduler for a reminder, doubled ones included."
    );
    metrics::describe_gauge!(
        "todo_alarms_pending",
        "Jobs that are to be set, moved or removed, in all processes together."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_that_takes_nothing_is_asked_less_and_less_often() {
        let mut failures = 0;
        let nothing = Ok(Told { done: 0, failed: 1 });
        let pauses: Vec<u64> = (0..7)
            .map(|_| Next::after(&nothing, &mut failures).pause.as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert!(!Next::after(&nothing, &mut failures).may_be_woken);

        let some = Ok(Told { done: 1, failed: 3 });
        assert_eq!(Next::after(&some, &mut failures).pause, PAUSE);
        assert_eq!(Next::after(&nothing, &mut failures).pause, FIRST_BACKOFF);
    }

    #[test]
    fn with_nothing_to_tell_a_change_is_waited_for() {
        let mut failures = 3;
        let next = Next::after(&Ok(Told::default()), &mut failures);
        assert!(next.may_be_woken);
        assert_eq!(failures, 3, "nothing was told, so nothing is known of the scheduler");
    }
}
