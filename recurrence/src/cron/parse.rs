//! From a cron expression's text to its bits. Each message names the field, its text and what is allowed there.

use super::{
    Cron,
    days::{DateField, DayRule, WeekdayField},
};
use crate::{Error, error::quoted};

/// Longer texts are refused unread: every list of 60 numbers fits.
const LONGEST: usize = 1000;

/// What a field may hold.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// The first name stands for `first_name`, the next for one more.
    names: &'static [&'static str],
    first_name: u32,
    allowed: &'static str,
}

const SECOND: Field = Field {
    name: "second",
    min: 0,
    max: 59,
    names: &[],
    first_name: 0,
    allowed: "0-59, lists, ranges, steps, *",
};
const MINUTE: Field = Field {
    name: "minute",
    ..SECOND
};
const HOUR: Field = Field {
    name: "hour",
    max: 23,
    allowed: "0-23, lists, ranges, steps, *",
    ..SECOND
};
const DATE: Field = Field {
    name: "day-of-month",
    min: 1,
    max: 31,
    allowed: "1-31, lists, ranges, steps, *, ?, L, L-n, LW, nW",
    ..SECOND
};
const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: &[
        "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
    ],
    first_name: 1,
    allowed: "1-12 or JAN-DEC, lists, ranges, steps, *",
};
const WEEKDAY: Field = Field {
    name: "weekday",
    min: 0,
    max: 7,
    names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
    first_name: 0,
    allowed: "0-7 (0 and 7 are Sunday) or SUN-SAT, lists, ranges, steps, *, ?, dL, d#1 to d#5",
};

pub(super) fn parse(text: &str) -> Result<Cron, Error> {
    let text = text.trim();
    if text.len() > LONGEST {
        return Err(Error::Cron(format!(
            "a cron expression has at most {LONGEST} characters"
        )));
    }
    let expression = if text.starts_with('@') {
        expand_macro(text)?
    } else {
        text
    };
    let fields: Vec<&str> = expression.split_ascii_whitespace().collect();
    let (second, rest) = match fields.as_slice() {
        rest @ [_, _, _, _, _] => ("0", rest),
        [second, rest @ ..] if rest.len() == 5 => (*second, rest),
        other => {
            return Err(Error::Cron(format!(
                "{} has {} fields; a cron expression has 5 (minute hour day-of-month month weekday), or 6 with seconds first, \
                 or is a macro such as @daily",
                quoted(text),
                other.len()
            )));
        }
    };
    let [minute, hour, date, month, weekday] = [rest[0], rest[1], rest[2], rest[3], rest[4]];
    let restricted = |field: &str| !field.starts_with(['*', '?']);
    Ok(Cron {
        text: text.to_owned(),
        seconds: SECOND.bits(second)?,
        minutes: MINUTE.bits(minute)?,
        hours: HOUR.bits(hour)?,
        months: MONTH.bits(month)?,
        days: DayRule {
            dates: dates(date)?,
            weekdays: weekdays(weekday)?,
            either: restricted(date) && restricted(weekday),
        },
        interval: hour.split(',').any(|item| item == "*" || item.contains('/')),
    })
}

fn expand_macro(text: &str) -> Result<&'static str, Error> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            return Err(Error::Cron(format!(
                "unknown macro {}; allowed are @yearly @annually @monthly @weekly @daily @midnight @hourly",
                quoted(text)
            )));
        }
    })
}

fn dates(text: &str) -> Result<DateField, Error> {
    let mut field = DateField::default();
    if text == "?" {
        field.days = u32::MAX;
        return Ok(field);
    }
    for item in text.split(',') {
        let upper = item.to_ascii_uppercase();
        if upper == "L" {
            field.before_last |= 1;
        } else if upper == "LW" {
            field.last_workday = true;
        } else if let Some(before) = upper.strip_prefix("L-") {
            let before = number(before).filter(|&before| before <= 30);
            field.before_last |= 1 << before.ok_or_else(|| DATE.refuse(item, "L-n takes n from 0 to 30"))?;
        } else if let Some(day) = upper.strip_suffix('W') {
            let day = number(day).filter(|day| (1..=31).contains(day));
            field.nearest_workday |= 1 << day.ok_or_else(|| DATE.refuse(item, "W follows one day from 1 to 31"))?;
        } else {
            let days = DATE.item(item)?;
            field.days |= u32::try_from(days).map_err(|_| DATE.refuse(item, "out of range"))?;
        }
    }
    Ok(field)
}

