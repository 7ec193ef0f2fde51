//! The one reading of the clock for what a command writes.

use jiff::Timestamp;

/// Now, in microseconds: what PostgreSQL keeps, so that a row read back equals the row written.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
