//! Events from the outbox: to the consumers of this process, or to a broker.
//!
//! In the process each consumer has a relay and a place in the outbox of its own. One that is slow, or waits for better
//! times, holds up no other; one whose role is switched off finds, when it is switched on again, all that happened
//! meanwhile. A broker keeps its consumers' places itself, so there is one place for all that is published to it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use todo_events::cursors::{Begins, Succession};
use todo_events::host::Retry;
use todo_events::relay::{self, Relay};
use todo_events::{Bus, Consumer, LagMeter, LocalBus, Waker};
use tokio_util::sync::CancellationToken;

use crate::{Audit, NextTask};

/// The place of what is published to a broker.
const BROKER_CURSOR: &str = "dapr";
const BROKER_CURSORS: &[&str] = &[BROKER_CURSOR];

/// How soon the relay looks again while events keep coming.
const BROKER_BUSY_POLL: Duration = Duration::from_millis(5);

/// The places of the consumers in a process, named after them.
const LOCAL_CURSORS: &[&str] = &[Audit::NAME, NextTask::NAME];

pub(crate) async fn to_consumer(pool: PgPool, consumer: Arc<dyn Consumer>, waker: Waker, shutdown: CancellationToken) {
    let cursor = consumer.name();
    let bus = LocalBus::new(pool.clone(), consumer, Retry::until(shutdown.clone()));
    Relay::new(pool, cursor, Arc::new(bus), waker, relay::Settings::default())
        .succeeding(Succession {
            own: LOCAL_CURSORS,
            former: BROKER_CURSORS,
            begins: Begins::AtTheOldest,
        })
        .run(shutdown)
        .await;
}

pub(crate) async fn to_broker(pool: PgPool, bus: Arc<dyn Bus>, waker: Waker, shutdown: CancellationToken) {
    // Here and not where the consumers are: one that is not running at all must be seen to stand still.
    let lag = LagMeter::new(pool.clone(), BROKER_CURSOR, crate::consumers());
    let settings = relay::Settings {
        // A pass waits for the broker: what gathers meanwhile is batch enough.
        busy_poll: BROKER_BUSY_POLL,
        ..relay::Settings::default()
    };
    let relay = Relay::new(pool, BROKER_CURSOR, bus, waker, settings).succeeding(Succession {
        own: BROKER_CURSORS,
        former: LOCAL_CURSORS,
        begins: Begins::WhereFormerStand,
    });
    tokio::join!(relay.run(shutdown.clone()), lag.run(shutdown));
}
