//! The CEL rules in the CRD and the rules in `validate` say the same.
//!
//! The rules are evaluated here by a CEL interpreter with Kubernetes' extensions. That a real API server takes them
//! within its cost budget is tested with the operator.

use kube::core::cel::{validate_cel, validate_cel_update};
use serde_json::{Value, json};
use todo_crds::{RecurringSchedule, TodoPlatform};

fn platform(spec: &Value) -> TodoPlatform {
    named_platform("acme", spec)
}

fn named_platform(name: &str, spec: &Value) -> TodoPlatform {
    let mut whole = json!({"version": "1.4.0"});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "todoplatform.dev/v1alpha1",
        "kind": "TodoPlatform",
        "metadata": {"name": name},
        "spec": whole,
    }))
    .unwrap()
}

fn schedule(spec: &Value) -> RecurringSchedule {
    let mut whole = json!({
        "platformRef": {"name": "acme"},
        "user": "alice",
        "schedule": {"rrule": "FREQ=DAILY"},
        "template": {"title": "Water the plants"},
    });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "todoplatform.dev/v1alpha1",
        "kind": "RecurringSchedule",
        "metadata": {"name": "plants"},
        "spec": whole,
    }))
    .unwrap()
}

const SECRET: fn() -> Value = || json!({"name": "s", "key": "k"});

#[test]
fn the_rules_of_a_platform_agree() {
    let cases = [
        (json!({}), None),
        (json!({"database": {"urlSecretRef": SECRET()}}), None),
        (json!({"database": {"storage": {"size": "10Gi"}}}), None),
        (
            json!({"database": {"urlSecretRef": SECRET(), "storage": {"size": "10Gi"}}}),
            Some("spec.database.storage"),
        ),
        (json!({"kafka": {}}), Some("spec.kafka")),
        (json!({"kafka": {"strimzi": {"cluster": {"name": "events"}}}}), None),
        (json!({"kafka": {"external": {"brokers": ["k:9092"]}}}), None),
        (
            json!({"kafka": {"strimzi": {"cluster": {"name": "events"}}, "external": {"brokers": ["k:9092"]}}}),
            Some("spec.kafka"),
        ),
        (
            json!({"kafka": {"strimzi": {"cluster": {"name": "e"}, "user": {"secretRef": {"name": "s"}}}}}),
            Some("spec.kafka.strimzi.user.secretRef"),
        ),
        (
            json!({"kafka": {"strimzi": {"cluster": {"name": "e"}, "user": {"create": false, "secretRef": {"name": "s"}}}}}),
            None,
        ),
        (
            json!({"kafka": {"external": {"brokers": ["k:1"], "tls": false, "caSecretRef": SECRET()}}}),
            Some("spec.kafka.external.caSecretRef"),
        ),
        (
            json!({"kafka": {"external": {"brokers": ["k:1"], "caSecretRef": SECRET()}}}),
            None,
        ),
        (
            json!({"kafka": {"external": {"brokers": ["k:1"], "tls": false, "sasl": {"mechanism": "PLAIN", "secretRef": {"name": "s"}}}}}),
            Some("spec.kafka.external.sasl.mechanism"),
        ),
        (
            json!({"kafka": {"external": {"brokers": ["k:1"], "tls": false, "sasl": {"mechanism": "SCRAM-SHA-512", "secretRef": {"name": "s"}}}}}),
            None,
        ),
        (
            json!({"kafka": {"external": {"brokers": ["k:1"], "sasl": {"mechanism": "PLAIN", "secretRef": {"name": "s"}}}}}),
            None,
        ),
        (json!({"dapr": {"stateStore": {}}}), Some("spec.dapr.stateStore")),
        (json!({"dapr": {"stateStore": {"postgresql": {}}}}), None),
        (
            json!({"dapr": {"stateStore": {"postgresql": {}, "redis": {"hostSecretRef": SECRET()}}}}),
            Some("spec.dapr.stateStore"),
        ),
        (json!({"auth": {"secretRef": SECRET()}}), None),
        (
            json!({"auth": {"oidc": {"issuer": "https://id.example.com", "audience": "todo"}}}),
            None,
        ),
        (
            json!({"auth": {"secretRef": SECRET(), "oidc": {"issuer": "https://id.example.com", "audience": "todo"}}}),
            Some("spec.auth.secretRef"),
        ),
        (json!({"api": {"replicas": 2}}), None),
        (
            json!({"api": {"httpRoute": {"host": "todo.example.com", "parentRefs": [{"name": "web", "namespace": "gateways"}]}}}),
            None,
        ),
        (
            json!({"api": {
                "ingress": {"host": "todo.example.com"},
                "httpRoute": {"host": "todo.example.com", "parentRefs": [{"name": "web"}]},
            }}),
            Some("spec.api.httpRoute"),
        ),
        (json!({"api": {"autoscaling": {"max": 2, "targetCPU": 70}}}), None),
        (
            json!({"api": {"replicas": 2, "autoscaling": {"max": 2, "targetCPU": 70}}}),
            Some("spec.api.replicas"),
        ),
        (
            json!({"api": {"autoscaling": {"min": 3, "max": 2, "targetCPU": 70}}}),
            Some("spec.api.autoscaling.max"),
        ),
        (
            json!({"api": {"autoscaling": {"min": 2, "max": 2}}}),
            Some("spec.api.autoscaling"),
        ),
        (
            json!({"workers": {"audit": {"autoscaling": {"max": 2, "targetLag": 70}}}}),
            None,
        ),
        (
            json!({"workers": {"relay": {"replicas": 1, "autoscaling": {"max": 2, "targetLag": 70}}}}),
            Some("spec.workers.relay.replicas"),
        ),
        (
            json!({"workers": {"reminders": {"autoscaling": {"min": 3, "max": 2, "targetLag": 70}}}}),
            Some("spec.workers.reminders.autoscaling.max"),
        ),
        (
            json!({"workers": {"analytics": {"autoscaling": {"max": 2}}}}),
            Some("spec.workers.analytics.autoscaling"),
        ),
    ];
    for (spec, wrong) in cases {
        agree(&platform(&spec), wrong, &spec);
    }
    let long = "a".repeat(41);
    for (name, wrong) in [
        ("a", None),
        ("home-2", None),
        (&long[..40], None),
        (&long, Some("metadata.name")),
        ("2home", Some("metadata.name")),
        ("home-", Some("metadata.name")),
        ("my.home", Some("metadata.name")),
    ] {
        agree(&named_platform(name, &json!({})), wrong, &json!(name));
    }
}

