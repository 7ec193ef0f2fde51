//! Recurrence rules of RFC 5545 (iCalendar), on civil time.
//!
//! [`parse`] reads the property value into a [`Rrule`]; with a start it becomes a [`series::Series`], which finds the
//! next civil match; [`ical`] reads a whole block of DTSTART, RRULE, EXDATE and RDATE lines. Zones and clock changes
//! are in [`crate::instants`].

pub(crate) mod ical;
mod parse;
pub(crate) mod series;

use jiff::{Timestamp, civil::DateTime};

use crate::Error;

/// The value of an RRULE property, with or without the `RRULE:` in front.
///
/// Every part of RFC 5545 3.3.10 is known: FREQ, INTERVAL, COUNT, UNTIL, WKST, BYMONTH, BYWEEKNO, BYYEARDAY,
/// BYMONTHDAY, BYDAY, BYHOUR, BYMINUTE, BYSECOND, BYSETPOS. Readings where the RFC leaves room:
/// - DTSTART is an instance only if the rule yields it, and what the rule does not say comes from it.
/// - BYSETPOS counts over the whole period, also the part before DTSTART.
/// - COUNT counts wall-clock instances from DTSTART, before EXDATE.
/// - UNTIL is inclusive; as a DATE it is inclusive of that whole day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rrule {
    text: String,
    frequency: Frequency,
    interval: i32,
    count: Option<u32>,
    until: Option<Until>,
    /// Bit 1 is January; 0 when the part is missing, as in all the sets below.
    months: u16,
    week_numbers: Vec<i32>,
    year_days: Vec<i32>,
    /// Bit n is day n.
    month_days: u32,
    /// Bit n is the n-th day from the end: bit 1 is the last.
    month_days_from_end: u32,
    /// BYDAY without a number: bit 0 is Monday.
    weekdays: u8,
    /// BYDAY with a number: the number, and the weekday from Monday.
    nth_weekdays: Vec<(i32, i32)>,
    hours: u32,
    minutes: u64,
    seconds: u64,
    positions: Vec<i32>,
    /// From Monday.
    week_start: i32,
}

/// The period in which a rule's parts are expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Frequency {
    Secondly,
    Minutely,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// How a rule's UNTIL was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// With a `Z`: an instant.
    Instant(Timestamp),
    /// Without one: the clock of the series' zone.
    Clock(DateTime),
}

impl Rrule {
    /// Reads a rule for tasks: FREQ is DAILY or longer.
    ///
    /// # Errors
    /// [`Error::Rrule`] names the part and what is allowed in it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let rule = Self::parse_any_frequency(text)?;
        if rule.frequency < Frequency::Daily {
            return Err(Error::Rrule(
                "FREQ below daily is not allowed; allowed are DAILY, WEEKLY, MONTHLY, YEARLY (for shorter steps use every, such as 2h)"
                    .to_owned(),
            ));
        }
        Ok(rule)
    }

    /// Reads a rule of any FREQ. HOURLY and below step on the wall clock: they have no second pass in an overlap.
    ///
    /// # Errors
    /// [`Error::Rrule`] names the part and what is allowed in it.
    pub fn parse_any_frequency(text: &str) -> Result<Self, Error> {
        parse::parse(text)
    }

    /// The rule as it was given, without `RRULE:` and white space around it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the rule ends after a number of instances (COUNT).
    pub fn has_count(&self) -> bool {
        self.count.is_some()
    }

    /// A BYDAY, BYMONTHDAY, BYYEARDAY or BYWEEKNO part is there, so the start's date does not choose the day.
    fn names_days(&self) -> bool {
        self.names_month_days()
            || self.weekdays != 0
            || !(self.nth_weekdays.is_empty() && self.year_days.is_empty() && self.week_numbers.is_empty())
    }

    fn names_month_days(&self) -> bool {
        self.month_days != 0 || self.month_days_from_end != 0
    }
}
