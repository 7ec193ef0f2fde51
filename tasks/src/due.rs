//! When a task is due: what the user said (civil time and zone), and the instant that follows from it.

use jiff::{Timestamp, civil::DateTime};
use serde::{Deserialize, Serialize};
use todo_recurrence::zone;
use utoipa::ToSchema;

use crate::error::Invalid;

/// A due date. `local` and `time_zone` are the user's words; `at` is computed and moves when a zone's rules change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Due {
    /// Civil date and time in `time_zone`.
    #[schema(value_type = String, example = "2026-12-01T09:00:00")]
    pub local: DateTime,
    /// IANA name.
    #[schema(example = "Europe/Berlin")]
    pub time_zone: String,
    /// The instant.
    pub at: Timestamp,
}

/// A due date as a caller writes it: `local` (a date alone means midnight), or `at`; the zone is UTC unless given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DueInput {
    /// Civil date and time in `time_zone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "2026-12-01T09:00:00")]
    pub local: Option<DateTime>,
    /// IANA name; `UTC` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "Europe/Berlin")]
    pub time_zone: Option<String>,
    /// The instant, instead of `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

impl Due {
    /// The due date at civil time `local` in `time_zone`.
    pub fn new(local: DateTime, time_zone: &str) -> Result<Self, Invalid> {
        let zone = zone::time_zone(time_zone).map_err(|error| Invalid::new("time_zone", error.to_string()))?;
        let local = whole_seconds(local)?;
        let at = zone::resolve(local, &zone);
        Ok(Self {
            local,
            time_zone: zone_name(&zone, time_zone),
            at,
        })
    }

    /// The due date at the instant `at`, remembered as civil time in `time_zone`.
    pub fn at(at: Timestamp, time_zone: &str) -> Result<Self, Invalid> {
        let zone = zone::time_zone(time_zone).map_err(|error| Invalid::new("time_zone", error.to_string()))?;
        let at = Timestamp::from_second(at.as_second()).map_err(|error| Invalid::new("at", error.to_string()))?;
        let local = whole_seconds(zone.to_datetime(at)).map_err(|error| Invalid::new("at", error.message))?;
        Ok(Self {
            local,
            time_zone: zone_name(&zone, time_zone),
            at,
        })
    }
}

/// The years that a date may have: well inside what PostgreSQL and jiff can both hold.
const YEARS: std::ops::RangeInclusive<i16> = 1900..=9000;

/// Cuts fractions of a second off, and refuses years that nobody means.
fn whole_seconds(local: DateTime) -> Result<DateTime, Invalid> {
    if !YEARS.contains(&local.year()) {
        let message = format!("the year must be {} to {}", YEARS.start(), YEARS.end());
        return Err(Invalid::new("local", message));
    }
    local
        .with()
        .subsec_nanosecond(0)
        .build()
        .map_err(|error| Invalid::new("local", error.to_string()))
}

fn zone_name(zone: &jiff::tz::TimeZone, given: &str) -> String {
    zone.iana_name().unwrap_or(given).to_owned()
}

impl DueInput {
    /// Resolves what the caller wrote. `local` and `at` together are accepted when they agree, so that what
    /// was read can be sent back.
    pub fn parse(&self) -> Result<Due, Invalid> {
        let time_zone = self.time_zone.as_deref().unwrap_or("UTC");
        match (self.local, self.at) {
            (Some(local), None) => Due::new(local, time_zone),
            (None, Some(at)) => Due::at(at, time_zone),
            (Some(local), Some(at)) => {
                let due = Due::new(local, time_zone)?;
                if due.at == at {
                    Ok(due)
                } else {
                    Err(Invalid::new(
                        "at",
                        format!(
                            "does not agree with local and time_zone, which give {}; send one of the two",
                            due.at
                        ),
                    ))
                }
            }
            (None, None) => Err(Invalid::new("local", "is required (or at)")),
        }
    }
}

impl From<&Due> for DueInput {
    /// By civil time, unless that would name another instant: in the second pass of an overlap only the instant does.
    fn from(due: &Due) -> Self {
        let time_zone = Some(due.time_zone.clone());
        match Due::new(due.local, &due.time_zone) {
            Ok(same) if same.at == due.at => Self {
                local: Some(due.local),
                time_zone,
                at: None,
            },
            _ => Self {
                local: None,
                time_zone,
                at: Some(due.at),
            },
        }
    }
}
