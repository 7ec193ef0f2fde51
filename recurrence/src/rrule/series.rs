//! A rule with its start: the search for the next civil match.
//!
//! Time is cut into periods (years, months, weeks, or days for DAILY and below), numbered from the start's one in steps
//! of INTERVAL. A period is a set of [`Days`] times a list of seconds of the day; BYSETPOS picks from the product
//! without writing it out. A search jumps to its period by arithmetic, so a start long ago costs nothing.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::{Frequency, Rrule, Until};
use crate::{
    Error, MonthEnd,
    calendar::{self, DAYS_IN_CYCLE, date_of, day_number, days_in_month, days_in_year, weekday_from_monday},
    error::quoted,
    instants::CivilRule,
    steps,
};

/// A search below DAILY ends after so many times of day without a match. INTERVAL and the parts for hours, minutes and
/// seconds meet within a day's worth of them or never; this is several.
const MOST_EFFORT: u32 = 400_000;

/// The instances of a rule from a start on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Series {
    rule: Rrule,
    start: DateTime,
    start_day: i32,
    start_second: u32,
    /// The start's day of the month clamps to a shorter month's last day.
    clamp_start: bool,
    /// Each BYMONTHDAY does.
    clamp_named: bool,
    /// Seconds of the day, sorted. Unused below DAILY, where they change from day to day.
    times: Vec<u32>,
    /// No civil match is later.
    last: Option<DateTime>,
    /// No instant is later.
    until: Option<Timestamp>,
}

/// A set of days within a year from `first` on.
struct Days {
    first: i32,
    bits: [u64; 6],
}

impl Days {
    const fn none(first: i32) -> Self {
        Self { first, bits: [0; 6] }
    }

    /// Ignores days outside of `0..length`, so that what is clipped is clipped here.
    fn insert(&mut self, offset: i32, length: i32) {
        if (0..length).contains(&offset) {
            let offset = offset.unsigned_abs();
            self.bits[(offset / 64) as usize] |= 1 << (offset % 64);
        }
    }

    /// Bit n of `month` is the n-th day of the month that begins at `offset`.
    fn insert_month(&mut self, offset: i32, mut month: u32, length: i32) {
        while month != 0 {
            self.insert(offset + month.trailing_zeros().cast_signed() - 1, length);
            month &= month - 1;
        }
    }

    fn keep(&mut self, other: &Self) {
        for (bits, other) in self.bits.iter_mut().zip(other.bits) {
            *bits &= other;
        }
    }

    /// The first day of the set at or after a day.
    fn at_or_after(&self, day: i32) -> Option<i32> {
        let from = (day - self.first).max(0).unsigned_abs();
        let word = (from / 64) as usize;
        let mut mask = u64::MAX << (from % 64);
        for (index, bits) in self.bits.iter().enumerate().skip(word) {
            let rest = bits & mask;
            if rest != 0 {
                return Some(self.first + i32::try_from(index * 64).ok()? + rest.trailing_zeros().cast_signed());
            }
            mask = u64::MAX;
        }
        None
    }

    fn iter(&self) -> impl Iterator<Item = i32> {
        std::iter::successors(self.at_or_after(self.first), |&day| self.at_or_after(day + 1))
    }

    fn len(&self) -> u32 {
        self.bits.iter().map(|bits| bits.count_ones()).sum()
    }
}

impl Rrule {
    /// The series of this rule. `month_end` says what becomes of day 29 to 31 in a shorter month: without it, a day
    /// that comes from the start is clamped and one that the rule names (BYMONTHDAY) is skipped.
    pub(crate) fn series(self, start: DateTime, zone: &TimeZone, month_end: Option<MonthEnd>) -> Result<Series, Error> {
        let (start_day, start_second) = calendar::numbers(start);
        let (last, until) = match self.until {
            None => (None, None),
            Some(Until::Clock(at)) => (Some(at), None),
            // Instants decide; the clock a day later only ends a search early.
            Some(Until::Instant(at)) => (
                calendar::civil(calendar::numbers(zone.to_datetime(at)).0 + 2, 0),
                Some(at),
            ),
        };
        let mut series = Series {
            times: self.times(start_second),
            clamp_start: month_end != Some(MonthEnd::Strict),
            clamp_named: month_end == Some(MonthEnd::Clamp),
            start,
            start_day,
            start_second,
            last,
            until,
            rule: self,
        };
        if series.at_or_after(start).is_none() {
            return Err(Error::NeverFires(
                quoted(&series.rule.text).trim_matches('"').to_owned(),
            ));
        }
        if let Some(count) = series.rule.count {
            series.last = series.nth(count);
        }
        Ok(series)
    }

