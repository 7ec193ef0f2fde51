//! Gauges of the process itself: which build it is, and how its database connections are used.

use std::time::Duration;

use metrics::{Unit, describe_counter, describe_gauge, gauge};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// How often the pool is looked at: more often than it is scraped.
const INTERVAL: Duration = Duration::from_secs(5);

/// Measures until `shutdown`, beside the caller. Begin it after the metrics' recorder is installed.
pub(crate) fn watch(pool: &PgPool, shutdown: &CancellationToken) {
    tokio::spawn(measure(pool.clone(), shutdown.clone()));
}

async fn measure(pool: PgPool, shutdown: CancellationToken) {
    describe_gauge!("todo_build_info", "Always 1; the label says which version runs.");
    describe_gauge!(
        "todo_database_connections",
        Unit::Count,
        "Connections of this process's pool, by whether they are in use."
    );
    describe_gauge!(
        "todo_database_connections_max",
        Unit::Count,
        "The most connections that the pool may open."
    );
    describe_gauge!(
        "todo_secret_reload_failing",
        "1 while a secret that is looked at again and again cannot be read or used, so that the former one stays."
    );
    describe_counter!(
        "todo_trace_spans_total",
        "Spans that were handed to the collector, by whether it took them."
    );
    todo_dapr::Client::describe_metrics();
    todo_events::describe_metrics();
    gauge!("todo_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
    gauge!("todo_database_connections_max").set(pool.options().get_max_connections());
    let mut due = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = due.tick() => {}
        }
        // Two looks at two moments: never more idle ones than there are.
        let open = pool.size();
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX).min(open);
        gauge!("todo_database_connections", "state" => "idle").set(idle);
        gauge!("todo_database_connections", "state" => "in_use").set(open - idle);
    }
}
