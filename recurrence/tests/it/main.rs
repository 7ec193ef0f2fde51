//! The crate's promises, held from outside.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed, as it should")]

mod policy;
mod repeat;
mod schedule;
mod transitions;
mod vectors;

use jiff::{Timestamp, tz::TimeZone};
use todo_recurrence::{Schedule, ScheduleSpec, zone};

fn instant(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn time_zone(name: &str) -> TimeZone {
    zone::time_zone(name).unwrap()
}

fn cron(text: &str, time_zone: &str) -> ScheduleSpec {
    ScheduleSpec {
        cron: Some(text.to_owned()),
        time_zone: time_zone.to_owned(),
        ..ScheduleSpec::default()
    }
}

fn rrule(text: &str, time_zone: &str, start: &str) -> ScheduleSpec {
    let start = Some(start.parse().unwrap());
    ScheduleSpec {
        rrule: Some(text.to_owned()),
        time_zone: time_zone.to_owned(),
        start,
        ..ScheduleSpec::default()
    }
}

fn every(text: &str, time_zone: &str, start: &str) -> ScheduleSpec {
    let start = Some(start.parse().unwrap());
    ScheduleSpec {
        every: Some(text.to_owned()),
        time_zone: time_zone.to_owned(),
        start,
        ..ScheduleSpec::default()
    }
}

/// The next occurrences, in local time with offset.
fn next(spec: &ScheduleSpec, after: &str, count: usize) -> Vec<String> {
    let after = instant(after);
    let schedule = Schedule::new(spec, after).unwrap();
    let zone = schedule.time_zone();
    let local = |at: Timestamp| at.display_with_offset(zone.to_offset(at)).to_string();
    schedule.after(after).take(count).map(local).collect()
}