    /// Refuses a rule that no date matches, whatever its start: 30 February.
    pub(crate) fn check_possible(&self, month_end: Option<MonthEnd>) -> Result<(), Error> {
        let boundless = Self {
            interval: 1,
            count: None,
            until: None,
            ..self.clone()
        };
        let start = DateTime::constant(2000, 1, 1, 0, 0, 0, 0);
        boundless.series(start, &TimeZone::UTC, month_end).map(drop)
    }

    /// The seconds of the day on which a day's instances fall, for DAILY and above.
    fn times(&self, start_second: u32) -> Vec<u32> {
        let (hours, minutes, seconds) = self.clock_sets(start_second);
        let mut times = Vec::new();
        for hour in ones(u64::from(hours)) {
            for minute in ones(minutes) {
                times.extend(ones(seconds).map(|second| hour * 3600 + minute * 60 + second));
            }
        }
        times
    }

    /// BYHOUR, BYMINUTE and BYSECOND, with the start's own where the rule says nothing.
    fn clock_sets(&self, start_second: u32) -> (u32, u64, u64) {
        let or_start = |set: u64, start: u32| if set == 0 { 1 << start } else { set };
        (
            u32::try_from(or_start(u64::from(self.hours), start_second / 3600)).unwrap_or(u32::MAX),
            or_start(self.minutes, start_second / 60 % 60),
            or_start(self.seconds, start_second % 60),
        )
    }
}

/// The set bits, from the lowest.
fn ones(bits: u64) -> impl Iterator<Item = u32> {
    let rest = |bits: u64| (bits != 0).then_some(bits);
    std::iter::successors(rest(bits), move |&bits| rest(bits & (bits - 1))).map(u64::trailing_zeros)
}

impl Series {
    /// No instance is after this instant: an UNTIL in UTC.
    pub(crate) fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// The civil time of the instance number `count` (from 1), if the calendar has that many.
    fn nth(&self, count: u32) -> Option<DateTime> {
        let mut left = count.max(1) as usize;
        let mut from = self.start;
        loop {
            let found = self.at_or_after(from)?;
            let (day, second) = calendar::numbers(found);
            let times = if self.below_daily() {
                self.times_on(day)
            } else {
                vec![second]
            };
            let rest = &times[times.partition_point(|&time| time < second)..];
            if let Some(&time) = rest.get(left - 1) {
                return calendar::civil(day, time);
            }
            left -= rest.len();
            from = if self.below_daily() {
                calendar::civil(day + 1, 0)?
            } else {
                calendar::second_after(found)?
            };
        }
    }

    /// The number of the period that holds a day.
    fn period_of(&self, day: i32) -> i32 {
        match self.rule.frequency {
            Frequency::Yearly => date_of(day).0,
            Frequency::Monthly => {
                let (year, month, _) = date_of(day);
                year * 12 + month - 1
            }
            Frequency::Weekly => (day + 3 - self.rule.week_start).div_euclid(7),
            _ => day,
        }
    }

    fn below_daily(&self) -> bool {
        self.rule.frequency < Frequency::Daily
    }

    /// Periods are stepped by INTERVAL; below DAILY a period is each day, and INTERVAL counts within it.
    fn step(&self) -> i32 {
        if self.below_daily() { 1 } else { self.rule.interval }
    }

    /// The last period worth a look: by then the calendar has repeated itself, whatever the step.
    fn end_of_search(&self, from: i32) -> i32 {
        let cycle = match self.rule.frequency {
            Frequency::Yearly => 400,
            Frequency::Monthly => 4800,
            Frequency::Weekly => DAYS_IN_CYCLE / 7,
            _ => DAYS_IN_CYCLE,
        };
        let until_repeated = i64::from(cycle / greatest_common_divisor(cycle, self.step())) * i64::from(self.step());
        let calendar_end = self.period_of(day_number(calendar::LAST_YEAR, 12, 31));
        i32::try_from(i64::from(from) + until_repeated).map_or(calendar_end, |repeated| repeated.min(calendar_end))
    }

