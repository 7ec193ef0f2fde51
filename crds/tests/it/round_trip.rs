//! What is written as YAML loads as what it was.

use proptest::prelude::*;
use serde_json::json;
use todo_crds::manifest::load;
use todo_crds::schedule::{CatchUpPolicy, MonthEnd, Overlap, Priority, ReminderTemplate};
use todo_crds::{RecurringSchedule, TodoPlatform};
use todo_recurrence::span::Span;

fn span(most_minutes: u32) -> impl Strategy<Value = Span> {
    prop_oneof![
        (1..=most_minutes).prop_map(Span::minutes),
        (1..=most_minutes / 60).prop_map(Span::hours)
    ]
}

/// Texts that YAML could take for something else, and any others.
fn text(most: usize) -> impl Strategy<Value = String> {
    let tricky = [
        "yes", "null", "~", "017", "1e3", "0x1f", "- a", "a: b", "# c", "*x", "&x", "!t", "'", "\"", "|", "x\ny",
        " ä ", "{{n}}",
    ];
    prop_oneof![
        proptest::sample::select(tricky.to_vec()).prop_map(|text| format!("x{text}")),
        proptest::sample::select(tricky.to_vec())
            .prop_filter("not blank", |text| !text.trim().is_empty())
            .prop_map(str::to_owned),
        proptest::string::string_regex(&format!("[^{{\\x00-\\x1f\\x7f-\\x9f]{{0,{}}}x", most - 1)).unwrap(),
    ]
}

fn schedules() -> impl Strategy<Value = RecurringSchedule> {
    let rule = prop_oneof![
        Just(json!({"cron": "0 9 * * 1"})),
        Just(json!({"cron": "@daily"})),
        Just(json!({"rrule": "FREQ=MONTHLY;BYMONTHDAY=-1"})),
        (
            1..500_u32,
            proptest::sample::select(vec!["s", "m", "h", "d", "w", "mo"])
        )
            .prop_map(|(number, unit)| json!({"every": format!("{number}{unit}")})),
    ];
    let zone = proptest::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]);
    let due = proptest::option::of((61..10_000_u32, proptest::collection::btree_set(1..60_u32, 0..4)));
    let title = text(40).prop_map(|text| text.replace('\n', " "));
    let template = (
        title,
        proptest::option::of(text(80)),
        proptest::collection::btree_set("[a-z]{1,9}", 0..4),
        due,
        0..4_usize,
    );
    let choices = (any::<bool>(), 0..3_usize, 0..3_usize, span(40_000), 1..10_000_u32);
    (rule, zone, template, choices).prop_map(|(rule, zone, (title, description, tags, due, priority), choices)| {
        let (suspend, month_end, policy, window, max) = choices;
        let mut schedule: RecurringSchedule = serde_json::from_value(json!({
            "apiVersion": "todoplatform.dev/v1alpha1",
            "kind": "RecurringSchedule",
            "metadata": {"name": "some"},
            "spec": {"platformRef": {"name": "home"}, "user": "alice", "schedule": rule, "timeZone": zone, "template": {"title": title}},
        }))
        .unwrap();
        let spec = &mut schedule.spec;
        spec.suspend = suspend;
        spec.overlap = if suspend { Overlap::Allow } else { Overlap::Skip };
        spec.month_end = [None, Some(MonthEnd::Clamp), Some(MonthEnd::Strict)][month_end];
        spec.catch_up.policy = [CatchUpPolicy::All, CatchUpPolicy::Latest, CatchUpPolicy::None][policy];
        spec.catch_up.window = window;
        spec.catch_up.max = max;
        spec.template.description = description;
        spec.template.tags = tags.into_iter().collect();
        spec.template.priority = [Priority::Low, Priority::Medium, Priority::High, Priority::Critical][priority];
        if let Some((due_in, reminders)) = due {
            spec.template.due_in = Some(Span::minutes(due_in));
            spec.template.reminders = reminders.into_iter().map(|before| ReminderTemplate { before: Span::minutes(before) }).collect();
        }
        schedule
    })
}

fn platforms() -> impl Strategy<Value = TodoPlatform> {
    let numbers = (4..500_u32, 1..1000_u32, 1..1000_u32, 1..100_000_u32);
    (numbers, any::<bool>(), any::<bool>(), 0..3_usize, span(10_000)).prop_map(|((pool, min, page, rate), paused, suspend, kafka, retention)| {
        let kafka = match kafka {
            0 => json!(null),
            1 => json!({"strimzi": {"cluster": {"name": "events"}}, "topics": {"reminders": {"retention": retention}}}),
            _ => json!({"external": {"brokers": ["k:9092", "[::1]:9092"], "tls": paused, "manageTopics": suspend}}),
        };
        serde_json::from_value(json!({
            "apiVersion": "todoplatform.dev/v1alpha1",
            "kind": "TodoPlatform",
            "metadata": {"name": "home", "labels": {"example.com/team": "yes"}},
            "spec": {
                "version": "1.4.0-rc.1",
                "paused": paused,
                "database": {"pool": {"max": pool}},
                "kafka": kafka,
                "api": {
                    "autoscaling": {"min": min, "max": 1000, "targetCPU": 70},
                    "limits": {"maxPageSize": page},
                    "rateLimit": {"perSecond": rate},
                    "resources": {"requests": {"cpu": "1", "memory": "64Mi"}, "limits": {"cpu": "1500m"}},
                },
                "workers": {"audit": {"suspend": suspend, "replicas": min}},
                "observability": {"logFormat": "text"},
            },
        }))
        .unwrap()
    })
}

proptest! {
    #[test]
    fn what_is_written_as_yaml_loads_as_what_it_was(platform in platforms(), schedule in schedules()) {
        prop_assert_eq!(platform.validate(), []);
        prop_assert_eq!(schedule.validate(), []);
        let text = format!(
            "{}---\n{}",
            serde_saphyr::to_string(&platform).unwrap(),
            serde_saphyr::to_string(&schedule).unwrap()
        );
        match load(&[("home.yaml", &text)]) {
            Ok(manifest) => {
                prop_assert_eq!(&manifest.platform, &platform);
                prop_assert_eq!(&manifest.schedules[..], &[schedule][..]);
            }
            Err(errors) => prop_assert!(false, "{errors:#?}\n{text}"),
        }
    }

    #[test]
    fn loading_never_panics(text in "([a-z]{1,4}|[:\\-\\[\\]{}&*!|>'\"%@`#,?~ \n\t]|\\PC){0,40}") {
        let _ = load(&[("-", text)]);
    }

    #[test]
    fn a_broken_line_is_an_error_on_one_line(line in 0..40_usize, noise in "\\PC{1,12}") {
        let mut lines: Vec<&str> = include_str!("../../../config/samples/platform.yaml").lines().collect();
        lines[line] = &noise;
        for error in load(&[("-", lines.join("\n"))]).err().into_iter().flatten() {
            prop_assert!(error.to_string().lines().count() == 1, "{error}");
            prop_assert!(error.line >= 1 && error.column >= 1, "{error}");
        }
    }
}
