//! The time policy, case by case. The T numbers are those of public bug reports, and of the ids in `tests/vectors`.

use jiff::{Timestamp, civil};
use todo_recurrence::{Cron, Error, MonthEnd, Rrule, Schedule, ScheduleSpec, zone};

use crate::{cron, every, instant, next, rrule, time_zone};

const NEW_YORK: &str = "America/New_York";

#[test]
fn t1_a_daily_task_in_a_gap_fires_at_the_first_instant_after_it() {
    let got = next(&cron("30 2 * * *", NEW_YORK), "2025-03-08T23:00:00-05:00", 2);
    assert_eq!(got, ["2025-03-09T03:00:00-04:00", "2025-03-10T02:30:00-04:00"]);
}

#[test]
fn t3_t4_two_times_that_meet_after_a_gap_are_one_occurrence() {
    let day_before = "2025-03-09T00:00:00-05:00";
    for rule in ["0 2,3 * * *", "0,30 2 * * *"] {
        let got = next(&cron(rule, NEW_YORK), day_before, 2);
        assert_eq!(got[0], "2025-03-09T03:00:00-04:00");
        assert!(got[1].starts_with("2025-03-10"), "{got:?}");
    }
    let got = next(
        &rrule("FREQ=DAILY;BYHOUR=2,3", NEW_YORK, "2025-03-01T00:00:00"),
        day_before,
        2,
    );
    assert_eq!(got, ["2025-03-09T03:00:00-04:00", "2025-03-10T02:00:00-04:00"]);
}

#[test]
fn t5_t8_an_interval_follows_real_time() {
    let got = next(&cron("0 * * * *", NEW_YORK), "2025-03-09T00:30:00-05:00", 3);
    assert_eq!(
        got,
        [
            "2025-03-09T01:00:00-05:00",
            "2025-03-09T03:00:00-04:00",
            "2025-03-09T04:00:00-04:00"
        ]
    );
    let got = next(&cron("*/30 * * * *", NEW_YORK), "2025-11-02T00:45:00-04:00", 5);
    assert_eq!(
        got,
        [
            "01:00:00-04:00",
            "01:30:00-04:00",
            "01:00:00-05:00",
            "01:30:00-05:00",
            "02:00:00-05:00"
        ]
        .map(|time| format!("2025-11-02T{time}"))
    );
}

#[test]
fn t9_asked_in_the_second_pass_a_fixed_time_has_fired_already() {
    let berlin = "Europe/Berlin";
    assert_eq!(
        next(&cron("0 2 * * 0", berlin), "2024-10-27T01:30:00Z", 1),
        ["2024-11-03T02:00:00+01:00"]
    );
    assert_eq!(
        next(&cron("45 2 * * 0", berlin), "2024-10-27T01:30:00Z", 1),
        ["2024-11-03T02:45:00+01:00"]
    );
    let weekly = rrule("FREQ=WEEKLY", berlin, "2024-10-06T02:45:00");
    assert_eq!(next(&weekly, "2024-10-27T01:30:00Z", 1), ["2024-11-03T02:45:00+01:00"]);
}

#[test]
fn t13_a_day_that_a_zone_skipped_does_not_lose_its_occurrence() {
    let got = next(&cron("0 12 * * *", "Pacific/Apia"), "2011-12-29T13:00:00-10:00", 2);
    assert_eq!(got, ["2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"]);
}

#[test]
fn t15_t16_the_31st_is_clamped_and_remembered_or_skipped() {
    let mut monthly = rrule("FREQ=MONTHLY", "UTC", "2025-01-31T09:00:00");
    let clamped = ["2025-02-28", "2025-03-31", "2025-04-30", "2025-05-31"];
    let dates = |spec: &ScheduleSpec| -> Vec<String> {
        next(spec, "2025-01-31T10:00:00Z", 4)
            .iter()
            .map(|at| at[..10].to_owned())
            .collect()
    };
    assert_eq!(dates(&monthly), clamped);
    assert_eq!(dates(&every("1mo", "UTC", "2025-01-31T09:00:00")), clamped);

    let strict = ["2025-03-31", "2025-05-31", "2025-07-31", "2025-08-31"];
    monthly.month_end = Some(MonthEnd::Strict);
    assert_eq!(dates(&monthly), strict);
    // A day that the rule names itself is strict unless asked otherwise.
    let mut named = rrule("FREQ=MONTHLY;BYMONTHDAY=31", "UTC", "2025-01-31T09:00:00");
    assert_eq!(dates(&named), strict);
    named.month_end = Some(MonthEnd::Clamp);
    assert_eq!(dates(&named), clamped);
    let last_of = rrule(
        "FREQ=MONTHLY;BYMONTHDAY=28,29,30,31;BYSETPOS=-1",
        "UTC",
        "2025-01-31T09:00:00",
    );
    assert_eq!(dates(&last_of), clamped);
}