    /// The matching days of a period; `Err` with a later period when all until then are empty.
    fn days(&self, period: i32) -> Result<Days, i32> {
        match self.rule.frequency {
            Frequency::Yearly => Ok(self.year(period)),
            Frequency::Monthly => {
                let (year, month) = (period.div_euclid(12), period.rem_euclid(12) + 1);
                let mut days = Days::none(day_number(year, month, 1));
                if self.in_months(month) {
                    days.insert_month(0, self.month(year, month), 31);
                }
                Ok(days)
            }
            Frequency::Weekly => {
                let first = period * 7 - 3 + self.rule.week_start;
                let mut days = Days::none(first);
                let start_weekday = 1 << weekday_from_monday(self.start_day);
                let weekdays = if self.rule.weekdays == 0 {
                    start_weekday
                } else {
                    self.rule.weekdays
                };
                for offset in 0..7 {
                    let day = first + offset;
                    if weekdays >> weekday_from_monday(day) & 1 == 1 && self.in_months(date_of(day).1) {
                        days.insert(offset, 7);
                    }
                }
                Ok(days)
            }
            _ => {
                let (year, month, day) = date_of(period);
                if !self.in_months(month) {
                    return Err(day_number(year, month, 1) + days_in_month(year, month));
                }
                let mut days = Days::none(period);
                if self.day_matches(period, year, month, day) {
                    days.insert(0, 1);
                }
                Ok(days)
            }
        }
    }

    fn in_months(&self, month: i32) -> bool {
        self.rule.months == 0 || self.rule.months >> month & 1 == 1
    }

    /// Whether a day passes BYMONTHDAY, BYDAY and BYYEARDAY, where these only limit.
    fn day_matches(&self, number: i32, year: i32, month: i32, day: i32) -> bool {
        let rule = &self.rule;
        let month_day = !rule.names_month_days() || self.month_days(year, month) >> day & 1 == 1;
        let weekday = rule.weekdays == 0 || rule.weekdays >> weekday_from_monday(number) & 1 == 1;
        let year_day = || {
            let from_start = number - day_number(year, 1, 1) + 1;
            let from_end = from_start - days_in_year(year) - 1;
            rule.year_days
                .iter()
                .any(|&wanted| wanted == from_start || wanted == from_end)
        };
        month_day && weekday && (rule.year_days.is_empty() || year_day())
    }

    /// BYMONTHDAY within a month: bit n is day n.
    fn month_days(&self, year: i32, month: i32) -> u32 {
        let length = days_in_month(year, month);
        let all = u32::MAX >> (31 - length) & !1;
        let mut days = self.rule.month_days & all;
        if self.clamp_named && self.rule.month_days & !all != 0 {
            days |= 1 << length;
        }
        for from_end in ones(u64::from(self.rule.month_days_from_end)) {
            days |= (1 << length) >> (from_end - 1) & all;
        }
        days
    }

    /// The matching days of a month, for MONTHLY.
    fn month(&self, year: i32, month: i32) -> u32 {
        let rule = &self.rule;
        if !rule.names_days() {
            return self.day_of_start(year, month);
        }
        let length = days_in_month(year, month);
        let mut days = u32::MAX >> (31 - length) & !1;
        if rule.names_month_days() {
            days &= self.month_days(year, month);
        }
        if rule.weekdays != 0 || !rule.nth_weekdays.is_empty() {
            days &= self.weekdays_of_month(year, month);
        }
        days
    }

    /// The day of the month that the start has.
    fn day_of_start(&self, year: i32, month: i32) -> u32 {
        let (day, length) = (date_of(self.start_day).2, days_in_month(year, month));
        match () {
            () if day <= length => 1 << day,
            () if self.clamp_start => 1 << length,
            () => 0,
        }
    }

    /// BYDAY within a month.
    fn weekdays_of_month(&self, year: i32, month: i32) -> u32 {
        let (first, length) = (day_number(year, month, 1), days_in_month(year, month));
        let mut days = 0;
        for day in 1..=length {
            if self.rule.weekdays >> weekday_from_monday(first + day - 1) & 1 == 1 {
                days |= 1 << day;
            }
        }
        for &(nth, weekday) in &self.rule.nth_weekdays {
            if let Some(offset) = nth_weekday(first, length, nth, weekday) {
                days |= 1 << (offset + 1);
            }
        }
        days
    }

