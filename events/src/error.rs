//! What can go wrong in this crate, once for all its modules.

use jiff::Timestamp;

use crate::bus::BusError;

/// Why an operation on events failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused or is gone.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// An event names a type that this version does not know.
    #[error("unknown event type {0:?}")]
    UnknownEventType(String),
    /// A stored or received event does not have the shape of one.
    #[error("malformed event: {0}")]
    Malformed(String),
    /// The bus did not settle a batch.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The events that a rebuild needs may have been dropped.
    #[error("cannot rebuild from {since}: events before {retained_from} are no longer kept")]
    NotRetained {
        /// What was asked for.
        since: Timestamp,
        /// The earliest instant that can be rebuilt from.
        retained_from: Timestamp,
    },
    /// A dead letter belongs to a consumer that this process does not run.
    #[error("no consumer is named {0:?}")]
    UnknownConsumer(String),
    /// A rebuild met a transient failure. Nothing was changed; start it again.
    #[error("interrupted: {0}")]
    Interrupted(String),
}
