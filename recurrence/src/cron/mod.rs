//! Cron expressions: the fields as sets of bits, and the search for the next civil match.
//!
//! Text comes in through [`parse`]; [`Cron::at_or_after`] walks from month to month, day to day and then to the time
//! of day, and never through minutes that cannot match. Clock changes are in [`crate::instants`].

mod days;
mod parse;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use self::days::DayRule;
use crate::{
    Error, calendar,
    instants::{CivilRule, Gap, next_each_pass, next_once},
    steps,
};

/// A cron expression: 5 fields, 6 with seconds first, or a macro such as `@daily`.
///
/// Lists, ranges, steps, month and weekday names, `L`, `L-n`, `W`, `LW`, `#` and `?`. Weekday 0 and 7 are Sunday. When
/// day-of-month and weekday are both restricted a day matches if either does; a field that begins with `*` is not
/// restricted, so it narrows the other one instead (`0 0 */2 * 1`: Mondays with an odd day), as Vixie cron has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    seconds: u64,
    minutes: u64,
    hours: u64,
    /// Bit 1 is January.
    months: u64,
    days: DayRule,
    interval: bool,
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// [`Error::Cron`] names the field and what is allowed in it; [`Error::NeverFires`] when no date ever matches.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let cron = parse::parse(text)?;
        // The calendar repeats after 400 years, so one search from any date tells.
        match cron.at_or_after(DateTime::constant(2000, 1, 1, 0, 0, 0, 0)) {
            Some(_) => Ok(cron),
            None => Err(Error::NeverFires(cron.text)),
        }
    }

    /// The expression as it was given, without white space around it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the schedule follows real time (its hour field is `*` or has a step) rather than fixed times of day.
    ///
    /// In a gap an interval schedule has no instant, in an overlap it fires in both passes. A fixed one fires once for
    /// each match: at the first instant after a gap, in the first pass of an overlap.
    pub fn is_interval(&self) -> bool {
        self.interval
    }

    /// The first occurrence after an instant; `None` only at the end of the calendar (year 9999).
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        self.next_of(self, after, zone)
    }

    /// As [`Cron::next_after`], with `rule` for the matches: this expression, or this expression without some dates.
    pub(crate) fn next_of(&self, rule: &impl CivilRule, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.interval {
            next_each_pass(rule, zone, after)
        } else {
            next_once(rule, zone, after, Gap::FirstAfter)
        }
    }

    /// The first matching second of the day at or after `(hour, minute, second)`.
    fn time_at_or_after(&self, hour: u32, minute: u32, second: u32) -> Option<u32> {
        let first_second = self.seconds.trailing_zeros();
        let first_time = |hour: u32| hour * 3600 + self.minutes.trailing_zeros() * 60 + first_second;
        if self.hours >> hour & 1 == 1 {
            if self.minutes >> minute & 1 == 1
                && let Some(second) = at_or_after(self.seconds, second)
            {
                return Some(hour * 3600 + minute * 60 + second);
            }
            if let Some(minute) = at_or_after(self.minutes, minute + 1) {
                return Some(hour * 3600 + minute * 60 + first_second);
            }
        }
        at_or_after(self.hours, hour + 1).map(first_time)
    }
}

/// The lowest set bit that is not below `from`.
fn at_or_after(bits: u64, from: u32) -> Option<u32> {
    let rest = bits.checked_shr(from).unwrap_or(0);
    (rest != 0).then(|| from + rest.trailing_zeros())
}

impl CivilRule for Cron {
    fn at_or_after(&self, from: DateTime) -> Option<DateTime> {
        let from = calendar::round_up(from)?;
        let last_year = (i32::from(from.year()) + 401).min(calendar::LAST_YEAR);
        let (mut year, mut month) = (i32::from(from.year()), u32::from(from.month().unsigned_abs()));
        let first_time = self.time_at_or_after(0, 0, 0)?;
        // Only the day that the search starts on can have times that are over.
        let mut start = Some(u32::from(from.day().unsigned_abs()));
        while year <= last_year {
            steps::tick();
            if self.months >> month & 1 == 1 {
                let month_number = i32::try_from(month).ok()?;
                let mut days = self.days.in_month(year, month_number);
                let month_start = calendar::day_number(year, month_number, 1) - 1;
                if let Some(day) = start {
                    days &= u32::MAX << day;
                    if days >> day & 1 == 1 {
                        let clock =
                            [from.hour(), from.minute(), from.second()].map(|part| u32::from(part.unsigned_abs()));
                        if let Some(time) = self.time_at_or_after(clock[0], clock[1], clock[2]) {
                            return calendar::civil(month_start + i32::try_from(day).ok()?, time);
                        }
                        days &= !(1 << day);
                    }
                }
                if days != 0 {
                    return calendar::civil(month_start + i32::try_from(days.trailing_zeros()).ok()?, first_time);
                }
            }
            start = None;
            (year, month) = match at_or_after(self.months, month + 1) {
                Some(next) => (year, next),
                None => (year + 1, self.months.trailing_zeros()),
            };
        }
        None
    }
}
