//! `every 2d`: plain intervals from an anchor.
//!
//! Seconds, minutes and hours are exact durations on the real time line; days, weeks, months and years are steps on
//! the calendar at a civil time of day. Clock changes are in [`crate::instants`].

use std::{fmt, str::FromStr};

use jiff::{Timestamp, civil::DateTime};

use crate::{
    Error, MonthEnd,
    calendar::{self, date_of, day_number, days_in_month},
    error::quoted,
    instants::CivilRule,
    steps,
};

/// An interval such as `30s`, `5m`, `2h`, `1d`, `2w`, `1mo` or `1y`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Every {
    number: i32,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Seconds,
    Minutes,
    Hours,
    Days,
    Weeks,
    Months,
    Years,
}

/// What an interval is a step of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Real seconds.
    Seconds(i64),
    /// Days on the calendar.
    Days(i32),
    /// Months on the calendar.
    Months(i32),
}

const UNITS: [(&str, Unit); 7] = [
    ("s", Unit::Seconds),
    ("m", Unit::Minutes),
    ("h", Unit::Hours),
    ("d", Unit::Days),
    ("w", Unit::Weeks),
    ("mo", Unit::Months),
    ("y", Unit::Years),
];

/// The longest interval, so that a schedule fires within a lifetime of the calendar.
const MOST_DAYS: i64 = 366 * 400;

impl FromStr for Every {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let refuse = |why: &str| {
            Err(Error::Every(format!(
                "interval {}: {why}; write a whole number and one of s, m, h, d, w, mo, y, as in 30s, 5m, 2h, 1d, 2w, 1mo, 1y",
                quoted(text)
            )))
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let Some(&(_, unit)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return refuse(if digits == 0 {
                "it begins with no number"
            } else {
                "unknown unit"
            });
        };
        let Ok(number) = number.parse::<i32>() else {
            return refuse(if digits == 0 {
                "it begins with no number"
            } else {
                "the number is too large"
            });
        };
        if number == 0 {
            return refuse("the number is at least 1");
        }
        let every = Self { number, unit };
        if every.days_at_most() > MOST_DAYS {
            refuse("the longest interval is 400 years")
        } else {
            Ok(every)
        }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) = UNITS.iter().find(|(_, unit)| *unit == self.unit).unwrap_or(&UNITS[0]);
        write!(f, "{}{name}", self.number)
    }
}

impl Every {
    fn days_at_most(self) -> i64 {
        let number = i64::from(self.number);
        match self.unit {
            Unit::Seconds => number / 86_400,
            Unit::Minutes => number / 1440,
            Unit::Hours => number / 24,
            Unit::Days => number,
            Unit::Weeks => number * 7,
            Unit::Months => number * 30,
            Unit::Years => number * 366,
        }
    }

    /// Whether it is an exact duration (seconds, minutes, hours) rather than a step on the calendar.
    pub fn is_exact(self) -> bool {
        matches!(self.step(), Step::Seconds(_))
    }

    pub(crate) fn step(self) -> Step {
        let seconds = |unit: i64| Step::Seconds(i64::from(self.number) * unit);
        match self.unit {
            Unit::Seconds => seconds(1),
            Unit::Minutes => seconds(60),
            Unit::Hours => seconds(3600),
            Unit::Days => Step::Days(self.number),
            Unit::Weeks => Step::Days(self.number * 7),
            Unit::Months => Step::Months(self.number),
            Unit::Years => Step::Months(self.number * 12),
        }
    }
}

/// The first of `anchor`, `anchor + step`, … after an instant. `step` is in seconds and at least 1.
pub(crate) fn next_exact(anchor: Timestamp, step: i64, after: Timestamp) -> Option<Timestamp> {
    if after < anchor {
        return Some(anchor);
    }
    let step = i128::from(step) * 1_000_000_000;
    let passed = (after.as_nanosecond() - anchor.as_nanosecond()) / step;
    Timestamp::from_nanosecond(anchor.as_nanosecond() + (passed + 1) * step).ok()
}

/// Steps on the calendar from a start; the start is the first match.
///
/// The start's day of the month is kept through shorter months: 31 January, 28 February, 31 March.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CalendarSteps {
    start: DateTime,
    step: CalendarStep,
    month_end: MonthEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CalendarStep {
    Days(i32),
    Months(i32),
}

impl CalendarSteps {
    /// `None` for a step of real seconds.
    pub(crate) fn new(start: DateTime, step: Step, month_end: MonthEnd) -> Option<Self> {
        let step = match step {
            Step::Seconds(_) => return None,
            Step::Days(days) => CalendarStep::Days(days),
            Step::Months(months) => CalendarStep::Months(months),
        };
        Some(Self { start, step, month_end })
    }
}

impl CivilRule for CalendarSteps {
    fn at_or_after(&self, from: DateTime) -> Option<DateTime> {
        let (start_day, second) = calendar::numbers(self.start);
        let (from_day, from_second) = calendar::numbers(calendar::round_up(from)?);
        // The first day that is not over at the start's time of day.
        let earliest = (if from_second > second { from_day + 1 } else { from_day }).max(start_day);
        match self.step {
            CalendarStep::Days(step) => {
                let steps = (i64::from(earliest) - i64::from(start_day) + i64::from(step) - 1) / i64::from(step);
                let day = i64::from(start_day) + steps * i64::from(step);
                calendar::civil(i32::try_from(day).ok()?, second)
            }
            CalendarStep::Months(step) => {
                let months_of = |day: i32| {
                    let (year, month, _) = date_of(day);
                    year * 12 + month - 1
                };
                let start_day_of_month = date_of(start_day).2;
                let start_month = months_of(start_day);
                let mut month = start_month + (months_of(earliest) - start_month) / step * step;
                loop {
                    steps::tick();
                    let (year, month_of_year) = (month.div_euclid(12), month.rem_euclid(12) + 1);
                    if year > calendar::LAST_YEAR {
                        return None;
                    }
                    let length = days_in_month(year, month_of_year);
                    let day = day_number(year, month_of_year, start_day_of_month.min(length));
                    let skipped = self.month_end == MonthEnd::Strict && start_day_of_month > length;
                    if day >= earliest && !skipped {
                        return calendar::civil(day, second);
                    }
                    month = month.checked_add(step)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_and_written_alike() {
        for text in ["30s", "5m", "2h", "1d", "2w", "1mo", "1y", "400y"] {
            assert_eq!(
                text.parse::<Every>().map(|every| every.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn what_is_no_interval_is_refused_with_what_is_allowed() {
        for text in [
            "",
            "d",
            "0d",
            "-1d",
            "1",
            "1 d",
            "1M",
            "1min",
            "1.5h",
            "99999999999d",
            "401y",
            "1dd",
            "１d",
        ] {
            let error = text.parse::<Every>().expect_err(text).to_string();
            assert!(error.contains("2h"), "{error}");
        }
    }
}
