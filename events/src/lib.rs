//! What happened: events, and how each reaches every consumer exactly once and in order.

pub mod cloud_event;
pub mod event;
pub mod outbox;

mod error;

pub use cloud_event::{CloudEvent, schemas};
pub use error::Error;
pub use event::{Event, EventType, NewEvent, Topic};
