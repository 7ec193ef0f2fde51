//! Which days of a month a cron expression means: day-of-month and weekday, and how the two go together.

use crate::calendar;

/// The two day fields. Days of a month are bits 1 to 31; weekdays are bits 0 (Sunday) to 6.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DayRule {
    pub(super) dates: DateField,
    pub(super) weekdays: WeekdayField,
    /// Both fields are restricted, so either one is enough.
    pub(super) either: bool,
}

/// Day-of-month.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DateField {
    pub(super) days: u32,
    /// `L` is bit 0, `L-n` is bit n.
    pub(super) before_last: u32,
    /// `LW`.
    pub(super) last_workday: bool,
    /// `nW`.
    pub(super) nearest_workday: u32,
}

/// Weekday.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct WeekdayField {
    pub(super) every: u8,
    /// `d#k` is bit d of entry k - 1.
    pub(super) nth: [u8; 5],
    /// `dL`.
    pub(super) last: u8,
}

impl DayRule {
    /// The matching days of a month.
    pub(super) fn in_month(&self, year: i32, month: i32) -> u32 {
        let length = calendar::days_in_month(year, month).unsigned_abs();
        let first = calendar::weekday_from_sunday(calendar::day_number(year, month, 1)).unsigned_abs();
        let dates = self.dates.in_month(length, first);
        let weekdays = self.weekdays.in_month(length, first);
        if self.either {
            dates | weekdays
        } else {
            dates & weekdays
        }
    }
}

/// Bits `from` to `to`, both included.
const fn bits(from: u32, to: u32) -> u32 {
    (u32::MAX >> (31 - to)) & (u32::MAX << from)
}

impl DateField {
    fn in_month(&self, length: u32, first_weekday: u32) -> u32 {
        let mut found = self.days & bits(1, length);
        let mut rest = self.before_last;
        while rest != 0 {
            let before = rest.trailing_zeros();
            rest &= rest - 1;
            if before < length {
                found |= 1 << (length - before);
            }
        }
        if self.last_workday {
            found |= 1 << workday_near(length, length, first_weekday);
        }
        let mut rest = self.nearest_workday & bits(1, length);
        while rest != 0 {
            found |= 1 << workday_near(rest.trailing_zeros(), length, first_weekday);
            rest &= rest - 1;
        }
        found
    }
}

/// The weekday from Monday to Friday nearest to a day, within its month.
fn workday_near(day: u32, length: u32, first_weekday: u32) -> u32 {
    match (first_weekday + day - 1) % 7 {
        6 if day > 1 => day - 1,
        6 => day + 2,
        0 if day < length => day + 1,
        0 => day - 2,
        _ => day,
    }
}

impl WeekdayField {
    fn in_month(&self, length: u32, first_weekday: u32) -> u32 {
        let days_of = |weekdays: u8| {
            // Five weeks and a bit of the pattern, moved so that bit 1 is the first of the month.
            let week = u64::from(weekdays & 0x7f);
            let weeks = week | week << 7 | week << 14 | week << 21 | week << 28 | week << 35;
            let month = (weeks >> first_weekday) << 1;
            u32::try_from(month & u64::from(bits(1, length))).unwrap_or_default()
        };
        let mut found = days_of(self.every);
        for (&weekdays, start) in self.nth.iter().zip([1, 8, 15, 22, 29]) {
            if weekdays != 0 && start <= length {
                found |= days_of(weekdays) & bits(start, (start + 6).min(31));
            }
        }
        if self.last != 0 {
            found |= days_of(self.last) & bits(length - 6, length);
        }
        found
    }
}
