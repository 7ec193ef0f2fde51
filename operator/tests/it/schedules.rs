//! Every field of a schedule does something: changing it alone changes what its platform is told, or the status.
//!
//! The fields come from the CRD's own schema, so that one that is added and forgotten here fails. What they are changed to
//! is as valid as what they were, so that it is no refusal that shows.

use jiff::Timestamp;
use serde_json::{Value, json};
use todo_crds::RecurringSchedule;
use todo_operator::schedule::status::{Outcome, status};

use crate::schema::{another, leaves};

/// Specs that have every field between them.
fn specs() -> Vec<Value> {
    let with = |rule: Value, when: Value| {
        let mut spec = json!({
            "platformRef": {"name": "home"},
            "user": "ada",
            "schedule": rule,
            "timeZone": "Europe/Berlin",
            "suspend": true,
            "overlap": "Skip",
            "catchUp": {"policy": "Latest", "window": "2d", "max": 7},
            "template": {
                "title": "Pay the rent",
                "description": "By transfer",
                "category": "home",
                "tags": ["money"],
                "priority": "high",
                "dueIn": "8h",
                "reminders": [{"before": "30m"}],
            },
        });
        spec.as_object_mut().unwrap().extend(when.as_object().unwrap().clone());
        spec
    };
    let when = json!({"at": "17:00", "start": "2026-01-31", "end": "2027-01-31", "monthEnd": "Strict"});
    vec![
        with(json!({"rrule": "FREQ=MONTHLY;BYMONTHDAY=31"}), when),
        with(json!({"cron": "0 9 * * 1"}), json!({})),
        with(json!({"every": "2w"}), json!({})),
    ]
}

/// Where another value is not made by changing a letter or a digit.
fn other(path: &str, value: &Value, schema: &Value) -> Value {
    let other = match path {
        "/schedule/rrule" => "FREQ=MONTHLY;BYMONTHDAY=30",
        "/schedule/cron" => "0 9 * * 2",
        "/schedule/every" => "3w",
        "/at" => "17:01",
        "/timeZone" => "America/New_York",
        "/start" => "2026-03-31",
        "/end" => "2028-01-31",
        _ => return another(value, schema),
    };
    other.into()
}

fn schedule(spec: &Value) -> RecurringSchedule {
    serde_json::from_value(json!({
        "apiVersion": "todoplatform.dev/v1alpha1",
        "kind": "RecurringSchedule",
        "metadata": {"name": "rent", "namespace": "todo", "uid": "0b6c9a52-3d5e-4b6f-8a11-2f3f61f1a6c1"},
        "spec": spec,
    }))
    .unwrap()
}

/// What follows from a spec. Its hash alone is no effect.
fn effects(spec: &Value) -> (Value, Value) {
    let schedule = schedule(spec);
    assert_eq!(schedule.validate(), [], "{spec:#}");
    let declared = schedule.declared(&schedule.spec.platform_ref.name).unwrap();
    let mut declared = serde_json::to_value(declared).unwrap();
    assert!(declared["hash"].take().is_string());
    let (said, _) = status(&schedule, &Outcome::NoPlatform, Timestamp::UNIX_EPOCH);
    (declared, serde_json::to_value(said).unwrap())
}

#[test]
fn every_field_changes_what_its_platform_is_told_or_the_status() {
    let specs = specs();
    for (path, schema) in leaves("recurringschedules") {
        let pointer = path.replace("/*", "/0");
        let base = specs.iter().find(|spec| spec.pointer(&pointer).is_some());
        let base = base.unwrap_or_else(|| panic!("{path} is in none of the specs"));
        let mut changed = base.clone();
        let value = changed.pointer_mut(&pointer).unwrap();
        *value = other(&path, value, &schema);
        assert_ne!(effects(base), effects(&changed), "changing {path} changes nothing");
    }
}
