//! Specifications: what is refused, what bounds a schedule, and where it counts from.

use std::time::{Duration, Instant};

use jiff::{Timestamp, civil};
use todo_recurrence::{Schedule, ScheduleSpec};

use crate::{cron, every, instant, next, rrule};

fn refused(spec: &ScheduleSpec) -> (&'static str, String) {
    let error = Schedule::new(spec, instant("2026-11-21T10:00:00Z")).expect_err("a wrong specification");
    (error.field, error.message)
}

#[test]
fn exactly_one_rule_is_given() {
    let none = ScheduleSpec {
        time_zone: "UTC".to_owned(),
        ..ScheduleSpec::default()
    };
    assert_eq!(refused(&none).0, "cron");
    let two = ScheduleSpec {
        every: Some("1d".to_owned()),
        ..cron("0 9 * * *", "UTC")
    };
    let (field, message) = refused(&two);
    assert_eq!(field, "every");
    assert!(message.contains("exactly one of cron, rrule, every"), "{message}");
}

#[test]
fn each_wrong_field_is_named() {
    let at = Some(civil::time(9, 0, 0, 0));
    let day = |day: i8| Some(civil::date(2027, 1, day).at(0, 0, 0, 0));
    assert_eq!(refused(&cron("0 9 * * *", "Mars/Base")).0, "time_zone");
    assert_eq!(refused(&cron("0 99 * * *", "UTC")).0, "cron");
    assert_eq!(refused(&rrule("FREQ=HOURLY", "UTC", "2026-01-01T00:00:00")).0, "rrule");
    assert_eq!(refused(&every("0d", "UTC", "2026-01-01T00:00:00")).0, "every");
    assert_eq!(
        refused(&ScheduleSpec {
            at,
            ..cron("0 9 * * *", "UTC")
        })
        .0,
        "at"
    );
    assert_eq!(
        refused(&ScheduleSpec {
            start: day(2),
            end: day(1),
            ..cron("0 9 * * *", "UTC")
        })
        .0,
        "end"
    );
    let (field, message) = refused(&ScheduleSpec {
        start: day(1),
        end: day(2),
        ..cron("0 9 5 * *", "UTC")
    });
    assert_eq!(field, "end");
    assert!(message.contains("never fire"), "{message}");
}

#[test]
fn start_and_end_bound_every_kind_of_rule() {
    let start = Some(civil::date(2026, 1, 10).at(0, 0, 0, 0));
    let end = Some(civil::date(2026, 1, 12).at(23, 59, 59, 0));
    for spec in [
        cron("0 9 * * *", "Europe/Berlin"),
        rrule("FREQ=DAILY;BYHOUR=9", "Europe/Berlin", "2026-01-01T00:00:00"),
        every("1d", "Europe/Berlin", "2026-01-01T09:00:00"),
        every("24h", "Europe/Berlin", "2026-01-01T09:00:00"),
    ] {
        let at = spec.cron.is_none().then(|| civil::time(9, 0, 0, 0));
        let got = next(&ScheduleSpec { start, end, at, ..spec }, "2020-01-01T00:00:00Z", 9);
        assert_eq!(got, [10, 11, 12].map(|day| format!("2026-01-{day}T09:00:00+01:00")));
    }
}

#[test]
fn exceptions_and_additions_apply_to_every_kind_of_rule() {
    let day = |day: i8| civil::date(2026, 1, day).at(9, 0, 0, 0);
    for spec in [
        ScheduleSpec {
            start: Some(day(10)),
            ..cron("0 9 * * *", "Europe/Berlin")
        },
        rrule("FREQ=DAILY", "Europe/Berlin", "2026-01-10T09:00:00"),
        every("1d", "Europe/Berlin", "2026-01-10T09:00:00"),
        every("24h", "Europe/Berlin", "2026-01-10T09:00:00"),
    ] {
        let exdates = vec![day(13), day(11), day(12)];
        let rdates = vec![civil::date(2026, 1, 14).at(18, 0, 0, 0), day(12)];
        let got = next(
            &ScheduleSpec {
                exdates,
                rdates,
                ..spec
            },
            "2020-01-01T00:00:00Z",
            4,
        );
        let expected = ["10T09", "14T09", "14T18", "15T09"];
        assert_eq!(got, expected.map(|hour| format!("2026-01-{hour}:00:00+01:00")));
    }
}

#[test]
fn an_excluded_instance_still_counts() {
    let mut twice = rrule("FREQ=DAILY;COUNT=2", "UTC", "2026-01-01T09:00:00");
    twice.exdates = vec![civil::date(2026, 1, 1).at(9, 0, 0, 0)];
    assert_eq!(next(&twice, "2025-01-01T00:00:00Z", 9), ["2026-01-02T09:00:00+00:00"]);
}

#[test]
fn without_a_start_rules_count_from_the_anchor_at_their_time_of_day() {
    // 23:30 on the 20th in New York.
    let anchor = instant("2026-11-21T04:30:15.5Z");
    let spec = |rrule: Option<&str>, every: Option<&str>, at: Option<civil::Time>| ScheduleSpec {
        rrule: rrule.map(str::to_owned),
        every: every.map(str::to_owned),
        at,
        time_zone: "America/New_York".to_owned(),
        ..ScheduleSpec::default()
    };
    let at = Some(civil::time(17, 0, 0, 0));
    for (spec, expected) in [
        (spec(Some("FREQ=DAILY;INTERVAL=2"), None, at), "2026-11-22T22:00:00Z"),
        (spec(Some("FREQ=DAILY;INTERVAL=2"), None, None), "2026-11-23T04:30:15Z"),
        (spec(None, Some("2d"), at), "2026-11-22T22:00:00Z"),
        (spec(None, Some("2d"), None), "2026-11-23T04:30:15Z"),
        (spec(None, Some("90m"), None), "2026-11-21T06:00:15.5Z"),
        (spec(None, Some("4h"), at), "2026-11-21T06:00:00Z"),
    ] {
        let schedule = Schedule::new(&spec, anchor).unwrap();
        assert_eq!(schedule.next_after(anchor), Some(instant(expected)), "{spec:?}");
    }
}

