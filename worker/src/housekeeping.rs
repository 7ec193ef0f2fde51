//! What keeps the tables small: days of events are made ahead and dropped behind, old idempotency keys and expired state
//! are forgotten.
//!
//! Runs in every process with a role; the functions that it calls are safe side by side.

use std::time::Duration;

use sqlx::PgPool;
use todo_events::partitions::{self, Retention};
use todo_tasks::{idempotency, state};
use tokio_util::sync::CancellationToken;

/// How many days of partitions stand ready.
const DAYS_AHEAD: u16 = 7;
/// How often it looks.
const EVERY: Duration = Duration::from_mins(15);
/// The most rows of a kind that one statement forgets.
const ROWS: i64 = 10_000;

pub(crate) async fn run(pool: PgPool, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        if let Err(error) = partitions::ensure(&pool, DAYS_AHEAD).await {
            tracing::warn!(%error, "could not make partitions ahead; events land in the default one");
        }
        if let Err(error) = partitions::drop_older(&pool, Retention::default()).await {
            tracing::warn!(%error, "could not drop old partitions");
        }
        if let Err(error) = idempotency::forget_old(&pool, ROWS).await {
            tracing::warn!(%error, "could not forget old idempotency keys");
        }
        if let Err(error) = state::forget_expired(&pool, ROWS).await {
            tracing::warn!(%error, "could not forget expired state");
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