    /// The matching days of a year, for YEARLY: the parts that are there, each as a set, and all of them together.
    fn year(&self, year: i32) -> Days {
        let rule = &self.rule;
        let (first, length) = (day_number(year, 1, 1), days_in_year(year));
        let weekday_in_year = !rule.nth_weekdays.is_empty() && rule.months == 0;
        let mut days = Days::none(first);
        for month in 1..=12 {
            let start_month = date_of(self.start_day).1;
            let chosen = if rule.months == 0 && !rule.names_days() {
                month == start_month
            } else {
                self.in_months(month)
            };
            if chosen {
                let of_month = match () {
                    () if !rule.names_days() => self.day_of_start(year, month),
                    () if rule.names_month_days() => self.month_days(year, month),
                    () => u32::MAX >> (31 - days_in_month(year, month)) & !1,
                };
                let by_weekday = (rule.weekdays != 0 || !rule.nth_weekdays.is_empty()) && !weekday_in_year;
                let limit = if by_weekday {
                    self.weekdays_of_month(year, month)
                } else {
                    u32::MAX
                };
                days.insert_month(day_number(year, month, 1) - first, of_month & limit, length);
            }
        }
        if weekday_in_year {
            let mut wanted = Days::none(first);
            for &(nth, weekday) in &rule.nth_weekdays {
                if let Some(offset) = nth_weekday(first, length, nth, weekday) {
                    wanted.insert(offset, length);
                }
            }
            for offset in (0..length).filter(|offset| rule.weekdays >> weekday_from_monday(first + offset) & 1 == 1) {
                wanted.insert(offset, length);
            }
            days.keep(&wanted);
        }
        if !rule.year_days.is_empty() {
            let mut wanted = Days::none(first);
            for &day in &rule.year_days {
                wanted.insert(if day > 0 { day - 1 } else { length + day }, length);
            }
            days.keep(&wanted);
        }
        if !rule.week_numbers.is_empty() {
            days.keep(&self.weeks(year, first, length));
        }
        days
    }

    /// BYWEEKNO: the days of this calendar year that are in those weeks, also of a week that belongs to the year
    /// before or after (29 December can be in week 1).
    fn weeks(&self, year: i32, first: i32, length: i32) -> Days {
        let mut wanted = Days::none(first);
        let names_other_days =
            self.rule.weekdays != 0 || self.rule.names_month_days() || !self.rule.year_days.is_empty();
        let start_weekday = weekday_from_monday(self.start_day);
        for week_year in [year - 1, year, year + 1] {
            let first_week = self.first_week(week_year);
            let weeks = (self.first_week(week_year + 1) - first_week) / 7;
            for &number in &self.rule.week_numbers {
                let index = if number > 0 { number - 1 } else { weeks + number };
                if !(0..weeks).contains(&index) {
                    continue;
                }
                let week = first_week + index * 7;
                for day in week..week + 7 {
                    if names_other_days || weekday_from_monday(day) == start_weekday {
                        wanted.insert(day - first, length);
                    }
                }
            }
        }
        wanted
    }

    /// The day on which week 1 of a year begins: the first with at least four days in it.
    fn first_week(&self, year: i32) -> i32 {
        let first = day_number(year, 1, 1);
        let into_week = (weekday_from_monday(first) - self.rule.week_start).rem_euclid(7);
        if into_week <= 3 {
            first - into_week
        } else {
            first - into_week + 7
        }
    }

    /// The first `(day, second)` of a period at or after one.
    fn pick(&self, days: &Days, times: &[u32], from: (i32, u32)) -> Option<(i32, u32)> {
        let (&first_time, &last_time) = (times.first()?, times.last()?);
        if self.rule.positions.is_empty() || self.below_daily() {
            let from_day = if from.1 > last_time { from.0 + 1 } else { from.0 };
            let day = days.at_or_after(from_day)?;
            let time = if day == from.0 {
                times[times.partition_point(|&time| time < from.1)]
            } else {
                first_time
            };
            return Some((day, time));
        }
        let days: Vec<i32> = days.iter().collect();
        let width = i64::try_from(times.len()).ok()?;
        let total = i64::try_from(days.len()).ok()? * width;
        let instances = self.rule.positions.iter().filter_map(|&position| {
            let index = if position > 0 {
                i64::from(position) - 1
            } else {
                total + i64::from(position)
            };
            let index = (0..total).contains(&index).then_some(index)?;
            let day = days[usize::try_from(index / width).ok()?];
            Some((day, times[usize::try_from(index % width).ok()?]))
        });
        instances.filter(|&instance| instance >= from).min()
    }

    /// Hours, minutes or seconds in a unit of HOURLY, MINUTELY or SECONDLY.
    fn unit(&self) -> u32 {
        match self.rule.frequency {
            Frequency::Hourly => 3600,
            Frequency::Minutely => 60,
            _ => 1,
        }
    }

