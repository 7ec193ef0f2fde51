//! What a consumer of events promises, and how it says that it failed.

use futures::future::BoxFuture;
use jiff::Timestamp;
use sqlx::PgConnection;

use crate::{Event, Topic};

/// Something that follows from events: an audit row, a counter, the next task of a recurring one.
///
/// A consumer sees each event once, and one task's events in the order of their versions, as far as its
/// effects are in the transaction that it is given. Effects elsewhere happen at least once.
pub trait Consumer: Send + Sync {
    /// The name that its inbox rows and dead letters are kept under. Never change it: a consumer of a new
    /// name is a new consumer.
    fn name(&self) -> &'static str;

    /// What it subscribes to. An event in several of these topics comes once.
    fn topics(&self) -> &'static [Topic];

    /// Applies the events, in their order, in the given transaction, which the caller commits or rolls
    /// back. A slice rather than one event, so that a thousand events can be one statement.
    ///
    /// When it fails nothing of it is kept, and the same events come again in smaller slices.
    fn handle<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<(), HandleError>>;

    /// Deletes what it derived from events of `since` and later ([`Event::time`]), before
    /// [`crate::replay::since`] hands them over again. The default suits a consumer whose `handle`
    /// overwrites what is there.
    fn forget<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        since: Timestamp,
    ) -> BoxFuture<'a, Result<(), HandleError>> {
        let _ = (transaction, since);
        Box::pin(async { Ok(()) })
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a consumer could not apply events, by what is to be done about it.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// Nothing is wrong with the event: a server is away, a lock was lost. Tried again for as long as it
    /// takes.
    #[error("{0}")]
    Transient(#[source] BoxError),
    /// Something is wrong and it may be the event. Tried again a few times, then a dead letter.
    #[error("{0}")]
    Failed(#[source] BoxError),
    /// This event can never be applied. A dead letter at once.
    #[error("{0}")]
    Permanent(#[source] BoxError),
}

impl HandleError {
    /// See [`HandleError::Transient`].
    pub fn transient(error: impl Into<BoxError>) -> Self {
        Self::Transient(error.into())
    }

    /// See [`HandleError::Failed`].
    pub fn failed(error: impl Into<BoxError>) -> Self {
        Self::Failed(error.into())
    }

    /// See [`HandleError::Permanent`].
    pub fn permanent(error: impl Into<BoxError>) -> Self {
        Self::Permanent(error.into())
    }
}

impl From<sqlx::Error> for HandleError {
    fn from(error: sqlx::Error) -> Self {
        if is_transient(&error) {
            Self::transient(error)
        } else {
            Self::failed(error)
        }
    }
}

impl From<serde_json::Error> for HandleError {
    /// An event's data does not have the shape that the consumer reads: it never will.
    fn from(error: serde_json::Error) -> Self {
        Self::permanent(error)
    }
}

/// Whether the same statement may well succeed later, whatever its parameters were
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(error) => match error.code().as_deref() {
            // A statement that ran into its timeout may do so every time: the event's fault, perhaps.
            Some("57014") | None => false,
            // Lock not available; idle in transaction for too long; a standby that was not promoted yet.
            Some("55P03" | "25P03" | "25006") => true,
            // Connection, serialization and deadlock, resources, operator intervention, system.
            Some(code) => ["08", "40", "53", "57", "58"]
                .iter()
                .any(|class| code.starts_with(class)),
        },
        _ => false,
    }
}