#[test]
fn exact_intervals_keep_their_length_over_a_clock_change_and_days_keep_their_hour() {
    let start = "2025-03-08T12:00:00";
    let after = "2025-03-08T12:00:00-05:00";
    assert_eq!(
        next(&every("24h", "America/New_York", start), after, 1),
        ["2025-03-09T13:00:00-04:00"]
    );
    assert_eq!(
        next(&every("1d", "America/New_York", start), after, 1),
        ["2025-03-09T12:00:00-04:00"]
    );
}

#[test]
fn a_start_long_ago_costs_nothing() {
    let long_ago = "1926-01-31T09:00:00";
    for spec in [
        rrule("FREQ=DAILY", "Europe/Berlin", long_ago),
        rrule("FREQ=WEEKLY;INTERVAL=3;BYDAY=MO,TH", "Europe/Berlin", long_ago),
        rrule("FREQ=DAILY;COUNT=10000", "Europe/Berlin", "2006-01-31T09:00:00"),
        every("30s", "Europe/Berlin", long_ago),
        every("1mo", "Europe/Berlin", long_ago),
    ] {
        let schedule = Schedule::new(&spec, Timestamp::UNIX_EPOCH).unwrap();
        let now = instant("2026-11-21T10:00:00Z");
        let begin = Instant::now();
        for _ in 0..1000 {
            assert!(schedule.next_after(now) > Some(now));
        }
        // A walk through a hundred years would take minutes. Generous, for a busy machine.
        assert!(begin.elapsed() < Duration::from_secs(1), "{spec:?}");
    }
}

#[test]
fn a_specification_goes_through_json_as_users_write_it() {
    let text = r#"{"rrule":"FREQ=MONTHLY;BYMONTHDAY=-1","at":"17:00","time_zone":"America/New_York",
        "start":"2026-01-01","end":"2026-12-31","exdates":["2026-02-28T17:00"],"month_end":"strict"}"#;
    let spec: ScheduleSpec = serde_json::from_str(text).unwrap();
    assert_eq!(spec.start, Some(civil::date(2026, 1, 1).at(0, 0, 0, 0)));
    // The last day is in.
    let got = next(&spec, "2026-01-01T00:00:00Z", 20);
    assert_eq!(got.first().map(String::as_str), Some("2026-01-31T17:00:00-05:00"));
    assert_eq!(got.get(1).map(String::as_str), Some("2026-03-31T17:00:00-04:00"));
    assert_eq!(got.last().map(String::as_str), Some("2026-12-31T17:00:00-05:00"));
    let again: ScheduleSpec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
    assert_eq!(again, spec);
    for wrong in [
        r#"{"start":"2026-01-01T00:00:00Z"}"#,
        r#"{"end":"soon"}"#,
        r#"{"start":"2026-02-30"}"#,
    ] {
        let error = serde_json::from_str::<ScheduleSpec>(wrong)
            .expect_err(wrong)
            .to_string();
        assert!(error.contains("2026-01-31"), "{error}");
    }
}

#[test]
fn a_calendars_export_is_imported() {
    let block = "DTSTART;TZID=Europe/Berlin:20250131T090000\nRRULE:FREQ=MONTHLY;COUNT=3\nEXDATE;TZID=Europe/Berlin:20250331T090000\n";
    let spec = ScheduleSpec::from_icalendar(block, "UTC").unwrap();
    let got = next(&spec, "2025-01-01T00:00:00Z", 9);
    assert_eq!(got, ["2025-01-31T09:00:00+01:00", "2025-05-31T09:00:00+02:00"]);
}

#[test]
fn the_named_fields_are_all_that_there_are() {
    let spec = ScheduleSpec {
        cron: Some(String::new()),
        rrule: Some(String::new()),
        every: Some(String::new()),
        at: Some(jiff::civil::time(9, 0, 0, 0)),
        time_zone: "UTC".to_owned(),
        start: Some(jiff::civil::datetime(2026, 1, 1, 0, 0, 0, 0)),
        end: Some(jiff::civil::datetime(2026, 1, 1, 0, 0, 0, 0)),
        exdates: vec![jiff::civil::datetime(2026, 1, 1, 0, 0, 0, 0)],
        rdates: vec![jiff::civil::datetime(2026, 1, 1, 0, 0, 0, 0)],
        month_end: Some(todo_recurrence::MonthEnd::Clamp),
    };
    let repeat = todo_recurrence::RepeatSpec {
        cron: spec.cron.clone(),
        rrule: spec.rrule.clone(),
        every: spec.every.clone(),
        mode: todo_recurrence::RepeatMode::FromDue,
        month_end: spec.month_end,
    };
    assert_eq!(names(&spec), sorted(ScheduleSpec::FIELDS));
    assert_eq!(names(&repeat), sorted(todo_recurrence::RepeatSpec::FIELDS));
}

/// The names that a value is written with, sorted.
fn names(value: &impl serde::Serialize) -> Vec<String> {
    let value = serde_json::to_value(value).unwrap();
    sorted(
        &value
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    )
}

fn sorted(names: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    names.sort();
    names
}
