//! From an RRULE's text to its parts, with the checks of RFC 5545 3.3.10.

use jiff::{Timestamp, civil, civil::DateTime};

use super::{Frequency, Rrule, Until};
use crate::{Error, error::quoted};

/// Longer texts are refused unread: every list of all 366 days fits.
const LONGEST: usize = 4000;
/// Higher counts and intervals are mistakes, and cost time to count through.
const HIGHEST_COUNT: u32 = 10_000;
const HIGHEST_INTERVAL: i32 = 1_000_000;

const WEEKDAYS: [&str; 7] = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"];

pub(super) fn parse(text: &str) -> Result<Rrule, Error> {
    let text = text.trim();
    let text = match text.get(..6) {
        Some(name) if name.eq_ignore_ascii_case("RRULE:") => &text[6..],
        _ => text,
    };
    if text.len() > LONGEST {
        return Err(Error::Rrule(format!(
            "a recurrence rule has at most {LONGEST} characters"
        )));
    }
    let mut parts = Parts::default();
    let mut rule = Rrule {
        text: text.to_owned(),
        frequency: Frequency::Yearly,
        interval: 1,
        count: None,
        until: None,
        months: 0,
        week_numbers: Vec::new(),
        year_days: Vec::new(),
        month_days: 0,
        month_days_from_end: 0,
        weekdays: 0,
        nth_weekdays: Vec::new(),
        hours: 0,
        minutes: 0,
        seconds: 0,
        positions: Vec::new(),
        week_start: 0,
    };
    for part in text.trim_end_matches(';').split(';') {
        let Some((name, value)) = part.split_once('=') else {
            return Err(Error::Rrule(format!(
                "{} is no NAME=VALUE part of a recurrence rule",
                quoted(part)
            )));
        };
        let name = name.trim().to_ascii_uppercase();
        let value = value.trim().to_ascii_uppercase();
        parts.note(&name)?;
        rule.set(&name, &value)?;
    }
    rule.check(&parts)?;
    Ok(rule)
}

/// The names seen so far.
#[derive(Default)]
struct Parts(Vec<String>);

impl Parts {
    fn note(&mut self, name: &str) -> Result<(), Error> {
        if self.has(name) {
            return Err(Error::Rrule(format!("{name} is given twice")));
        }
        self.0.push(name.to_owned());
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|seen| seen == name)
    }
}

impl Rrule {
    fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        match name {
            "FREQ" => self.frequency = frequency(value)?,
            "INTERVAL" => self.interval = one(name, value, 1, HIGHEST_INTERVAL)?,
            "COUNT" => {
                let highest = i32::try_from(HIGHEST_COUNT).unwrap_or(i32::MAX);
                self.count = Some(one(name, value, 1, highest)?.unsigned_abs());
            }
            "UNTIL" => self.until = Some(until(value)?),
            "WKST" => self.week_start = weekday(name, value)?,
            "BYMONTH" => {
                for month in list(name, value, 12, false)? {
                    self.months |= 1 << month;
                }
            }
            "BYWEEKNO" => self.week_numbers = list(name, value, 53, true)?,
            "BYYEARDAY" => self.year_days = list(name, value, 366, true)?,
            "BYSETPOS" => self.positions = list(name, value, 366, true)?,
            "BYMONTHDAY" => {
                for day in list(name, value, 31, true)? {
                    let set = if day > 0 {
                        &mut self.month_days
                    } else {
                        &mut self.month_days_from_end
                    };
                    *set |= 1 << day.unsigned_abs();
                }
            }
            "BYDAY" => self.set_weekdays(value)?,
            "BYHOUR" => {
                for hour in numbers(name, value, 0, 23)? {
                    self.hours |= 1 << hour;
                }
            }
            "BYMINUTE" => {
                for minute in numbers(name, value, 0, 59)? {
                    self.minutes |= 1 << minute;
                }
            }
            "BYSECOND" => {
                for second in numbers(name, value, 0, 60)? {
                    // Without leap seconds 60 is read as 59 (RFC 5545 3.3.10).
                    self.seconds |= 1 << second.min(59);
                }
            }
            _ => {
                return Err(Error::Rrule(format!(
                    "unknown part {}; allowed are FREQ, INTERVAL, COUNT, UNTIL, WKST, BYMONTH, BYWEEKNO, BYYEARDAY, BYMONTHDAY, \
                     BYDAY, BYHOUR, BYMINUTE, BYSECOND, BYSETPOS",
                    quoted(name)
                )));
            }
        }
        Ok(())
    }

    fn set_weekdays(&mut self, value: &str) -> Result<(), Error> {
        for item in value.split(',') {
            let cut = item.len().saturating_sub(2);
            let (nth, day) = if item.is_char_boundary(cut) {
                item.split_at(cut)
            } else {
                ("", item)
            };
            let day = weekday("BYDAY", day)?;
            if nth.is_empty() {
                self.weekdays |= 1 << day;
            } else {
                let nth = signed(nth).filter(|&nth| nth != 0 && nth.abs() <= 53).ok_or_else(|| {
                    Error::Rrule(format!(
                        "BYDAY {}: the number before a weekday is 1 to 53 or -53 to -1",
                        quoted(item)
                    ))
                })?;
                if !self.nth_weekdays.contains(&(nth, day)) {
                    self.nth_weekdays.push((nth, day));
                }
            }
        }
        Ok(())
    }

    fn check(&self, parts: &Parts) -> Result<(), Error> {
        use Frequency::{Daily, Monthly, Weekly, Yearly};
        let refuse = |message: &str| Err(Error::Rrule(message.to_owned()));
        if !parts.has("FREQ") {
            return refuse("FREQ is missing; allowed are DAILY, WEEKLY, MONTHLY, YEARLY");
        }
        if parts.has("COUNT") && parts.has("UNTIL") {
            return refuse("COUNT and UNTIL do not go together; give one of them");
        }
        if !self.week_numbers.is_empty() && self.frequency != Yearly {
            return refuse("BYWEEKNO is allowed with FREQ=YEARLY only");
        }
        if !self.year_days.is_empty() && matches!(self.frequency, Daily | Weekly | Monthly) {
            return refuse("BYYEARDAY is not allowed with FREQ=DAILY, WEEKLY or MONTHLY");
        }
        if self.names_month_days() && self.frequency == Weekly {
            return refuse("BYMONTHDAY is not allowed with FREQ=WEEKLY");
        }
        if !self.nth_weekdays.is_empty() {
            if !matches!(self.frequency, Monthly | Yearly) {
                return refuse("a number before a weekday in BYDAY is allowed with FREQ=MONTHLY or YEARLY only");
            }
            if !self.week_numbers.is_empty() {
                return refuse("a number before a weekday in BYDAY is not allowed with BYWEEKNO");
            }
        }
        if parts.has("BYSETPOS") && !parts.0.iter().any(|name| name.starts_with("BY") && name != "BYSETPOS") {
            return refuse("BYSETPOS needs another BY part to choose from");
        }
        Ok(())
    }
}

