//! The loop of a role that follows from time.

use std::future::Future;
use std::time::Duration;

use todo_events::waker::Wakeups;
use todo_events::{Trace, traced};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use tracing::field::{Empty, display};

use crate::LONGEST_SLEEP;

/// The shortest pause after a failure, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a pass leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// More is due: come again after this pause.
    After(Duration),
    /// Nothing is due before this long; `None`: nothing waits at all.
    Idle(Option<Duration>),
}

/// Calls `pass` until `shutdown`; a pass that runs is never cut short.
pub(crate) async fn run<F>(
    role: &'static str,
    mut wakeups: Wakeups,
    shutdown: CancellationToken,
    mut pass: impl FnMut() -> F,
) where
    F: Future<Output = Result<Next, todo_tasks::Error>>,
{
    let mut failures: u32 = 0;
    while !shutdown.is_cancelled() {
        let span = traced!(
            Trace::begin(),
            "clock pass",
            kind = "internal",
            role,
            idle = Empty,
            error = Empty
        );
        let outcome = pass().instrument(span.clone()).await;
        let pause = match outcome {
            Ok(Next::After(pause)) => pause,
            Ok(Next::Idle(until)) => {
                span.record("idle", true);
                until.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
            }
            Err(ref error) => {
                let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(6)).min(LONGEST_PAUSE);
                failures += 1;
                span.record("error", display(error));
                span.in_scope(|| tracing::warn!(role, %error, failures, "pass failed, trying again"));
                pause
            }
        };
        if outcome.is_ok() {
            failures = 0;
        }
        drop(span);
        let may_be_woken = matches!(outcome, Ok(Next::Idle(_)));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
            () = wakeups.woken(), if may_be_woken => {}
        }
    }
}
