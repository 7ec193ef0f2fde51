//! What a platform is told of a schedule.

use serde_json::json;
use todo_crds::{RecurringSchedule, RecurringScheduleSpec};

fn schedule(spec: &str) -> RecurringSchedule {
    let spec: RecurringScheduleSpec = serde_json::from_str(spec).unwrap();
    RecurringSchedule::new("rent", spec)
}

const EVERYTHING: &str = r#"{
    "platformRef": {"name": "home"}, "user": "ada", "schedule": {"every": "2w"}, "at": "17:00",
    "timeZone": "Europe/Berlin", "start": "2026-01-31", "end": "2027-01-31", "monthEnd": "Strict", "suspend": true,
    "overlap": "Skip", "catchUp": {"policy": "Latest", "window": "2d", "max": 7},
    "template": {"title": "Pay", "description": "it", "category": "home", "tags": ["money"], "priority": "high",
        "dueIn": "8h", "reminders": [{"before": "30m"}]}
}"#;

const LEAST: &str = r#"{
    "platformRef": {"name": "home"}, "user": "ada", "schedule": {"cron": "0 9 1 * *"}, "template": {"title": "Pay"}
}"#;

#[test]
fn every_field_is_told_in_the_words_of_the_platform() {
    let mut schedule = schedule(EVERYTHING);
    schedule.metadata.namespace = Some("team".to_owned());
    let mut told = serde_json::to_value(schedule.declared("home").unwrap()).unwrap();
    let hash = told["hash"].take();
    assert_eq!(hash.as_str().unwrap().len(), 64);
    let expected = json!({
        "origin": "team/rent",
        "adopt": [
            schedule.manifest_key("home"),
            "manifest/home/7a1fe002-4618-58df-b294-4999dd83d9ed",
        ],
        "hash": null,
        "user": "ada",
        "name": "rent",
        "schedule": {"every": "2w", "at": "17:00:00", "time_zone": "Europe/Berlin", "start": "2026-01-31T00:00:00",
            "end": "2027-01-31T23:59:59", "month_end": "strict"},
        "template": {"title": "Pay", "description": "it", "priority": "high", "category": "home", "tags": ["money"],
            "due_in": "8h", "reminders": [{"before": "30m"}]},
        "overlap": "skip",
        "catch_up": {"policy": "latest", "window": "2d", "max": 7},
        "suspended": true,
    });
    assert_eq!(told, expected);
}

#[test]
fn the_keys_to_adopt_are_those_of_a_manifest_with_and_without_the_namespace() {
    let on_a_machine = schedule(LEAST);
    let mut in_a_namespace = schedule(LEAST);
    in_a_namespace.metadata.namespace = Some("team".to_owned());
    let keys = [&in_a_namespace, &on_a_machine].map(|schedule| schedule.manifest_key("home"));
    assert_ne!(keys[0], keys[1]);

    let mut on_a_cluster = in_a_namespace.clone();
    on_a_cluster.metadata.uid = Some("0b6c9a52-3d5e-4b6f-8a11-2f3f61f1a6c1".to_owned());
    assert_eq!(on_a_cluster.declared("home").unwrap().adopt, keys);
    on_a_cluster.metadata.namespace = Some("default".to_owned());
    assert_eq!(on_a_cluster.declared("home").unwrap().adopt, keys[1..]);
    assert_eq!(
        on_a_cluster.declared("work").unwrap().adopt,
        [on_a_machine.manifest_key("work")]
    );
}

#[test]
fn the_hash_tells_contents_apart_and_nothing_else() {
    let hash = |schedule: &RecurringSchedule| schedule.declared("home").unwrap().hash;
    let one = schedule(LEAST);
    let mut again = schedule(LEAST);
    again.metadata.uid = Some("0b6c9a52-3d5e-4b6f-8a11-2f3f61f1a6c1".to_owned());
    again.metadata.resource_version = Some("7".to_owned());
    again.metadata.generation = Some(3);
    assert_eq!(hash(&one), hash(&again));
    let changes: [fn(&mut RecurringSchedule); 5] = [
        |schedule| schedule.spec.suspend = true,
        |schedule| schedule.spec.template.title = "Pay it".to_owned(),
        |schedule| schedule.spec.time_zone = "Europe/Berlin".to_owned(),
        |schedule| schedule.metadata.name = Some("fee".to_owned()),
        |schedule| schedule.metadata.namespace = Some("team".to_owned()),
    ];
    for change in changes {
        let mut other = schedule(LEAST);
        change(&mut other);
        assert_ne!(hash(&other), hash(&one));
    }
}

#[test]
fn a_day_that_there_is_not_is_named_as_the_resource_has_it() {
    let mut schedule = schedule(LEAST);
    schedule.spec.start = Some("2026-02-30".to_owned());
    assert_eq!(schedule.declared("home").unwrap_err().path, "spec.start");
}
