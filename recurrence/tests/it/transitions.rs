//! Agreement with a walk over the clock, around every clock change of twelve zones from 2015 to 2040.
//!
//! The walk shares nothing with the engine but the zone data: it goes through real time minute by minute (or second by
//! second), looks at the clock, and decides by what the clock has shown so far.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use todo_recurrence::Schedule;

use crate::{cron, every, instant, rrule, time_zone};

const ZONES: [&str; 12] = [
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe", // half an hour
    "Pacific/Chatham",     // 12:45
    "America/Santiago",    // at midnight
    "America/Sao_Paulo",   // gave it up in 2019
    "Africa/Cairo",        // took it up again in 2023
    "Africa/Casablanca",   // backwards for Ramadan
    "America/Havana",
    "Asia/Tehran",
    "Antarctica/Troll", // two hours
    "America/Nuuk",
];

/// What becomes of a matching clock time that is shown twice, or never.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Once: in the first pass, or when the clock has jumped over it.
    Fixed,
    /// Whenever the clock shows it.
    Interval,
    /// Once: in the first pass, or as much after the gap's begin as it was into the gap.
    Moved,
}

type Matches = fn(DateTime) -> bool;

/// Whole minutes only.
const BY_MINUTE: &[(&str, Kind, Matches)] = &[
    ("30 2 * * *", Kind::Fixed, |c| (c.hour(), c.minute()) == (2, 30)),
    ("0 0 * * *", Kind::Fixed, |c| (c.hour(), c.minute()) == (0, 0)),
    ("30 0 * * *", Kind::Fixed, |c| (c.hour(), c.minute()) == (0, 30)),
    ("59 23 * * *", Kind::Fixed, |c| (c.hour(), c.minute()) == (23, 59)),
    ("0 12 * * *", Kind::Fixed, |c| (c.hour(), c.minute()) == (12, 0)),
    ("0 2,3 * * *", Kind::Fixed, |c| {
        matches!(c.hour(), 2 | 3) && c.minute() == 0
    }),
    ("0,30 1 * * *", Kind::Fixed, |c| c.hour() == 1 && c.minute() % 30 == 0),
    ("*/15 2 * * *", Kind::Fixed, |c| c.hour() == 2 && c.minute() % 15 == 0),
    ("15 0-4 * * *", Kind::Fixed, |c| c.hour() <= 4 && c.minute() == 15),
    ("* 0-3 * * *", Kind::Fixed, |c| c.hour() <= 3),
    ("30 2 * * 0", Kind::Fixed, |c| {
        (c.hour(), c.minute()) == (2, 30) && c.weekday().to_sunday_zero_offset() == 0
    }),
    ("5 1 1-7 * 6", Kind::Fixed, |c| {
        (c.hour(), c.minute()) == (1, 5) && (c.day() <= 7 || c.weekday().to_sunday_zero_offset() == 6)
    }),
    ("* * * * *", Kind::Interval, |_| true),
    ("0 * * * *", Kind::Interval, |c| c.minute() == 0),
    ("*/20 * * * *", Kind::Interval, |c| c.minute() % 20 == 0),
    ("30 */2 * * *", Kind::Interval, |c| {
        c.hour() % 2 == 0 && c.minute() == 30
    }),
    ("45 1-5/2 * * *", Kind::Interval, |c| {
        matches!(c.hour(), 1 | 3 | 5) && c.minute() == 45
    }),
    ("10 2/1 * * *", Kind::Interval, |c| c.hour() >= 2 && c.minute() == 10),
    ("0 * * * 0", Kind::Interval, |c| {
        c.minute() == 0 && c.weekday().to_sunday_zero_offset() == 0
    }),
    ("FREQ=DAILY;BYHOUR=2;BYMINUTE=30", Kind::Moved, |c| {
        (c.hour(), c.minute()) == (2, 30)
    }),
    ("FREQ=DAILY;BYHOUR=0,1,2,3;BYMINUTE=0,15,30", Kind::Moved, |c| {
        c.hour() <= 3 && matches!(c.minute(), 0 | 15 | 30)
    }),
    ("FREQ=WEEKLY;BYDAY=SU,SA;BYHOUR=0,23;BYMINUTE=0,59", Kind::Moved, |c| {
        matches!(c.hour(), 0 | 23)
            && matches!(c.minute(), 0 | 59)
            && matches!(c.weekday().to_sunday_zero_offset(), 0 | 6)
    }),
    ("every 1d 02:15", Kind::Moved, |c| (c.hour(), c.minute()) == (2, 15)),
    ("every 1d 00:00", Kind::Moved, |c| (c.hour(), c.minute()) == (0, 0)),
];

