//! The proleptic Gregorian calendar in plain integers, for loops that are too hot for checked date types.
//!
//! A day is counted from 1970-01-01. Sets of days are bits, so that a whole month or year is filtered at once.
//! What a bit means to a rule belongs to the rule.

use jiff::civil;

/// Days until the calendar, weekdays included, repeats itself: 400 years.
pub(crate) const DAYS_IN_CYCLE: i32 = 146_097;
/// The last year that jiff can express.
pub(crate) const LAST_YEAR: i32 = 9999;

/// Days from 1970-01-01 to the date. Days beyond the month's end run on into the next.
pub(crate) const fn day_number(year: i32, month: i32, day: i32) -> i32 {
    // Years begin in March, so that the leap day is the last day of one (H. Hinnant, chrono-compatible date algorithms).
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * DAYS_IN_CYCLE + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a day number.
pub(crate) const fn date_of(day_number: i32) -> (i32, i32, i32) {
    let shifted = day_number + 719_468;
    let era = shifted.div_euclid(DAYS_IN_CYCLE);
    let day_of_era = shifted.rem_euclid(DAYS_IN_CYCLE);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let month = (month_index + 2) % 12 + 1;
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day_of_year - (153 * month_index + 2) / 5 + 1)
}

pub(crate) const fn is_leap(year: i32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

pub(crate) const fn days_in_year(year: i32) -> i32 {
    if is_leap(year) { 366 } else { 365 }
}

pub(crate) const fn days_in_month(year: i32, month: i32) -> i32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// 0 is Monday, as in ISO 8601.
pub(crate) const fn weekday_from_monday(day_number: i32) -> i32 {
    (day_number + 3).rem_euclid(7)
}

/// 0 is Sunday, as in cron.
pub(crate) const fn weekday_from_sunday(day_number: i32) -> i32 {
    (day_number + 4).rem_euclid(7)
}

/// The civil time `second_of_day` seconds into a day; `None` outside of jiff's years.
pub(crate) fn civil(day_number: i32, second_of_day: u32) -> Option<civil::DateTime> {
    let (year, month, day) = date_of(day_number);
    let second = i32::try_from(second_of_day).ok()?;
    let small = |value: i32| i8::try_from(value).ok();
    civil::DateTime::new(
        i16::try_from(year).ok()?,
        small(month)?,
        small(day)?,
        small(second / 3600)?,
        small(second / 60 % 60)?,
        small(second % 60)?,
        0,
    )
    .ok()
}

/// The inverse of [`civil`], without the fraction of a second.
pub(crate) fn numbers(at: civil::DateTime) -> (i32, u32) {
    let day = day_number(i32::from(at.year()), i32::from(at.month()), i32::from(at.day()));
    let second = i32::from(at.hour()) * 3600 + i32::from(at.minute()) * 60 + i32::from(at.second());
    (day, second.unsigned_abs())
}

/// The first whole second at or after a civil time; `None` at the end of jiff's range.
pub(crate) fn round_up(at: civil::DateTime) -> Option<civil::DateTime> {
    if at.subsec_nanosecond() == 0 {
        Some(at)
    } else {
        second_after(at)
    }
}

/// The first whole second after a civil time; `None` at the end of jiff's range.
pub(crate) fn second_after(at: civil::DateTime) -> Option<civil::DateTime> {
    let (day, second) = numbers(at);
    if second == 86_399 {
        civil(day + 1, 0)
    } else {
        civil(day, second + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn day_numbers_agree_with_jiff_over_a_whole_cycle() {
        let mut date = civil::date(1899, 12, 31);
        for expected in (-25_568..).take(usize::try_from(DAYS_IN_CYCLE).expect("positive") + 400) {
            let (year, month, day) = (i32::from(date.year()), i32::from(date.month()), i32::from(date.day()));
            assert_eq!(day_number(year, month, day), expected, "{date}");
            assert_eq!(date_of(expected), (year, month, day));
            assert_eq!(days_in_month(year, month), i32::from(date.days_in_month()));
            assert_eq!(
                weekday_from_monday(expected),
                i32::from(date.weekday().to_monday_zero_offset())
            );
            assert_eq!(
                weekday_from_sunday(expected),
                i32::from(date.weekday().to_sunday_zero_offset())
            );
            date = date.tomorrow().expect("in range");
        }
    }
}