    /// How many times of day [`Series::times_on`] looks at.
    fn effort_of_day(&self) -> u32 {
        86_400 / self.unit() / self.rule.interval.unsigned_abs().max(1) + 1
    }

    /// The seconds of a day for HOURLY and below, where INTERVAL and BYSETPOS count within the day.
    fn times_on(&self, day: i32) -> Vec<u32> {
        let unit = self.unit();
        let within_unit = self.seconds_within_unit(unit);
        let interval = i64::from(self.rule.interval);
        let units_in_day = 86_400 / i64::from(unit);
        let since_start = i64::from(day - self.start_day) * units_in_day - i64::from(self.start_second / unit);
        let mut times = Vec::new();
        let mut at = (-since_start).rem_euclid(interval);
        while at < units_in_day {
            let begin = u32::try_from(at).unwrap_or_default() * unit;
            at += interval;
            let in_set = |set: u64, value: u32| set == 0 || set >> value & 1 == 1;
            let by_hour = in_set(u64::from(self.rule.hours), begin / 3600);
            let by_minute = unit == 3600 || in_set(self.rule.minutes, begin / 60 % 60);
            let by_second = unit >= 60 || in_set(self.rule.seconds, begin % 60);
            if by_hour && by_minute && by_second {
                times.extend(within_unit.iter().map(|second| begin + second));
            }
        }
        times
    }

    /// What BYMINUTE, BYSECOND and BYSETPOS choose within an hour, a minute or a second.
    fn seconds_within_unit(&self, unit: u32) -> Vec<u32> {
        let (_, minutes, seconds) = self.rule.clock_sets(self.start_second);
        let minute = |minute: u32| ones(seconds).map(move |second| minute * 60 + second);
        let all: Vec<u32> = match unit {
            3600 => ones(minutes).flat_map(minute).collect(),
            60 => minute(0).collect(),
            _ => vec![0],
        };
        let total = i32::try_from(all.len()).unwrap_or(i32::MAX);
        let chosen = |index: i32| {
            let position_from_end = index - total;
            self.rule.positions.is_empty()
                || self
                    .rule
                    .positions
                    .iter()
                    .any(|&position| position == index + 1 || position == position_from_end)
        };
        (0..total)
            .zip(all)
            .filter(|&(index, _)| chosen(index))
            .map(|(_, second)| second)
            .collect()
    }
}

const fn greatest_common_divisor(a: i32, b: i32) -> i32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The offset of the n-th such weekday in a stretch of days, from its end if n is negative.
fn nth_weekday(first: i32, length: i32, nth: i32, weekday: i32) -> Option<i32> {
    let offset = if nth > 0 {
        (weekday - weekday_from_monday(first)).rem_euclid(7) + (nth - 1) * 7
    } else {
        let last = first + length - 1;
        length - 1 - (weekday_from_monday(last) - weekday).rem_euclid(7) + (nth + 1) * 7
    };
    (0..length).contains(&offset).then_some(offset)
}

impl CivilRule for Series {
    fn at_or_after(&self, from: DateTime) -> Option<DateTime> {
        let from = calendar::numbers(calendar::round_up(from)?).max((self.start_day, self.start_second));
        let (base, step) = (self.period_of(self.start_day), self.step());
        let last = self.last.map_or((i32::MAX, 0), calendar::numbers);
        let aligned = |period: i32| {
            let steps = (i64::from(period) - i64::from(base) + i64::from(step) - 1).div_euclid(i64::from(step));
            i32::try_from(i64::from(base) + steps * i64::from(step)).ok()
        };
        let mut period = aligned(self.period_of(from.0))?;
        let end = self.end_of_search(period);
        let mut effort = 0;
        while period <= end {
            steps::tick();
            period = match self.days(period) {
                Err(later) => aligned(later)?,
                Ok(days) => {
                    if days.first > last.0 {
                        return None;
                    }
                    let empty = days.len() == 0;
                    let found = match () {
                        () if empty => None,
                        () if self.below_daily() => {
                            effort += self.effort_of_day();
                            self.pick(&days, &self.times_on(days.first), from)
                        }
                        () => self.pick(&days, &self.times, from),
                    };
                    if let Some(found) = found {
                        return if found <= last {
                            calendar::civil(found.0, found.1)
                        } else {
                            None
                        };
                    }
                    if effort > MOST_EFFORT {
                        return None;
                    }
                    period.checked_add(step)?
                }
            };
        }
        None
    }
}
