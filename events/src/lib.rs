//! What happened: events, and how each reaches every consumer exactly once and in order.
//!
//! What lives here: the shape of an event ([`Event`], [`CloudEvent`]), the outbox, the relay that reads
//! it, the [`Bus`] and [`Consumer`] traits, the inbox, the dead letters, and the wake-ups between
//! processes. What does not: what a task is, which commands change one, and what any consumer does.
//!
//! The path of an event:
//!
//! 1. A command changes its row and appends an outbox row in one transaction ([`outbox`]).
//! 2. It wakes the relay ([`waker`]), which would have looked within a second anyway.
//! 3. The [`relay`] reads what was committed, in commit order, and publishes the batch on the [`bus`].
//! 4. The [`host`] takes the batch for one [`consumer`]: inbox rows, effect and commit in one transaction.
//! 5. What a consumer cannot apply goes to the [`dead_letters`], with all that follows it for its task.
//! 6. The relay moves its cursor once every consumer has settled every event of the batch.
//!
//! Beside that path: [`trace`] follows one task through all of it, [`cursors`] are the places that relays
//! keep, [`replay`] rebuilds what a consumer derived, [`partitions`] makes and drops days of the tables, and
//! [`outbox::rebase_after_restore`] puts it right after a dump was loaded into another server.

pub mod backoff;
pub mod bus;
pub mod cloud_event;
pub mod consumer;
pub mod cursors;
pub mod dead_letters;
pub mod event;
pub mod host;
pub mod lag;
pub mod outbox;
pub mod partitions;
pub mod relay;
pub mod replay;
pub mod trace;
pub mod waker;

mod error;
mod measure;
mod restore;

pub use bus::{Bus, BusError, LocalBus};
pub use cloud_event::{CloudEvent, schemas};
pub use consumer::{Consumer, HandleError};
pub use error::Error;
pub use event::{Event, EventType, NewEvent, Topic};
pub use futures::future::BoxFuture;
pub use lag::LagMeter;
pub use measure::describe_metrics;
pub use relay::Relay;
pub use trace::Trace;
pub use waker::{Channel, Waker};
