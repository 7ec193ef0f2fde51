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
                let by_local = Due::new(local, time_zone)?;
                // In the second pass of an overlap the instant shows the same civil time, an hour later.
                let by_at = Due::at(at, time_zone).ok().filter(|due| due.local == by_local.local);
                [Some(by_local.clone()), by_at]
                    .into_iter()
                    .flatten()
                    .find(|due| due.at == at)
                    .ok_or_else(|| {
                        let message = "does not agree with local and time_zone, which give";
                        Invalid::new("at", format!("{message} {}; send one of the two", by_local.at))
                    })
            }
            (None, None) => Err(Invalid::new("local", "is required (or at)")),
        }
    }
}

impl From<&Due> for DueInput {
    /// By civil time, for that is what the user said: an instant that was computed with other time-zone rules does
    /// not change it. Only in the second pass of an overlap does the instant say more.
    fn from(due: &Due) -> Self {
        let is_second_pass = zone::time_zone(&due.time_zone)
            .is_ok_and(|zone| zone.to_datetime(due.at) == due.local && zone::resolve(due.local, &zone) != due.at);
        Self {
            local: Some(due.local).filter(|_| !is_second_pass),
            time_zone: Some(due.time_zone.clone()),
            at: Some(due.at).filter(|_| is_second_pass),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn input(local: Option<&str>, time_zone: Option<&str>, at: Option<&str>) -> DueInput {
        DueInput {
            local: local.map(|local| local.parse().unwrap()),
            time_zone: time_zone.map(str::to_owned),
            at: at.map(|at| at.parse().unwrap()),
        }
    }

    fn parsed(input: &DueInput) -> (String, String, String) {
        let due = input.parse().unwrap();
        (due.local.to_string(), due.time_zone, due.at.to_string())
    }

    #[test]
    fn civil_time_and_instant_follow_from_each_other() {
        for (input, expected) in [
            (
                input(Some("2026-12-01T09:00:00"), Some("europe/berlin"), None),
                ("2026-12-01T09:00:00", "Europe/Berlin", "2026-12-01T08:00:00Z"),
            ),
            (
                input(Some("2026-12-01T09:00:00.9"), None, None),
                ("2026-12-01T09:00:00", "UTC", "2026-12-01T09:00:00Z"),
            ),
            (
                input(None, Some("Europe/Berlin"), Some("2026-12-01T08:00:00.9Z")),
                ("2026-12-01T09:00:00", "Europe/Berlin", "2026-12-01T08:00:00Z"),
            ),
            // In a gap the instant is as long after it as the civil time is into it.
            (
                input(Some("2026-03-29T02:30:00"), Some("Europe/Berlin"), None),
                ("2026-03-29T02:30:00", "Europe/Berlin", "2026-03-29T01:30:00Z"),
            ),
            // British Columbia keeps summer time since release 2026b of the zone data.
            (
                input(Some("2026-12-01T09:00:00"), Some("America/Vancouver"), None),
                ("2026-12-01T09:00:00", "America/Vancouver", "2026-12-01T16:00:00Z"),
            ),
        ] {
            let (local, time_zone, at) = parsed(&input);
            assert_eq!((&*local, &*time_zone, &*at), expected);
        }
    }

    #[test]
    fn a_date_alone_is_its_midnight() {
        let due: DueInput = serde_json::from_str(r#"{"local": "2026-12-01"}"#).unwrap();
        assert_eq!(due.parse().unwrap().at, "2026-12-01T00:00:00Z".parse().unwrap());
    }

    #[test]
    fn what_was_read_can_be_sent_back() {
        for (local, at) in [
            ("2026-12-01T09:00:00", "2026-12-01T08:00:00Z"),
            // In a gap, and in both passes of an overlap.
            ("2026-03-29T02:30:00", "2026-03-29T01:30:00Z"),
            ("2026-10-25T02:30:00", "2026-10-25T00:30:00Z"),
            ("2026-10-25T02:30:00", "2026-10-25T01:30:00Z"),
        ] {
            let due = Due {
                local: local.parse().unwrap(),
                time_zone: "Europe/Berlin".to_owned(),
                at: at.parse().unwrap(),
            };
            assert_eq!(
                input(Some(local), Some("Europe/Berlin"), Some(at)).parse().unwrap(),
                due
            );
            assert_eq!(DueInput::from(&due).parse().unwrap(), due);
        }
    }

    #[test]
    fn an_instant_of_other_zone_rules_does_not_change_the_civil_time() {
        let due = Due {
            local: "2026-12-01T09:00:00".parse().unwrap(),
            time_zone: "America/Vancouver".to_owned(),
            at: "2026-12-01T17:00:00Z".parse().unwrap(),
        };
        let said = DueInput::from(&due);
        assert_eq!((said.local, said.at), (Some(due.local), None));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_its_field() {
        for (input, field) in [
            (input(None, Some("Europe/Berlin"), None), "local"),
            (
                input(Some("2026-12-01T09:00:00"), Some("Mars/Olympus"), None),
                "time_zone",
            ),
            (input(None, Some(""), Some("2026-12-01T08:00:00Z")), "time_zone"),
            (input(Some("1899-12-31T23:59:59"), None, None), "local"),
            (input(Some("9001-01-01T00:00:00"), None, None), "local"),
            (input(None, None, Some("9001-01-01T00:00:00Z")), "at"),
            (
                input(
                    Some("2026-12-01T09:00:00"),
                    Some("Europe/Berlin"),
                    Some("2026-12-01T09:00:00Z"),
                ),
                "at",
            ),
        ] {
            assert_eq!(input.parse().unwrap_err().field, field, "{input:?}");
        }
    }
}
