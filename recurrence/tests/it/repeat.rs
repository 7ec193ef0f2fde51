//! A task that comes back: its next due date. The T numbers are those of public bug reports.

use jiff::civil::DateTime;
use todo_recurrence::{Completion, MonthEnd, Repeat, RepeatMode, RepeatSpec};

use crate::{instant, time_zone};

fn spec(rule: &str, mode: RepeatMode) -> RepeatSpec {
    let text = Some(rule.to_owned());
    let spec = RepeatSpec {
        mode,
        ..RepeatSpec::default()
    };
    match rule {
        rule if rule.contains('=') => RepeatSpec { rrule: text, ..spec },
        rule if rule.contains(' ') => RepeatSpec { cron: text, ..spec },
        _ => RepeatSpec { every: text, ..spec },
    }
}

fn from_due(rule: &str) -> Repeat {
    Repeat::new(&spec(rule, RepeatMode::FromDue)).unwrap()
}

fn from_completion(rule: &str) -> Repeat {
    Repeat::new(&spec(rule, RepeatMode::FromCompletion)).unwrap()
}

/// Due dates are in New York unless they say otherwise.
fn next(repeat: &Repeat, due: &str, series_start: &str, completed_at: &str) -> Option<String> {
    next_in("America/New_York", repeat, due, series_start, completed_at)
}

fn next_in(zone: &str, repeat: &Repeat, due: &str, series_start: &str, completed_at: &str) -> Option<String> {
    let civil = |text: &str| -> Option<DateTime> { text.parse().ok() };
    let zone = time_zone(zone);
    let (due, series_start) = (civil(due), civil(series_start));
    let next = repeat.next_due(&Completion {
        due,
        series_start,
        zone: &zone,
        completed_at: instant(completed_at),
    })?;
    assert!(Some(next) != due, "the next due date is the current one");
    Some(next.to_string())
}

#[test]
fn t15_the_31st_is_remembered_through_shorter_months() {
    for repeat in [from_due("1mo"), from_due("FREQ=MONTHLY")] {
        let mut due = "2025-01-31T09:00:00".to_owned();
        for expected in ["2025-02-28", "2025-03-31", "2025-04-30", "2025-05-31"] {
            due = next(
                &repeat,
                &due,
                "2025-01-31T09:00:00",
                &format!("{}T08:00:00-05:00", &due[..10]),
            )
            .unwrap();
            assert_eq!(due, format!("{expected}T09:00:00"));
        }
    }
}

#[test]
fn t16_a_strict_month_end_is_skipped() {
    for rule in ["1mo", "FREQ=MONTHLY"] {
        let strict = RepeatSpec {
            month_end: Some(MonthEnd::Strict),
            ..spec(rule, RepeatMode::FromDue)
        };
        let got = next(
            &Repeat::new(&strict).unwrap(),
            "2025-01-31T09:00:00",
            "2025-01-31T09:00:00",
            "2025-01-31T13:00:00Z",
        );
        assert_eq!(got.as_deref(), Some("2025-03-31T09:00:00"));
    }
}

#[test]
fn t17_months_from_completion_clamp_to_the_month_they_reach() {
    for (rule, completed_at, expected) in [
        ("3mo", "2025-11-29T12:00:00-05:00", "2026-02-28T09:00:00"),
        (
            "FREQ=MONTHLY;INTERVAL=3",
            "2025-11-29T12:00:00-05:00",
            "2026-02-28T09:00:00",
        ),
        ("1mo", "2025-09-10T12:00:00-04:00", "2025-10-10T09:00:00"),
    ] {
        let got = next(
            &from_completion(rule),
            "2025-08-30T09:00:00",
            "2025-08-30T09:00:00",
            completed_at,
        );
        assert_eq!(got.as_deref(), Some(expected), "{rule}");
    }
}

#[test]
fn t18_a_leap_day_comes_back() {
    let got = next(
        &from_due("1y"),
        "2027-02-28T09:00:00",
        "2024-02-29T09:00:00",
        "2027-02-28T09:30:00-05:00",
    );
    assert_eq!(got.as_deref(), Some("2028-02-29T09:00:00"));
}

#[test]
fn t20_completed_early_the_next_is_still_after_the_current() {
    let (due, early) = ("2022-05-20T09:00:00", "2022-05-17T12:00:00-04:00");
    for repeat in [
        from_due("1d"),
        from_completion("1d"),
        from_due("FREQ=DAILY"),
        from_completion("FREQ=DAILY"),
        from_due("0 9 * * *"),
    ] {
        assert_eq!(
            next(&repeat, due, due, early).as_deref(),
            Some("2022-05-21T09:00:00"),
            "{repeat:?}"
        );
    }
    assert_eq!(
        next(&from_completion("1w"), due, due, early).as_deref(),
        Some("2022-05-24T09:00:00")
    );
}