const BY_SECOND: &[(&str, Kind, Matches)] = &[
    ("*/20 59 0,1 * * *", Kind::Fixed, |c| {
        c.hour() <= 1 && c.minute() == 59 && c.second() % 20 == 0
    }),
    ("7 30 2 * * *", Kind::Fixed, |c| {
        (c.hour(), c.minute(), c.second()) == (2, 30, 7)
    }),
    ("*/7 */9 * * * *", Kind::Interval, |c| {
        c.minute() % 9 == 0 && c.second() % 7 == 0
    }),
    (
        "FREQ=DAILY;BYHOUR=1,2,3;BYMINUTE=30,31;BYSECOND=0,59",
        Kind::Moved,
        |c| matches!(c.hour(), 1..=3) && matches!(c.minute(), 30 | 31) && matches!(c.second(), 0 | 59),
    ),
];

fn schedule(rule: &str, zone: &str) -> Schedule {
    let spec = if rule.starts_with("FREQ") {
        rrule(rule, zone, "2014-01-01T00:00:00")
    } else if let Some(rule) = rule.strip_prefix("every ") {
        let (interval, at) = rule.split_once(' ').unwrap();
        every(interval, zone, &format!("2014-01-01T{at}"))
    } else {
        cron(rule, zone)
    };
    Schedule::new(&spec, instant("2014-01-01T00:00:00Z")).unwrap()
}

fn changes(zone: &TimeZone) -> Vec<Timestamp> {
    let (from, to) = (instant("2015-01-01T00:00:00Z"), instant("2041-01-01T00:00:00Z"));
    zone.following(from)
        .map(|change| change.timestamp())
        .take_while(|&at| at < to)
        .collect()
}

/// The instants and the clock, step by step.
fn walk(zone: &TimeZone, from: Timestamp, to: Timestamp, step: SignedDuration) -> Vec<(Timestamp, DateTime)> {
    let mut seen = Vec::new();
    let mut at = from;
    while at < to {
        seen.push((at, zone.to_datetime(at)));
        at += step;
    }
    seen
}

/// The occurrences after the first step of a walk.
fn expected(
    clock: &[(Timestamp, DateTime)],
    step: SignedDuration,
    kind: Kind,
    matches: Matches,
) -> BTreeSet<Timestamp> {
    let mut found = BTreeSet::new();
    let mut high = clock[0].1;
    for &(at, shown) in &clock[1..] {
        if shown <= high {
            // The clock shows this again.
            if kind == Kind::Interval && matches(shown) {
                found.insert(at);
            }
            continue;
        }
        let (mut passed, mut into_gap) = (high + step, SignedDuration::ZERO);
        while passed < shown {
            if matches(passed) {
                match kind {
                    Kind::Fixed => found.insert(at),
                    Kind::Moved => found.insert(at + into_gap),
                    Kind::Interval => false,
                };
            }
            passed += step;
            into_gap += step;
        }
        if matches(shown) {
            found.insert(at);
        }
        high = shown;
    }
    found
}

fn compare(rules: &[(&str, Kind, Matches)], step: SignedDuration, around: SignedDuration) -> usize {
    let mut compared = 0;
    for name in ZONES {
        let zone = time_zone(name);
        let schedules: Vec<Schedule> = rules.iter().map(|(rule, ..)| schedule(rule, name)).collect();
        for change in changes(&zone) {
            let clock = walk(&zone, change - around, change + around, step);
            let (first, last) = (clock[0].0, clock[clock.len() - 1].0);
            for ((rule, kind, matches), schedule) in rules.iter().zip(&schedules) {
                let mut expected = expected(&clock, step, *kind, *matches);
                // What moved beyond the walk was not all seen.
                expected.retain(|&at| at <= last);
                let got: BTreeSet<Timestamp> = schedule.after(first).take_while(|&at| at <= last).collect();
                assert_eq!(got, expected, "{rule} in {name} around {change}");

                // Asked at any instant, not only from one occurrence to the next.
                for &(at, _) in clock.iter().step_by(7) {
                    let later = expected.range(at..).find(|&&later| later > at);
                    if let Some(&later) = later {
                        assert_eq!(schedule.next_after(at), Some(later), "{rule} in {name} after {at}");
                    }
                }
                compared += 1;
            }
        }
    }
    compared
}

#[test]
fn the_engine_agrees_with_a_walk_by_the_minute_around_every_clock_change() {
    let compared = compare(BY_MINUTE, SignedDuration::from_mins(1), SignedDuration::from_hours(27));
    assert!(compared > 10_000, "compared only {compared} stretches");
}

#[test]
fn the_engine_agrees_with_a_walk_by_the_second_around_every_clock_change() {
    let compared = compare(BY_SECOND, SignedDuration::from_secs(1), SignedDuration::from_mins(200));
    assert!(compared > 1000, "compared only {compared} stretches");
}
