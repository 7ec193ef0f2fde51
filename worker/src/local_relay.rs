//! Events to the consumers of this process.
//!
//! Each consumer has a relay and a place in the outbox of its own. One that is slow, or waits for better times, holds
//! up no other; one whose role is switched off finds, when it is switched on again, all that happened meanwhile.

use std::sync::Arc;

use sqlx::PgPool;
use todo_events::host::Retry;
use todo_events::relay::{self, Relay};
use todo_events::{Consumer, LocalBus, Waker};
use tokio_util::sync::CancellationToken;

pub(crate) async fn run(pool: PgPool, consumer: Arc<dyn Consumer>, waker: Waker, shutdown: CancellationToken) {
    let cursor = consumer.name();
    let bus = LocalBus::new(pool.clone(), consumer, Retry::until(shutdown.clone()));
    Relay::new(pool, cursor, Arc::new(bus), waker, relay::Settings::default())
        .run(shutdown)
        .await;
}