#[test]
fn t21_completed_late_the_first_that_is_still_to_come() {
    let due = "2025-08-01T08:00:00";
    for repeat in [from_due("1d"), from_due("FREQ=DAILY"), from_due("0 8 * * *")] {
        let got = |completed_at| next(&repeat, due, due, completed_at);
        assert_eq!(got("2025-08-09T07:45:00-04:00").as_deref(), Some("2025-08-09T08:00:00"));
        assert_eq!(got("2025-08-09T08:00:00-04:00").as_deref(), Some("2025-08-10T08:00:00"));
    }
    // From completion it is a day later, whatever the hour.
    let got = next(&from_completion("1d"), due, due, "2025-08-09T07:45:00-04:00");
    assert_eq!(got.as_deref(), Some("2025-08-10T08:00:00"));
}

#[test]
fn t22_days_are_counted_on_the_calendar_over_a_clock_change() {
    for repeat in [from_due("1d"), from_completion("1d"), from_due("FREQ=DAILY")] {
        let due = "2022-09-24T00:00:00";
        let got = next_in("Pacific/Auckland", &repeat, due, due, "2022-09-24T15:00:00+12:00");
        assert_eq!(got.as_deref(), Some("2022-09-25T00:00:00"));
    }
}

#[test]
fn t23_the_day_of_completion_is_that_of_the_tasks_zone() {
    // 00:10 on the 6th in New York is already the 6th in UTC, 23:10 on the 5th is the 6th there too.
    for (completed_at, expected) in [
        ("2025-01-06T05:10:00Z", "2025-01-07"),
        ("2025-01-06T04:10:00Z", "2025-01-06"),
    ] {
        let got = next(
            &from_completion("1d"),
            "2025-01-04T00:00:00",
            "2025-01-04T00:00:00",
            completed_at,
        );
        assert_eq!(got, Some(format!("{expected}T00:00:00")));
    }
}

#[test]
fn t25_without_a_due_date_the_completion_is_the_beginning() {
    for repeat in [from_due("1w"), from_completion("1w"), from_due("FREQ=WEEKLY")] {
        let got = next(&repeat, "", "", "2025-01-06T10:20:30.5-05:00");
        assert_eq!(got.as_deref(), Some("2025-01-13T10:20:30"));
    }
}

#[test]
fn a_series_ends_with_its_count_or_its_until() {
    let start = "2025-01-01T09:00:00";
    let counted = from_due("FREQ=DAILY;COUNT=3");
    assert_eq!(
        next(&counted, "2025-01-02T09:00:00", start, "2025-01-02T13:00:00Z").as_deref(),
        Some("2025-01-03T09:00:00")
    );
    assert_eq!(
        next(&counted, "2025-01-03T09:00:00", start, "2025-01-03T13:00:00Z"),
        None
    );
    let until = from_due("FREQ=DAILY;UNTIL=20250102T140000Z");
    assert_eq!(
        next(&until, start, start, "2025-01-01T13:00:00Z").as_deref(),
        Some("2025-01-02T09:00:00")
    );
    assert_eq!(next(&until, "2025-01-02T09:00:00", start, "2025-01-02T13:00:00Z"), None);
}

#[test]
fn hours_are_real_hours_and_the_clock_always_moves_on() {
    let due = "2025-11-02T01:30:00";
    let got = next(&from_due("30m"), due, due, "2025-11-02T01:30:00-04:00");
    assert_eq!(got.as_deref(), Some("2025-11-02T02:00:00"));
    let got = next(&from_completion("2h"), due, due, "2025-11-02T12:15:00-05:00");
    assert_eq!(got.as_deref(), Some("2025-11-02T14:15:00"));
    let got = next(&from_due("*/30 * * * *"), due, due, "2025-11-02T01:40:00-04:00");
    assert_eq!(got.as_deref(), Some("2025-11-02T02:00:00"));
}

#[test]
fn what_cannot_repeat_is_refused_with_its_field() {
    let refused = |spec: RepeatSpec| Repeat::new(&spec).expect_err("a wrong specification").field;
    assert_eq!(refused(RepeatSpec::default()), "cron");
    assert_eq!(
        refused(RepeatSpec {
            cron: Some("0 9 * * *".to_owned()),
            ..spec("1d", RepeatMode::FromDue)
        }),
        "every"
    );
    assert_eq!(refused(spec("FREQ=DAILY;COUNT=3", RepeatMode::FromCompletion)), "mode");
    assert_eq!(
        refused(spec("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", RepeatMode::FromDue)),
        "rrule"
    );
    assert_eq!(refused(spec("0 0 30 2 *", RepeatMode::FromDue)), "cron");
    assert_eq!(refused(spec("1fortnight", RepeatMode::FromDue)), "every");
}

#[test]
fn a_specification_goes_through_json() {
    let spec: RepeatSpec =
        serde_json::from_str(r#"{"every":"1mo","mode":"from_completion","month_end":"clamp"}"#).unwrap();
    assert_eq!(spec.mode, RepeatMode::FromCompletion);
    assert_eq!(
        serde_json::from_str::<RepeatSpec>(&serde_json::to_string(&spec).unwrap()).unwrap(),
        spec
    );
    let spec: RepeatSpec = serde_json::from_str(r#"{"cron":"0 9 * * *"}"#).unwrap();
    assert_eq!(spec.mode, RepeatMode::FromDue);
}
