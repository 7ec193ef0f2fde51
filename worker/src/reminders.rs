//! The clock of reminders: what is due goes out, what is late goes out behind it at a measured pace.

use std::time::Duration;

use sqlx::PgPool;
use todo_events::waker::Wakeups;
use todo_events::{Channel, Waker};
use todo_tasks::reminder::{self, Sent};
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Next};

/// How many reminders that are due one transaction sends.
const BATCH: i64 = 1_000;

/// How fast late reminders go out, so that a backlog does not become a storm on what comes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// So many in one transaction,
    pub batch: u16,
    /// and this long between two.
    pub pause: Duration,
}

impl Default for Pace {
    /// 1,000, then 20 ms for others: 10,000 in about two seconds.
    fn default() -> Self {
        Self {
            batch: 1_000,
            pause: Duration::from_millis(20),
        }
    }
}

pub(crate) async fn run(pool: PgPool, waker: Waker, wakeups: Wakeups, pace: Pace, shutdown: CancellationToken) {
    describe_metrics();
    clock::run("reminders", wakeups, shutdown, || pass(&pool, &waker, pace)).await;
}

/// First all that is due now, then one batch of what is late.
async fn pass(pool: &PgPool, waker: &Waker, pace: Pace) -> Result<Next, todo_tasks::Error> {
    let mut tx = pool.begin().await?;
    let sent = reminder::send_on_time(&mut tx, BATCH).await?;
    tx.commit().await?;
    if sent.sent > 0 {
        report(&sent, "on_time");
        waker.wake(Channel::Outbox);
        return Ok(Next::After(Duration::ZERO));
    }
    let mut tx = pool.begin().await?;
    let sent = reminder::send_late(&mut tx, i64::from(pace.batch)).await?;
    tx.commit().await?;
    if sent.sent > 0 {
        report(&sent, "late");
        tracing::info!(reminders = sent.sent, digests = sent.digests, "sent late reminders");
        waker.wake(Channel::Outbox);
        return Ok(Next::After(pace.pause));
    }
    let mut conn = pool.acquire().await?;
    Ok(Next::Idle(reminder::until_next(&mut conn).await?))
}

fn report(sent: &Sent, outcome: &'static str) {
    metrics::counter!("todo_reminders_sent_total", "outcome" => outcome).increment(sent.sent as u64);
    #[allow(
        clippy::cast_precision_loss,
        reason = "a delay that does not fit a float's 52 bits is 142 million years"
    )]
    metrics::histogram!("todo_reminder_lateness_seconds").record(sent.worst_delay_seconds as f64);
}

fn describe_metrics() {
    metrics::describe_counter!("todo_reminders_sent_total", "Reminders that went out, on time or late.");
    metrics::describe_histogram!(
        "todo_reminder_lateness_seconds",
        metrics::Unit::Seconds,
        "The most that a batch's reminders were behind their instant."
    );
}
