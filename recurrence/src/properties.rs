//! Properties of every rule: occurrences strictly increase, each search is bounded, and no text panics.
//!
//! They are in here rather than in `tests/` for the step counter.

use jiff::{SignedDuration, Timestamp, ToSpan, civil, tz::TimeZone};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{
    Completion, Cron, Every, MonthEnd, Repeat, RepeatMode, RepeatSpec, Rrule, Schedule, ScheduleSpec, parse_end,
    parse_start, steps, zone,
};

/// The steps of one search. A cycle of the calendar has 146,097 days, 4,800 months and about 800 clock changes; twice,
/// for a time in a gap and the one after it.
const MOST_STEPS: u64 = 300_000;

const ZONES: [&str; 10] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Pacific/Apia",
    "America/Havana",
    "Antarctica/Troll",
    "Asia/Kathmandu",
    "Africa/Monrovia",
];

fn joined(items: impl Strategy<Value = String>, most: usize) -> impl Strategy<Value = String> {
    vec(items, 1..=most).prop_map(|items| items.join(","))
}

/// A list of values, ranges and steps; mostly what a field allows.
fn cron_field(min: u32, max: u32) -> impl Strategy<Value = String> {
    let value = min..=max;
    let item = prop_oneof![
        3 => Just("*".to_owned()),
        3 => value.clone().prop_map(|value| value.to_string()),
        1 => (value.clone(), value.clone()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (value.clone(), 1..=max + 1).prop_map(|(a, step)| format!("{a}/{step}")),
        1 => (1..=max).prop_map(|step| format!("*/{step}")),
        1 => (value, 0..99_u32).prop_map(|(a, b)| format!("{a}-{b}")),
    ];
    joined(item, 3)
}

fn cron() -> impl Strategy<Value = String> {
    let date = prop_oneof![
        6 => cron_field(1, 31),
        1 => select(vec!["?", "L", "LW", "L-3", "15W", "1W,L", "31W", "29", "30"]).prop_map(str::to_owned),
    ];
    let month = prop_oneof![6 => cron_field(1, 12), 1 => select(vec!["FEB", "jan-mar", "2"]).prop_map(str::to_owned)];
    let weekday = prop_oneof![
        6 => cron_field(0, 7),
        1 => select(vec!["?", "5L", "MON#1", "2#5", "fri-sun", "7L,1#2"]).prop_map(str::to_owned),
    ];
    let time = prop_oneof![
        (cron_field(0, 59), cron_field(0, 23)).prop_map(|(minute, hour)| format!("{minute} {hour}")),
        (cron_field(0, 59), cron_field(0, 59), cron_field(0, 23)).prop_map(|(s, m, h)| format!("{s} {m} {h}")),
    ];
    (time, date, month, weekday).prop_map(|(time, date, month, weekday)| format!("{time} {date} {month} {weekday}"))
}

fn rrule() -> impl Strategy<Value = String> {
    fn numbers(name: &'static str, low: i32, high: i32) -> impl Strategy<Value = Option<String>> {
        let list = joined((low..=high).prop_map(|number| number.to_string()), 4);
        option::weighted(0.3, list.prop_map(move |list| format!("{name}={list}")))
    }
    let frequency = select(vec![
        "YEARLY", "YEARLY", "MONTHLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY",
    ]);
    let weekdays = select(vec![
        "MO",
        "TU,TH",
        "SA,SU",
        "1MO",
        "-1FR",
        "5WE",
        "53SU",
        "MO,TU,WE,TH,FR",
        "-53MO,2TU",
    ]);
    let end = select(vec![
        "COUNT=1",
        "COUNT=7",
        "COUNT=500",
        "UNTIL=20300101",
        "UNTIL=20250309T070000Z",
        "UNTIL=99991231",
    ]);
    let interval = prop_oneof![1..4_i32, 1..1_000_000_i32].prop_map(|number| format!("INTERVAL={number}"));
    let parts = (
        frequency.prop_map(|name| format!("FREQ={name}")),
        (option::of(interval), option::weighted(0.3, end.prop_map(str::to_owned))),
        option::weighted(0.3, weekdays.prop_map(|days| format!("BYDAY={days}"))),
        (
            numbers("BYMONTH", 1, 12),
            numbers("BYMONTHDAY", -31, 31),
            numbers("BYYEARDAY", -366, 366),
            numbers("BYWEEKNO", -53, 53),
        ),
        (
            numbers("BYHOUR", 0, 23),
            numbers("BYMINUTE", 0, 59),
            numbers("BYSECOND", 0, 60),
        ),
        numbers("BYSETPOS", -3, 3),
        option::weighted(0.2, select(vec!["WKST=SU", "WKST=TH"]).prop_map(str::to_owned)),
    );
    parts.prop_map(
        |(frequency, (interval, end), weekdays, days, times, positions, week_start)| {
            let rest = [
                interval, end, weekdays, days.0, days.1, days.2, days.3, times.0, times.1, times.2, positions,
                week_start,
            ];
            std::iter::once(frequency)
                .chain(rest.into_iter().flatten())
                .collect::<Vec<_>>()
                .join(";")
        },
    )
}

fn every() -> impl Strategy<Value = String> {
    (
        prop_oneof![1..100_u32, 0..u32::MAX],
        select(vec!["s", "m", "h", "d", "w", "mo", "y"]),
    )
        .prop_map(|(n, unit)| format!("{n}{unit}"))
}

/// Mostly near a clock change of our years, sometimes anywhere that jiff can express.
fn instant() -> impl Strategy<Value = Timestamp> {
    let anywhere = (Timestamp::MIN.as_nanosecond()..=Timestamp::MAX.as_nanosecond())
        .prop_map(|nanos| Timestamp::from_nanosecond(nanos).expect("in range"));
    let near_change = (1_262_304_000_i64..2_840_140_800, 0..1_000_000_000_i32)
        .prop_map(|(second, nanos)| Timestamp::new(second, nanos).expect("in range"));
    let edge = select(vec![Timestamp::MIN, Timestamp::MAX, Timestamp::UNIX_EPOCH]);
    prop_oneof![8 => near_change, 1 => anywhere, 1 => edge]
}

/// Moves an instant to a few hours around the next clock change.
fn around_change(zone: &TimeZone, at: Timestamp, seconds: i64) -> Timestamp {
    let change = zone.following(at).next().map_or(at, |change| change.timestamp());
    change.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(at)
}

fn civil_time() -> impl Strategy<Value = civil::DateTime> {
    let any_year = prop_oneof![8 => 1990..2060_i16, 1 => -9999..=9999_i16];
    (any_year, 1..=12_i8, 1..=31_i8, 0..24_i8, 0..60_i8)
        .prop_filter_map("a date that exists", |(year, month, day, hour, minute)| {
            civil::DateTime::new(year, month, day, hour, minute, 0, 0).ok()
        })
}

fn month_end() -> impl Strategy<Value = Option<MonthEnd>> {
    select(vec![None, Some(MonthEnd::Clamp), Some(MonthEnd::Strict)])
}

fn spec() -> impl Strategy<Value = ScheduleSpec> {
    let rule = prop_oneof![
        cron().prop_map(|text| (Some(text), None, None)),
        rrule().prop_map(|text| (None, Some(text), None)),
        every().prop_map(|text| (None, None, Some(text))),
    ];
    let bounds = (option::of(civil_time()), option::weighted(0.2, civil_time()));
    let at = option::weighted(0.2, civil_time().prop_map(civil::DateTime::time));
    let dates = || vec(civil_time(), 0..3);
    (rule, select(&ZONES[..]), bounds, at, dates(), dates(), month_end()).prop_map(
        |((cron, rrule, every), time_zone, (start, end), at, exdates, rdates, month_end)| ScheduleSpec {
            at: at.filter(|_| cron.is_none()),
            cron,
            rrule,
            every,
            time_zone: time_zone.to_owned(),
            start,
            end,
            exdates,
            rdates,
            month_end,
        },
    )
}

/// The search that a test counts, held to the bound.
fn bounded<T>(what: &impl std::fmt::Debug, search: impl FnOnce() -> T) -> Result<T, TestCaseError> {
    let (found, steps) = steps::counted(search);
    prop_assert!(steps <= MOST_STEPS, "{steps} steps for {what:?}");
    Ok(found)
}

fn strictly_increases(schedule: &Schedule, what: &impl std::fmt::Debug, from: Timestamp) -> Result<(), TestCaseError> {
    let mut after = from;
    for _ in 0..6 {
        let Some(next) = bounded(what, || schedule.next_after(after))? else {
            return Ok(());
        };
        prop_assert!(next > after, "{next} is not after {after}");
        let just_before = next.checked_sub(1.nanosecond()).expect("later than another instant");
        prop_assert_eq!(schedule.next_after(just_before), Some(next), "asked just before");
        // Asked from anywhere in between, the answer is the same.
        let between = Timestamp::from_nanosecond(i128::midpoint(after.as_nanosecond(), just_before.as_nanosecond()));
        prop_assert_eq!(
            schedule.next_after(between.expect("between two instants")),
            Some(next),
            "asked in between"
        );
        after = next;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, max_shrink_iters: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn occurrences_strictly_increase_in_a_bounded_number_of_steps(
        spec in spec(), anchor in instant(), from in instant(), seconds in -100_000..100_000_i64,
    ) {
        let schedule = steps::counted(|| Schedule::with_any_frequency(&spec, anchor)).0;
        if let Ok(schedule) = schedule {
            strictly_increases(&schedule, &spec, from)?;
            strictly_increases(&schedule, &spec, around_change(schedule.time_zone(), from, seconds))?;
        }
    }

    #[test]
    fn making_a_schedule_is_bounded_too(spec in spec(), anchor in instant()) {
        // A COUNT is counted once, when the schedule is made: 500 searches at most here.
        let limit = MOST_STEPS + if spec.rrule.as_ref().is_some_and(|rule| rule.contains("COUNT")) { 500 * 146_097 } else { 0 };
        let (_, steps) = steps::counted(|| Schedule::with_any_frequency(&spec, anchor));
        prop_assert!(steps <= limit, "{steps} steps for {spec:?}");
    }

    #[test]
    fn the_next_due_date_is_after_the_current_one(
        rule in spec(), mode in select(vec![RepeatMode::FromDue, RepeatMode::FromCompletion]),
        due in option::of(civil_time()), series_start in option::of(civil_time()), completed_at in instant(),
    ) {
        let ScheduleSpec { cron, rrule, every, month_end, time_zone, .. } = rule;
        let spec = RepeatSpec { cron, rrule, every, mode, month_end };
        let zone = zone::time_zone(&time_zone).expect("a zone of the list");
        if let Ok(repeat) = Repeat::new(&spec) {
            let completion = Completion { due, series_start, zone: &zone, completed_at };
            if let Some(next) = repeat.next_due(&completion) {
                prop_assert!(due.is_none_or(|due| next > due), "{next} is not after {due:?}");
                if mode == RepeatMode::FromDue {
                    let at = zone::resolve(next, &zone);
                    let shown_twice = zone.to_ambiguous_timestamp(next).is_ambiguous();
                    prop_assert!(at > completed_at || shown_twice, "{next} is over by {completed_at}");
                }
            }
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}", zone in "\\PC{0,12}") {
        let _ = (Cron::parse(&text), Rrule::parse_any_frequency(&text), text.parse::<Every>());
        let _ = (zone::time_zone(&zone), parse_start(&text), parse_end(&text), ScheduleSpec::from_icalendar(&text, &zone));
    }

    #[test]
    fn no_text_that_looks_like_a_rule_panics(
        cron in "[-0-9*/,LW#?A-Za-z@ ]{0,12}( [-0-9*/,LW#?a-z]{1,4}){4,5}",
        rrule in "(FREQ=(DAILY|YEARLY|HOURLY|X);)?([A-Z]{2,10}=[-+0-9A-Z,é]{0,9};){0,5}",
        line in "(DTSTART|RRULE|EXDATE|RDATE)(;TZID=[A-Za-z/]{0,9})?:[0-9TZ,]{0,33}\\PC{0,3}\n( ?RRULE:FREQ=DAILY)?",
        every in "[0-9]{0,12}[smhdwoyé]{0,3}",
    ) {
        let _ = (Cron::parse(&cron), Rrule::parse_any_frequency(&rrule), every.parse::<Every>());
        let _ = ScheduleSpec::from_icalendar(&line, "UTC");
        for (cron, rrule, every) in [(Some(cron), None, None), (None, Some(rrule), None), (None, None, Some(every))] {
            let spec = ScheduleSpec { cron, rrule, every, time_zone: "UTC".to_owned(), ..ScheduleSpec::default() };
            if let Ok(schedule) = Schedule::with_any_frequency(&spec, Timestamp::UNIX_EPOCH) {
                strictly_increases(&schedule, &spec, Timestamp::UNIX_EPOCH)?;
            }
        }
    }

    #[test]
    fn a_cron_expression_reads_back_as_itself(text in cron()) {
        if let Ok(cron) = Cron::parse(&text) {
            prop_assert_eq!(Cron::parse(cron.as_str()), Ok(cron));
        }
    }
}
