//! Every field of a platform does something: changing it alone changes a child, or a problem that the status tells.
//!
//! The fields come from the CRD's own schema, so that one that is added and forgotten here fails. Fields without an effect
//! are listed with the reason.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use todo_operator::child::Kind;
use todo_operator::platform::Inputs;
use todo_operator::platform::build::{build, topics};
use todo_operator::platform::validate::validate;

use super::{full, full_but, inputs, manifest, with_spec};

/// Fields that have no effect on children, and why. What is below them is meant, too.
const WITHOUT_EFFECT: [(&str, &str); 9] = [
    ("/paused", "a pass over a paused platform ends before anything is built"),
    (
        "/kafka/external/manageTopics",
        "who may make the topics is asked where that is done, after the build",
    ),
    (
        "/upgrade/strategy",
        "one version follows the other at once; upgrades in steps are to come",
    ),
    ("/upgrade/autoRollback", "as upgrade.strategy"),
    ("/upgrade/soak", "as upgrade.strategy"),
    ("/upgrade/maintenanceWindow", "as upgrade.strategy"),
    ("/notifications", "the role is not part of this version; a note says so"),
    (
        "/workers/notifications",
        "the role is not part of this version; a note says so",
    ),
    (
        "/workers/analytics",
        "the role is not part of this version; a note says so",
    ),
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
    ]
    .into()
}

/// Whether anything follows from `changed` that did not from `base`.
fn has_effect(base: &Inputs, changed: &Inputs) -> bool {
    build(base) != build(changed) || topics(base) != topics(changed) || validate(base) != validate(changed)
}

fn is_without_effect(path: &str) -> bool {
    WITHOUT_EFFECT
        .iter()
        .any(|(field, _)| path == *field || path.starts_with(&format!("{field}/")))
}

#[test]
fn every_field_changes_a_child_or_a_problem() {
    let bases = bases();
    let excluded = excluded();
    let mut idle = vec![];
    let mut unknown = vec![];
    for (path, schema) in leaves() {
        if is_without_effect(&path) {
            continue;
        }
        let special = excluded.iter().find(|(field, ..)| *field == path);
        let (base, changed) = if let Some((_, base, patch)) = special {
            let base = &bases[base];
            (base, with_spec(base, |spec| merge(spec, patch)))
        } else if let Some((base, changed)) = bases
            .values()
            .find_map(|base| Some((base, otherwise(base, &path, &schema)?)))
        {
            (base, changed)
        } else {
            unknown.push(path);
            continue;
        };
        if !has_effect(base, &changed) {
            idle.push(path);
        }
    }
    assert!(
        unknown.is_empty(),
        "in none of the manifests, so it is not known what they do: {unknown:#?}"
    );
    assert!(idle.is_empty(), "changing them changes nothing: {idle:#?}");
}

#[test]
fn what_is_listed_as_without_effect_is_a_field_and_has_none() {
    let base = &bases()["everything.yaml"];
    for (field, reason) in WITHOUT_EFFECT {
        let below: Vec<_> = leaves()
            .into_iter()
            .filter(|(path, _)| path.starts_with(field))
            .collect();
        assert!(!below.is_empty(), "{field} is no field any more");
        for (path, schema) in below {
            if let Some(changed) = otherwise(base, &path, &schema) {
                assert_eq!(build(base), build(&changed), "{path} has an effect: {reason}");
            }
        }
    }
}

/// The same with another value at `path`; `None` when there is none at it.
fn otherwise(base: &Inputs, path: &str, schema: &Value) -> Option<Inputs> {
    let spec = serde_json::to_value(&base.platform.spec).unwrap();
    let pointer = path.replace("/*", "/0");
    let other = another(spec.pointer(&pointer)?, schema);
    Some(with_spec(base, |spec| *spec.pointer_mut(&pointer).unwrap() = other))
}

/// Another value that the schema allows, as far as children care.
fn another(value: &Value, schema: &Value) -> Value {
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().find(|word| *word != value).unwrap().clone();
    }
    match value {
        Value::Bool(value) => json!(!value),
        Value::Number(number) => json!(number.as_u64().unwrap() + 1),
        Value::String(text) if text.starts_with("sha256:") => json!(text.replace("sha256:0", "sha256:f")),
        Value::String(text) => match text.strip_suffix(['s', 'm', 'h', 'd', 'w']).map(str::parse::<u32>) {
            Some(Ok(count)) if schema["x-kubernetes-int-or-string"] != true => {
                json!(format!("{}{}", count + 1, &text[text.len() - 1..]))
            }
            _ if text.starts_with(|first: char| first.is_ascii_digit()) => json!(format!("1{text}")),
            _ => json!(text.replacen(|character: char| character.is_ascii_alphabetic(), "z", 1)),
        },
        other => panic!("no scalar: {other}"),
    }
}

/// Every field of the spec that holds a value, with its schema; `*` stands for each item of a list.
fn leaves() -> Vec<(String, Value)> {
    let (_, yaml) = todo_crds::crd_yaml()
        .into_iter()
        .find(|(file, _)| file.contains("todoplatforms"))
        .unwrap();
    let crd: Value = serde_saphyr::from_str(&yaml).unwrap();
    let spec = crd
        .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
        .unwrap();
    let mut leaves = vec![];
    walk(spec, String::new(), &mut leaves);
    assert!(leaves.len() > 100, "{}", leaves.len());
    leaves
}

fn walk(schema: &Value, path: String, leaves: &mut Vec<(String, Value)>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, schema) in properties {
            walk(schema, format!("{path}/{name}"), leaves);
        }
    } else if !schema["items"].is_null() {
        walk(&schema["items"], format!("{path}/*"), leaves);
    } else {
        leaves.push((path, schema.clone()));
    }
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