#[test]
fn the_rules_of_a_schedule_agree() {
    let template = |more: Value| {
        let mut template = json!({"title": "Water the plants"});
        template
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"template": template})
    };
    let cases = [
        (json!({}), None),
        (json!({"schedule": {}}), Some("spec.schedule")),
        (json!({"schedule": {"cron": "@daily"}}), None),
        (json!({"schedule": {"every": "2d"}}), None),
        (
            json!({"schedule": {"cron": "@daily", "every": "2d"}}),
            Some("spec.schedule"),
        ),
        (
            json!({"schedule": {"cron": "@daily", "every": "2d", "rrule": "FREQ=DAILY"}}),
            Some("spec.schedule"),
        ),
        (json!({"at": "17:00"}), None),
        (json!({"at": "17:00", "schedule": {"every": "2d"}}), None),
        (json!({"at": "17:00", "schedule": {"cron": "@daily"}}), Some("spec.at")),
        (template(json!({"dueIn": "8h", "reminders": [{"before": "30m"}]})), None),
        (
            template(json!({"reminders": [{"before": "30m"}]})),
            Some("spec.template.reminders"),
        ),
        (template(json!({"reminders": []})), None),
    ];
    for (spec, wrong) in cases {
        let schedule = schedule(&spec);
        agree(&schedule, wrong, &spec);
    }
}

#[test]
fn what_tasks_were_made_with_cannot_be_changed() {
    let before = schedule(&json!({}));
    let update = |spec: Value| validate_cel_update(&schedule(&spec), &before);
    assert!(update(json!({"suspend": true, "timeZone": "Europe/Berlin"})).is_ok());
    assert!(update(json!({"user": "bob"})).is_err());
    assert!(update(json!({"platformRef": {"name": "other"}})).is_err());
}

#[test]
fn partitions_are_never_taken_away() {
    let with =
        |topic: Value| platform(&json!({"kafka": {"external": {"brokers": ["k:1"]}, "topics": {"reminders": topic}}}));
    let change = |before: Value, after: Value| validate_cel_update(&with(after), &with(before)).is_ok();
    assert!(change(
        json!({"partitions": 12}),
        json!({"partitions": 12, "retention": "1d"})
    ));
    assert!(change(json!({"partitions": 12}), json!({"partitions": 24})));
    assert!(!change(json!({"partitions": 12}), json!({"partitions": 6})));
    // Absent means 6.
    assert!(!change(json!({"partitions": 12}), json!({})));
    assert!(!change(json!({}), json!({"partitions": 3})));
    assert!(change(json!({}), json!({"partitions": 12})));
    assert!(change(json!({"partitions": 6}), json!({})));
}

/// What both kinds can do here.
trait Resource {
    fn by_cel(&self) -> Result<(), String>;
    fn by_rules(&self) -> Vec<todo_crds::Problem>;
}

impl Resource for TodoPlatform {
    fn by_cel(&self) -> Result<(), String> {
        validate_cel(self).map_err(|errors| errors.to_string())
    }

    fn by_rules(&self) -> Vec<todo_crds::Problem> {
        self.validate()
    }
}

impl Resource for RecurringSchedule {
    fn by_cel(&self) -> Result<(), String> {
        validate_cel(self).map_err(|errors| errors.to_string())
    }

    fn by_rules(&self) -> Vec<todo_crds::Problem> {
        self.validate()
    }
}

/// Both refuse, `validate` at that path and at no other; or both accept.
fn agree(resource: &impl Resource, wrong: Option<&str>, case: &Value) {
    let cel = resource.by_cel();
    assert_eq!(cel.is_err(), wrong.is_some(), "cel on {case}: {cel:?}");
    let problems = resource.by_rules();
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, Vec::from_iter(wrong), "validate on {case}: {problems:?}");
}