#[test]
fn t18_a_leap_day_is_clamped_or_waits_for_the_next_leap_year() {
    let years = |spec: &ScheduleSpec| -> Vec<String> {
        next(spec, "2024-03-01T00:00:00Z", 4)
            .iter()
            .map(|at| at[..10].to_owned())
            .collect()
    };
    let clamped = ["2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"];
    let strict = ["2028-02-29", "2032-02-29", "2036-02-29", "2040-02-29"];
    for mut yearly in [
        rrule("FREQ=YEARLY", "UTC", "2024-02-29T09:00:00"),
        every("1y", "UTC", "2024-02-29T09:00:00"),
    ] {
        assert_eq!(years(&yearly), clamped);
        yearly.month_end = Some(MonthEnd::Strict);
        assert_eq!(years(&yearly), strict);
    }
}

#[test]
fn t19_a_century_without_a_leap_day_is_crossed() {
    assert_eq!(
        next(&cron("0 0 29 2 *", "UTC"), "2096-03-01T00:00:00Z", 1),
        ["2104-02-29T00:00:00Z".replace('Z', "+00:00")]
    );
}

#[test]
fn t34_an_impossible_rule_is_refused_when_it_is_made() {
    for text in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 31W 2 *", "0 0 * 2 5#5"] {
        let refused = matches!(Cron::parse(text), Err(Error::NeverFires(_)));
        // 29 February can be a fifth Friday.
        assert_eq!(refused, text != "0 0 * 2 5#5", "{text}");
    }
    for text in [
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=DAILY;INTERVAL=7;BYDAY=MO",
        "FREQ=YEARLY;BYWEEKNO=53;BYMONTH=6",
        "FREQ=MONTHLY;BYDAY=MO;BYSETPOS=6",
        "FREQ=DAILY;UNTIL=20200101T000000Z",
    ] {
        let spec = rrule(text, "UTC", "2026-11-22T00:00:00");
        let error = Schedule::new(&spec, Timestamp::UNIX_EPOCH).expect_err(text);
        assert_eq!(error.field, "rrule", "{error}");
        assert!(error.message.contains("never fire"), "{error}");
    }
}

#[test]
fn t35_weekdays_count_from_sunday_and_monday_to_friday_is_one_to_five() {
    let got = next(&cron("0 7 * * 1-5", "UTC"), "2026-11-20T08:00:00Z", 2);
    assert_eq!(got, ["2026-11-23T07:00:00+00:00", "2026-11-24T07:00:00+00:00"]);
    for sunday in ["0", "7", "SUN", "sun", "0,7"] {
        let got = next(&cron(&format!("0 7 * * {sunday}"), "UTC"), "2026-11-20T08:00:00Z", 1);
        assert_eq!(got, ["2026-11-22T07:00:00+00:00"]);
    }
    let got = next(&cron("0 7 * * fri-sun", "UTC"), "2026-11-22T08:00:00Z", 3);
    assert_eq!(got.iter().map(|at| &at[8..10]).collect::<Vec<_>>(), ["27", "28", "29"]);
}

#[test]
fn t36_two_restricted_day_fields_add_up_and_a_star_narrows() {
    let days = |text: &str| -> Vec<String> {
        next(&cron(text, "UTC"), "2026-11-30T12:00:00Z", 4)
            .iter()
            .map(|at| at[5..10].to_owned())
            .collect()
    };
    assert_eq!(days("0 0 13 * 5"), ["12-04", "12-11", "12-13", "12-18"]);
    assert_eq!(days("0 0 */2 * 1"), ["12-07", "12-21", "01-11", "01-25"]);
    assert_eq!(
        days("0 0 13 * */5"),
        ["12-13", "06-13", "08-13", "02-13"].map(str::to_owned).to_vec()
    );
}

#[test]
fn t38_a_date_that_is_added_to_its_own_rule_is_one_occurrence() {
    let mut daily = rrule("FREQ=DAILY;COUNT=2", "UTC", "2026-01-01T09:00:00");
    daily.rdates = vec![
        civil::date(2026, 1, 2).at(9, 0, 0, 0),
        civil::date(2026, 1, 5).at(9, 0, 0, 0),
    ];
    let got = next(&daily, "2026-01-01T00:00:00Z", 9);
    assert_eq!(
        got,
        ["01", "02", "05"].map(|day| format!("2026-01-{day}T09:00:00+00:00"))
    );
}

