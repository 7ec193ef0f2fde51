//! The conformance vectors of `tests/vectors`, all of them.

use std::{fs, path::Path};

use jiff::{Timestamp, ToSpan};
use serde_json::Value;
use todo_recurrence::{MonthEnd, Schedule, ScheduleSpec, zone};

fn vectors(file: &str, at_least: usize) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(file);
    let text = fs::read_to_string(path).unwrap();
    let vectors: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(vectors.len() >= at_least, "{file} holds {} vectors", vectors.len());
    vectors
}

fn ask(vector: &Value, count: usize) -> Result<Vec<Timestamp>, String> {
    let text = |field: &str| vector[field].as_str().map(str::to_owned);
    let time_zone = text("tz").unwrap_or("UTC".to_owned());
    let zone = zone::time_zone(&time_zone).map_err(|error| error.to_string())?;
    let start = text("dtstart").map(|start| match start.parse::<Timestamp>() {
        Ok(instant) => zone.to_datetime(instant),
        Err(_) => start.parse().unwrap(),
    });
    let after = match (text("from"), start) {
        (Some(from), _) => from.parse().unwrap(),
        (None, Some(start)) => zone::resolve(start, &zone).checked_sub(1.nanosecond()).unwrap(),
        (None, None) => Timestamp::UNIX_EPOCH,
    };
    let spec = ScheduleSpec {
        cron: text("expr"),
        rrule: text("rrule"),
        time_zone,
        start,
        month_end: Some(MonthEnd::Strict),
        ..ScheduleSpec::default()
    };
    let schedule = Schedule::with_any_frequency(&spec, after).map_err(|error| error.to_string())?;
    Ok(schedule.after(after).take(count).collect())
}

fn run(file: &str, at_least: usize) {
    for vector in vectors(file, at_least) {
        let expected: Vec<Timestamp> = vector["expect"]
            .as_array()
            .unwrap()
            .iter()
            .map(|at| at.as_str().unwrap().parse().unwrap())
            .collect();
        // A series that ends is asked for one more than it has.
        let count = expected.len() + usize::from(vector["ends"] == true);
        match ask(&vector, count) {
            Ok(got) => assert_eq!(got, expected, "{vector}"),
            // A rule that can never fire may be refused.
            Err(error) => assert!(expected.is_empty(), "{vector}: {error}"),
        }
    }
}

#[test]
fn cron_expressions_give_the_expected_instants() {
    run("cron.jsonl", 1331);
}

#[test]
fn clock_changes_give_the_expected_instants() {
    run("dst.jsonl", 401);
}

#[test]
fn recurrence_rules_give_the_expected_instants() {
    run("rrule.jsonl", 181);
}

#[test]
fn what_is_no_cron_expression_is_refused() {
    for vector in vectors("cron_invalid.jsonl", 350) {
        assert!(ask(&vector, 1).is_err(), "{vector}");
    }
}