fn weekdays(text: &str) -> Result<WeekdayField, Error> {
    let mut field = WeekdayField::default();
    if text == "?" {
        field.every = 0x7f;
        return Ok(field);
    }
    for item in text.split(',') {
        if let Some((day, nth)) = item.split_once('#') {
            let nth = match nth {
                "1" => 0,
                "2" => 1,
                "3" => 2,
                "4" => 3,
                "5" => 4,
                _ => return Err(WEEKDAY.refuse(item, "# is followed by one digit from 1 to 5")),
            };
            field.nth[nth] |= 1 << (WEEKDAY.value(day, item)? % 7);
        } else if let Some(day) = item.strip_suffix(['L', 'l']) {
            if day.is_empty() {
                return Err(WEEKDAY.refuse(item, "L follows a weekday, as in 5L"));
            }
            field.last |= 1 << (WEEKDAY.value(day, item)? % 7);
        } else {
            let days = WEEKDAY.item(item)?;
            // 7 is Sunday too.
            field.every |= u8::try_from((days | days >> 7) & 0x7f).unwrap_or_default();
        }
    }
    Ok(field)
}

impl Field {
    fn bits(&self, text: &str) -> Result<u64, Error> {
        text.split(',').try_fold(0, |bits, item| Ok(bits | self.item(item)?))
    }

    /// `*`, `*/n`, `a`, `a/n`, `a-b` or `a-b/n`.
    fn item(&self, item: &str) -> Result<u64, Error> {
        let (range, step) = match item.split_once('/') {
            None => (item, None),
            Some((range, step)) => {
                let step = number(step).filter(|&step| step >= 1);
                (
                    range,
                    Some(step.ok_or_else(|| self.refuse(item, "a step is a number from 1"))?),
                )
            }
        };
        let (low, high) = if range == "*" {
            (self.min, self.max)
        } else if let Some((low, high)) = range.split_once('-') {
            let (low, high) = (self.value(low, item)?, self.value(high, item)?);
            // FRI-SUN: Sunday ends a week as well as it begins one.
            let high = if self.max == WEEKDAY.max && high == 0 && low > 0 {
                7
            } else {
                high
            };
            if low > high {
                let hint = format!("a range runs upwards; write {low}-{},{}-{high}", self.max, self.min);
                return Err(self.refuse(item, &hint));
            }
            (low, high)
        } else {
            let low = self.value(range, item)?;
            (low, if step.is_some() { self.max } else { low })
        };
        let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
        Ok((low..=high).step_by(step).fold(0, |bits, value| bits | 1 << value))
    }

    fn value(&self, text: &str, item: &str) -> Result<u32, Error> {
        let named = || self.names.iter().position(|name| text.eq_ignore_ascii_case(name));
        let value = match number(text) {
            Some(value) => Some(value),
            None => named()
                .and_then(|index| u32::try_from(index).ok())
                .map(|index| index + self.first_name),
        };
        match value {
            Some(value) if (self.min..=self.max).contains(&value) => Ok(value),
            Some(value) => Err(self.refuse(item, &format!("{value} is out of range"))),
            None if text.is_empty() => Err(self.refuse(item, "a value is missing")),
            None => Err(self.refuse(item, &format!("{} is no value of this field", quoted(text)))),
        }
    }

    fn refuse(&self, item: &str, why: &str) -> Error {
        Error::Cron(format!(
            "{} field {}: {why}; allowed are {}",
            self.name,
            quoted(item),
            self.allowed
        ))
    }
}

/// Up to four digits and nothing else.
fn number(text: &str) -> Option<u32> {
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}