#[test]
fn t39_until_is_inclusive_in_each_way_of_writing_it() {
    let jerusalem = "Asia/Jerusalem";
    for (until, count) in [
        ("20230819T093000Z", 3),
        ("20230819T092959Z", 2),
        ("20230819T123000", 3),
        ("20230819", 3),
        ("20230818", 2),
    ] {
        let spec = rrule(&format!("FREQ=WEEKLY;UNTIL={until}"), jerusalem, "2023-08-05T12:30:00");
        assert_eq!(next(&spec, "2023-08-01T00:00:00Z", 9).len(), count, "{until}");
    }
}

#[test]
fn t40_a_start_in_a_gap_moves_and_one_in_an_overlap_is_the_first_pass() {
    let got = next(
        &rrule("FREQ=YEARLY", NEW_YORK, "2025-03-09T02:30:00"),
        "2025-03-01T00:00:00Z",
        2,
    );
    assert_eq!(got, ["2025-03-09T03:30:00-04:00", "2026-03-09T02:30:00-04:00"]);
    let got = next(
        &rrule("FREQ=DAILY", NEW_YORK, "2025-11-02T01:30:00"),
        "2025-11-01T00:00:00Z",
        1,
    );
    assert_eq!(got, ["2025-11-02T01:30:00-04:00"]);
}

#[test]
fn t41_zone_data_is_the_bundled_one_and_knows_the_rules_of_2026() {
    let due = civil::date(2026, 12, 1).at(9, 0, 0, 0);
    assert_eq!(
        zone::resolve(due, &time_zone("America/Vancouver")),
        instant("2026-12-01T16:00:00Z")
    );
    assert!(zone::database_version() >= "2026b", "{}", zone::database_version());
}

#[test]
fn a_zone_is_found_in_any_case_and_has_its_canonical_name() {
    for (name, canonical) in [
        ("europe/berlin", "Europe/Berlin"),
        ("AMERICA/NEW_YORK", NEW_YORK),
        ("utc", "UTC"),
    ] {
        assert_eq!(time_zone(name).iana_name(), Some(canonical));
    }
    for name in ["", "Mars/Base", "Etc/Unknown", "+02:00", "Europe/Berlin ", "local"] {
        assert!(zone::time_zone(name).is_err(), "{name:?}");
    }
}

#[test]
fn rules_below_daily_are_for_foreign_rules_only() {
    for text in ["FREQ=HOURLY", "FREQ=MINUTELY;INTERVAL=5", "FREQ=SECONDLY"] {
        let error = Rrule::parse(text).expect_err(text).to_string();
        assert!(error.contains("DAILY, WEEKLY, MONTHLY, YEARLY"), "{error}");
        assert!(Rrule::parse_any_frequency(text).is_ok());
    }
}

#[test]
fn messages_name_the_field_and_what_is_allowed() {
    for (text, wanted) in [
        ("61 * * * *", ["minute", "0-59"]),
        ("0 25 * * *", ["hour", "0-23"]),
        ("0 0 32 * *", ["day-of-month", "1-31"]),
        ("0 0 * 13 *", ["month", "1-12 or JAN-DEC"]),
        ("0 0 * * 8", ["weekday", "0-7"]),
        ("0 22-2 * * *", ["hour", "22-23,0-2"]),
        ("* * *", ["3 fields", "@daily"]),
        ("@often", ["@often", "@hourly"]),
    ] {
        let error = Cron::parse(text).expect_err(text).to_string();
        assert!(wanted.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
    for (text, wanted) in [
        ("FREQ=FORTNIGHTLY", ["FREQ", "WEEKLY"]),
        ("FREQ=DAILY;INTERVAL=0", ["INTERVAL", "1 to"]),
        ("FREQ=DAILY;BYDAY=1MO", ["BYDAY", "MONTHLY or YEARLY"]),
        ("FREQ=DAILY;COUNT=2;UNTIL=20260101", ["COUNT", "UNTIL"]),
        ("FREQ=DAILY;COLOUR=RED", ["COLOUR", "BYSETPOS"]),
        ("FREQ=DAILY;BYHOUR=24", ["BYHOUR", "0 to 23"]),
        ("BYDAY=MO", ["FREQ", "missing"]),
    ] {
        let error = Rrule::parse(text).expect_err(text).to_string();
        assert!(wanted.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
}