fn frequency(value: &str) -> Result<Frequency, Error> {
    Ok(match value {
        "SECONDLY" => Frequency::Secondly,
        "MINUTELY" => Frequency::Minutely,
        "HOURLY" => Frequency::Hourly,
        "DAILY" => Frequency::Daily,
        "WEEKLY" => Frequency::Weekly,
        "MONTHLY" => Frequency::Monthly,
        "YEARLY" => Frequency::Yearly,
        _ => {
            return Err(Error::Rrule(format!(
                "FREQ {}: allowed are DAILY, WEEKLY, MONTHLY, YEARLY",
                quoted(value)
            )));
        }
    })
}

fn until(value: &str) -> Result<Until, Error> {
    let refuse = || {
        Error::Rrule(format!(
            "UNTIL {}: write it as 20261231, 20261231T090000 or 20261231T090000Z",
            quoted(value)
        ))
    };
    let (at, kind) = date_time(value).ok_or_else(refuse)?;
    Ok(match kind {
        // The day counts whole: "until 31 December" means that 09:00 on that day is still in.
        Written::Date => Until::Clock(at.date().to_datetime(civil::time(23, 59, 59, 0))),
        Written::Clock => Until::Clock(at),
        Written::Utc => Until::Instant(utc(at).ok_or_else(refuse)?),
    })
}

/// How a DATE or DATE-TIME value was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// `20261231`.
    Date,
    /// `20261231T090000`.
    Clock,
    /// `20261231T090000Z`.
    Utc,
}

/// The instant of a civil time in UTC.
pub(super) fn utc(at: DateTime) -> Option<Timestamp> {
    jiff::tz::Offset::UTC.to_timestamp(at).ok()
}

/// A DATE or DATE-TIME of RFC 5545 3.3.4 and 3.3.5.
pub(super) fn date_time(value: &str) -> Option<(DateTime, Written)> {
    let digits = |range: std::ops::Range<usize>| -> Option<i16> {
        let text = value.get(range)?;
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            text.parse().ok()
        } else {
            None
        }
    };
    let small = |range| digits(range).and_then(|number| i8::try_from(number).ok());
    let date = civil::Date::new(digits(0..4)?, small(4..6)?, small(6..8)?).ok()?;
    let written = match value.len() {
        8 => return Some((date.to_datetime(civil::Time::midnight()), Written::Date)),
        15 => Written::Clock,
        16 if value.ends_with(['Z', 'z']) => Written::Utc,
        _ => return None,
    };
    if !matches!(value.as_bytes().get(8), Some(b'T' | b't')) {
        return None;
    }
    // A leap second is read as the second before it.
    let time = civil::Time::new(small(9..11)?, small(11..13)?, small(13..15)?.min(59), 0).ok()?;
    Some((date.to_datetime(time), written))
}

fn weekday(name: &str, value: &str) -> Result<i32, Error> {
    let found = WEEKDAYS
        .iter()
        .position(|day| *day == value)
        .and_then(|index| i32::try_from(index).ok());
    found.ok_or_else(|| {
        Error::Rrule(format!(
            "{name} {}: allowed weekdays are MO, TU, WE, TH, FR, SA, SU",
            quoted(value)
        ))
    })
}

/// A whole number with an optional sign.
fn signed(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let plain = (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

fn one(name: &str, value: &str, low: i32, high: i32) -> Result<i32, Error> {
    signed(value)
        .filter(|number| (low..=high).contains(number))
        .ok_or_else(|| Error::Rrule(format!("{name} {}: allowed are {low} to {high}", quoted(value))))
}

fn numbers(name: &str, value: &str, low: i32, high: i32) -> Result<Vec<i32>, Error> {
    value.split(',').map(|item| one(name, item, low, high)).collect()
}

/// Numbers from 1 to `high`, and from the end with a minus if `negative`; sorted, each once.
fn list(name: &str, value: &str, high: i32, negative: bool) -> Result<Vec<i32>, Error> {
    let mut list = Vec::new();
    for item in value.split(',') {
        let fits = |&number: &i32| number != 0 && number <= high && number >= if negative { -high } else { 1 };
        let number = signed(item).filter(fits).ok_or_else(|| {
            let from_end = if negative {
                format!(" or -{high} to -1")
            } else {
                String::new()
            };
            Error::Rrule(format!("{name} {}: allowed are 1 to {high}{from_end}", quoted(item)))
        })?;
        list.push(number);
    }
    list.sort_unstable();
    list.dedup();
    Ok(list)
}
