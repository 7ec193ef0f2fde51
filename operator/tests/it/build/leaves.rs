//! Every field of a platform does something: changing it alone changes a child, or what the status tells.
//!
//! The fields come from the CRD's own schema, so that one that is added and forgotten here fails. Fields without an effect
//! are listed with the reason, and one that is listed and has an effect fails, too.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use todo_operator::child::{Children, Kind};
use todo_operator::kafka::TopicSpec;
use todo_operator::platform::build::{build, topics};
use todo_operator::platform::seen::Seen;
use todo_operator::platform::status::{Report, status};
use todo_operator::platform::validate::validate;
use todo_operator::platform::{Inputs, release};

use super::{full, full_but, inputs, manifest, sample, with_spec};
use crate::schema::{another, leaves};

/// Fields that have no effect, and why. What is below them is meant, too.
const WITHOUT_EFFECT: [(&str, &str); 7] = [
    (
        "/upgrade/strategy",
        "one version follows the other at once; upgrades in steps are to come",
    ),
    ("/upgrade/autoRollback", "as upgrade.strategy"),
    ("/upgrade/soak", "as upgrade.strategy"),
    ("/upgrade/maintenanceWindow", "as upgrade.strategy"),
    (
        "/notifications",
        "the role is not part of this version; a note says so, whatever is in them",
    ),
    ("/workers/notifications", "as notifications"),
    ("/workers/analytics", "as notifications"),
];

/// Fields that are not in the manifests, because another excludes them: a manifest, and what is changed in it.
fn excluded() -> Vec<(&'static str, &'static str, Value)> {
    let worker = |role: &str| json!({"workers": {role: {"replicas": 4, "autoscaling": null}}});
    vec![
        (
            "/database/urlSecretRef/name",
            "everything.yaml",
            json!({"database": {"storage": null, "urlSecretRef": {"name": "acme-db", "key": "url"}}}),
        ),
        (
            "/database/urlSecretRef/key",
            "managed-kafka.yaml",
            json!({"database": {"urlSecretRef": {"key": "uri"}}}),
        ),
        (
            "/kafka/strimzi/user/secretRef/name",
            "everything.yaml",
            json!({"kafka": {"strimzi": {"user": {"create": false, "secretRef": {"name": "mine"}}}}}),
        ),
        (
            "/dapr/stateStore/postgresql",
            "everything.yaml",
            json!({"dapr": {"stateStore": {"redis": null, "postgresql": {}}}}),
        ),
        (
            "/auth/oidc/issuer",
            "everything.yaml",
            json!({"auth": {"secretRef": null, "oidc": {"issuer": "https://id.example.com", "audience": "todo"}}}),
        ),
        (
            "/auth/oidc/audience",
            "everything.yaml",
            json!({"auth": {"secretRef": null, "oidc": {"issuer": "https://id.example.com", "audience": "other"}}}),
        ),
        (
            "/api/replicas",
            "everything.yaml",
            json!({"api": {"replicas": 4, "autoscaling": null}}),
        ),
        ("/workers/recurring/replicas", "everything.yaml", worker("recurring")),
        ("/workers/reminders/replicas", "everything.yaml", worker("reminders")),
        ("/workers/audit/replicas", "everything.yaml", worker("audit")),
        (
            "/upgrade/maintenanceWindow/timeZone",
            "production.yaml, large",
            json!({"upgrade": {"maintenanceWindow": {"timeZone": "America/New_York"}}}),
        ),
        // Without effect for a role that consumes nothing, and that is told.
        (
            "/workers/reminders/autoscaling/targetLag",
            "everything.yaml",
            json!({"workers": {"reminders": {"autoscaling": {"targetLag": 100}}}}),
        ),
        (
            "/workers/relay/autoscaling/targetLag",
            "everything.yaml",
            json!({"workers": {"relay": {"replicas": null, "autoscaling": {"max": 3, "targetLag": 100}}}}),
        ),
        (
            "/workers/relay/autoscaling/min",
            "everything.yaml",
            json!({"workers": {"relay": {"replicas": null, "autoscaling": {"min": 2, "max": 3, "targetCPU": 50}}}}),
        ),
        (
            "/workers/relay/autoscaling/max",
            "everything.yaml",
            json!({"workers": {"relay": {"replicas": null, "autoscaling": {"max": 4, "targetCPU": 50}}}}),
        ),
        (
            "/workers/relay/autoscaling/targetCPU",
            "everything.yaml",
            json!({"workers": {"relay": {"replicas": null, "autoscaling": {"max": 3, "targetCPU": 51}}}}),
        ),
        (
            "/workers/relay/autoscaling/targetMemory",
            "everything.yaml",
            json!({"workers": {"relay": {"replicas": null, "autoscaling": {"max": 3, "targetMemory": 50}}}}),
        ),
    ]
}

