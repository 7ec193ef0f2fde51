//! What can go wrong in a command or a query.

use std::fmt;

use serde::Serialize;

use crate::state::StateError;

/// One thing that is wrong with what a caller sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Invalid {
    /// The field, as a path in the caller's own document: `due.time_zone`, `reminders[1].before`.
    pub field: String,
    /// What is wrong and what is allowed, in lower case, without the field's name.
    pub message: String,
}

impl Invalid {
    /// `field` is wrong as `message` says.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }

    #[must_use]
    /// The same complaint, one level further out: `zone` under `due` is `due.zone`.
    pub fn under(self, outer: &str) -> Self {
        Self {
            field: format!("{outer}.{}", self.field),
            message: self.message,
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Why a command or query of this crate did nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing among this user's data.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The caller's version (`If-Match`) is not the current one.
    #[error("the current version is {current}")]
    VersionMismatch {
        /// The version that the row has now.
        current: i64,
    },
    /// What the caller sent is wrong, field by field. Never empty.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Invalid>),
    /// It collides with what is there; the text says with what.
    #[error("{0}")]
    Conflict(String),
    /// The same idempotency key came with another request.
    #[error("this idempotency key was used for another request")]
    IdempotencyKeyReused,
    /// The database refused or failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The store of a value failed, and there is no other to fall back on.
    #[error(transparent)]
    State(StateError),
    /// The event could not be written.
    #[error(transparent)]
    Events(#[from] todo_events::Error),
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(vec![invalid])
    }
}

/// The outcome of a command or query.
pub type Result<T, E = Error> = std::result::Result<T, E>;
