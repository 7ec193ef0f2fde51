//! The bus between the relay and the consumers. [`LocalBus`] is the one within a process.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlx::PgPool;

use crate::Event;
use crate::consumer::Consumer;
use crate::host::{self, Retry};

/// Where the relay publishes.
pub trait Bus: Send + Sync {
    /// Publishes a batch in its order, to every topic of each event. `Ok` means that the bus answers for
    /// every event of the batch from here on: the relay will not send it again. After an error the same
    /// events come again.
    fn publish<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Result<(), BusError>>;
}

/// Why a batch was not published.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The process is being stopped.
    #[error("stopped before the batch was settled")]
    Stopped,
    /// The broker does not take it now.
    #[error("the bus is not available: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Hands events to a consumer in this process.
///
/// `publish` returns when the consumer has each event of its topics either applied or among its dead
/// letters, so the relay's cursor never passes an event that is not settled.
///
/// One consumer for each bus, and so one relay and one cursor: [`crate::relay`] says why. It needs a
/// connection of the pool, beside the one that the relay holds.
pub struct LocalBus {
    pool: PgPool,
    consumer: Arc<dyn Consumer>,
    retry: Retry,
}

impl LocalBus {
    /// A bus to this consumer.
    pub fn new(pool: PgPool, consumer: Arc<dyn Consumer>, retry: Retry) -> Self {
        Self { pool, consumer, retry }
    }
}

impl Bus for LocalBus {
    fn publish<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(async move {
            host::apply(&self.pool, self.consumer.as_ref(), batch, &self.retry)
                .await
                .map(|_| ())
                .map_err(|host::Stopped| BusError::Stopped)
        })
    }
}