/// The manifests that fields are looked for in, in this order.
fn bases() -> BTreeMap<&'static str, Inputs> {
    let without_strimzi = [Kind::KafkaTopic, Kind::KafkaUser];
    [
        ("everything.yaml", inputs(manifest("everything.yaml"), full())),
        (
            "managed-kafka.yaml",
            inputs(manifest("managed-kafka.yaml"), full_but(&without_strimzi)),
        ),
        // What has no effect yet is in these only.
        (
            "production.yaml, grown",
            roles_to_come(
                &json!({"autoscaling": {"min": 1, "max": 3, "targetCPU": 5, "targetMemory": 5, "targetLag": 5}}),
            ),
        ),
        (
            "production.yaml, large",
            roles_to_come(&json!({"replicas": 2, "resources": {
                "requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "20", "memory": "20Gi"},
            }})),
        ),
    ]
    .into()
}

/// The manifest with every section, and with all that a worker may say of the roles that are not part of this version.
fn roles_to_come(worker: &Value) -> Inputs {
    let production = inputs(sample("production.yaml"), full());
    with_spec(&production, |spec| {
        for role in ["notifications", "analytics"] {
            spec["workers"][role] = worker.clone();
            spec["workers"][role]["suspend"] = json!(false);
        }
    })
}

/// What follows from a manifest: the children, the topics of a Kafka elsewhere, and all that the status tells.
fn effects(inputs: &Inputs) -> (Children, Vec<TopicSpec>, Value) {
    let children = build(inputs);
    let target = release::target(&inputs.platform, &inputs.settings);
    let report = Report {
        platform: &inputs.platform,
        children: &children,
        seen: &Seen::default(),
        problems: &validate(inputs),
        target: &target,
        migration: "migration",
        external_topics: &[],
    };
    let (said, _) = status(&report, Timestamp::UNIX_EPOCH);
    let said = serde_json::to_value(said).unwrap();
    (children, topics(inputs), said)
}

fn is_without_effect(path: &str) -> bool {
    WITHOUT_EFFECT
        .iter()
        .any(|(field, _)| path == *field || path.starts_with(&format!("{field}/")))
}

#[test]
fn every_field_changes_a_child_or_the_status_or_it_is_known_why_not() {
    let bases = bases();
    let mut excluded = excluded();
    let mut idle = vec![];
    let mut unknown = vec![];
    let mut stale = vec![];
    for (path, schema) in leaves("todoplatforms") {
        let mut candidates: Vec<&Inputs> = bases.values().collect();
        // The note that a role is to come is there already.
        if is_without_effect(&path) {
            candidates.reverse();
        }
        let special = excluded.iter().position(|(field, ..)| *field == path);
        let (base, changed) = if let Some(special) = special {
            let (_, base, patch) = excluded.remove(special);
            let base = &bases[base];
            (base, with_spec(base, |spec| merge(spec, &patch)))
        } else if let Some((base, changed)) = candidates
            .into_iter()
            .find_map(|base| Some((base, otherwise(base, &path, &schema)?)))
        {
            (base, changed)
        } else {
            unknown.push(path);
            continue;
        };
        match (effects(base) == effects(&changed), is_without_effect(&path)) {
            (true, false) => idle.push(path),
            (false, true) => stale.push(path),
            (true, true) | (false, false) => {}
        }
    }
    assert!(
        unknown.is_empty(),
        "in none of the manifests, so it is not known what they do: {unknown:#?}"
    );
    assert!(idle.is_empty(), "changing them changes nothing: {idle:#?}");
    assert!(
        stale.is_empty(),
        "listed as without effect, and they have one: {stale:#?}"
    );
    assert!(excluded.is_empty(), "no fields any more: {excluded:#?}");
}

#[test]
fn what_is_listed_as_without_effect_is_a_field() {
    for (field, _) in WITHOUT_EFFECT {
        let fields = leaves("todoplatforms");
        assert!(
            fields.iter().any(|(path, _)| path.starts_with(field)),
            "{field} is no field any more"
        );
    }
}

/// The same with another value at `path`; `None` when there is none at it.
fn otherwise(base: &Inputs, path: &str, schema: &Value) -> Option<Inputs> {
    let spec = serde_json::to_value(&base.platform.spec).unwrap();
    let pointer = path.replace("/*", "/0");
    let other = another(spec.pointer(&pointer)?, schema);
    Some(with_spec(base, |spec| *spec.pointer_mut(&pointer).unwrap() = other))
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let fields = target.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.as_str()).or_insert(Value::Null), value);
        }
    }
}
