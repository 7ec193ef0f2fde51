//! The clock of schedules: what is due becomes tasks.

use std::time::Duration;

use sqlx::PgPool;
use todo_events::waker::Wakeups;
use todo_events::{Channel, Waker};
use todo_tasks::schedule::{self, Made};
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Next};

/// How many schedules one transaction deals with.
const BATCH: i64 = 1_000;

pub(crate) async fn run(pool: PgPool, waker: Waker, wakeups: Wakeups, shutdown: CancellationToken) {
    describe_metrics();
    clock::run("recurring", wakeups, shutdown, || pass(&pool, &waker)).await;
}

async fn pass(pool: &PgPool, waker: &Waker) -> Result<Next, todo_tasks::Error> {
    let mut tx = pool.begin().await?;
    let made = schedule::make_due(&mut tx, BATCH).await?;
    tx.commit().await?;
    if made.schedules == 0 {
        let mut conn = pool.acquire().await?;
        return Ok(Next::Idle(schedule::until_next(&mut conn).await?));
    }
    report(&made);
    waker.wake(Channel::Outbox);
    waker.wake(Channel::Reminders);
    Ok(Next::After(Duration::ZERO))
}

fn report(made: &Made) {
    metrics::counter!("todo_schedule_tasks_total").increment(made.tasks as u64);
    metrics::counter!("todo_schedule_missed_total").increment(made.missed);
    metrics::counter!("todo_schedule_skipped_total").increment(made.skipped);
    if made.tasks > 0 {
        #[allow(
            clippy::cast_precision_loss,
            reason = "a delay that does not fit a float's 52 bits is 142 million years"
        )]
        metrics::histogram!("todo_schedule_delay_seconds").record(made.worst_delay_seconds as f64);
    }
    if made.problems > 0 {
        tracing::error!(
            schedules = made.problems,
            "stopped schedules that this version cannot read"
        );
    }
    if made.missed > 0 {
        tracing::warn!(
            missed = made.missed,
            "occurrences were missed, as their catch-up policy says"
        );
    }
    tracing::debug!(
        schedules = made.schedules,
        tasks = made.tasks,
        "made tasks of schedules"
    );
}

fn describe_metrics() {
    metrics::describe_counter!("todo_schedule_tasks_total", "Tasks that schedules made.");
    metrics::describe_counter!(
        "todo_schedule_missed_total",
        "Occurrences that were missed, by their catch-up policy."
    );
    metrics::describe_counter!(
        "todo_schedule_skipped_total",
        "Occurrences that were skipped because a task was open."
    );
    metrics::describe_histogram!(
        "todo_schedule_delay_seconds",
        metrics::Unit::Seconds,
        "The most that a batch's tasks were made after their occurrence."
    );
}
