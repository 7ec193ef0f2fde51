//! What is built of a manifest: golden files, and what must hold of anything that is built.
//!
//! No cluster: the inputs of a pass are written down here.

mod golden;
mod leaves;
mod properties;
mod restricted;
mod validate;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use todo_crds::TodoPlatform;
use todo_crds::manifest::load;
use todo_operator::capabilities::Capabilities;
use todo_operator::child::Kind;
use todo_operator::names::Names;
use todo_operator::platform::{
    DatabaseFacts, Drawn, Inputs, InternalKey, KafkaFacts, KafkaListener, SecretFacts, release,
};
use todo_operator::settings::Settings;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/build")
}

/// A platform as the API server hands it out: with every default, a UID and a namespace.
fn platform(text: &str) -> TodoPlatform {
    let mut manifest = load(&[("manifest", text)]).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let metadata = &mut manifest.platform.metadata;
    metadata.uid = Some("9c1f7a30-0000-4000-8000-000000000001".to_owned());
    metadata.namespace.get_or_insert("default".to_owned());
    manifest.platform
}

/// A manifest of these tests.
pub(crate) fn manifest(name: &str) -> TodoPlatform {
    platform(&std::fs::read_to_string(folder().join("manifests").join(name)).unwrap())
}

/// A manifest that users are given.
pub(crate) fn sample(name: &str) -> TodoPlatform {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
    platform(&std::fs::read_to_string(samples.join(name)).unwrap())
}

/// A cluster without anything optional.
fn bare() -> Capabilities {
    Capabilities::default()
}

/// A cluster that serves every optional kind but these.
fn full_but(without: &[Kind]) -> Capabilities {
    let mut capabilities = Capabilities::default();
    for kind in Kind::ALL {
        if let Some(versions) = kind.optional().filter(|_| !without.contains(&kind)) {
            capabilities.serve(kind, versions);
        }
    }
    capabilities
}

fn full() -> Capabilities {
    full_but(&[])
}

/// What begins each secret value of these tests.
const SECRET: &str = "5ecret-";

/// The values of a Secret that a manifest may refer to: every key that these manifests name.
fn values(name: &str) -> BTreeMap<String, Vec<u8>> {
    let value = |key: &str| match key {
        "url" => format!("postgres://todo:{SECRET}{name}@db.example:6432/todo"),
        "host" => "redis.example:6380".to_owned(),
        _ => format!("{SECRET}{name}-{key}"),
    };
    [
        "ca.pem", "host", "key", "password", "private", "public", "secret", "subject", "token", "url", "username",
    ]
    .map(|key| (key.to_owned(), value(key).into_bytes()))
    .into()
}

fn facts(values: &BTreeMap<String, Vec<u8>>) -> SecretFacts {
    SecretFacts::of(values.iter().map(|(key, value)| (key.as_str(), value.as_slice())))
}

/// The Secrets that a spec names: every field of theirs is called so.
fn references(value: &Value, found: &mut Vec<String>) {
    for (field, value) in value.as_object().into_iter().flatten() {
        match value["name"].as_str() {
            Some(name) if field.ends_with("ecretRef") => found.push(name.to_owned()),
            _ => references(value, found),
        }
    }
}

/// The inputs of a pass over a platform that is settled: all that it refers to is there, and its release runs.
pub(crate) fn inputs(platform: TodoPlatform, capabilities: Capabilities) -> Inputs {
    let settings = Settings {
        image_repository: "registry.example.com/todo-platform".to_owned(),
        evaluation_postgres_image: "docker.io/library/postgres:17".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        namespace: "todo-system".to_owned(),
    };
    let names = Names::of(&platform);
    let own = [
        names.app_token(),
        names.dapr_token(),
        names.token(),
        names.internal_key(),
    ];
    let mut referred = vec![];
    references(&serde_json::to_value(&platform.spec).unwrap(), &mut referred);
    let secrets = referred.into_iter().chain(own);
    let strimzi = platform.spec.kafka.as_ref().and_then(|kafka| kafka.strimzi.as_ref());
    let logs_in = strimzi.is_some_and(|strimzi| strimzi.user.create || strimzi.user.secret_ref.is_some());
    let has_strimzi = capabilities.has(Kind::KafkaTopic);
    let has_cluster = capabilities.has(Kind::DatabaseCluster);
    Inputs {
        secrets: secrets
            .map(|name| {
                let facts = facts(&values(&name));
                (name, facts)
            })
            .collect(),
        kafka: strimzi.filter(|_| has_strimzi).map(|_| KafkaFacts {
            listener: Some(KafkaListener {
                bootstrap: "events-kafka-bootstrap.kafka.svc:9093".to_owned(),
                ca: logs_in.then(|| "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_owned()),
                scram: logs_in,
            }),
            brokers: Some(5),
            authorizes: true,
        }),
        kafka_user: strimzi
            .filter(|strimzi| has_strimzi && strimzi.user.create)
            .map(|_| values(&names.kafka_user())),
        internal_key: Some(InternalKey {
            resource_version: "7".to_owned(),
            key: format!("{SECRET}former-internal-key").into_bytes(),
            rotated: None,
        }),
        database: match platform.spec.database.url_secret_ref {
            Some(_) => DatabaseFacts::default(),
            None => DatabaseFacts {
                is_stateful_set: !has_cluster,
                is_cluster: has_cluster,
                ..DatabaseFacts::default()
            },
        },
        release: Some(release::target(&platform, &settings)),
        drawn: drawn(),
        settings: Arc::new(settings),
        capabilities: Arc::new(capabilities),
        platform: Arc::new(platform),
    }
}

fn drawn() -> Drawn {
    let drawn = |what: &str| format!("{SECRET}drawn-{what}");
    Drawn {
        internal_key: drawn("internal-key"),
        token: drawn("token"),
        app_token: drawn("app-token"),
        dapr_token: drawn("dapr-token"),
        database: drawn("database"),
    }
}

/// The same inputs, of a platform with something else in its spec.
fn with_spec(inputs: &Inputs, change: impl FnOnce(&mut Value)) -> Inputs {
    let mut platform = serde_json::to_value(&*inputs.platform).unwrap();
    change(&mut platform["spec"]);
    Inputs {
        platform: Arc::new(serde_json::from_value(platform).unwrap()),
        ..inputs.clone()
    }
}

/// Every case that the properties are looked for in, by its name.
fn cases() -> Vec<(String, Inputs)> {
    let rotating = || {
        let mut platform = sample("platform.yaml");
        platform
            .metadata
            .annotations
            .get_or_insert_default()
            .insert("todoplatform.dev/rotate-internal-key".to_owned(), "2".to_owned());
        platform
    };
    let annotated = inputs(rotating(), bare());
    let mut retained = manifest("everything.yaml");
    retained.spec.deletion_policy = todo_crds::platform::DeletionPolicy::Retain;
    let fixed = [
        ("platform", inputs(sample("platform.yaml"), bare())),
        ("platform-on-cloudnativepg", inputs(sample("platform.yaml"), full())),
        (
            "production",
            inputs(sample("production.yaml"), full_but(&[Kind::DatabaseCluster])),
        ),
        (
            "managed-kafka",
            inputs(
                manifest("managed-kafka.yaml"),
                full_but(&[Kind::KafkaTopic, Kind::KafkaUser]),
            ),
        ),
        ("everything", inputs(manifest("everything.yaml"), full())),
        (
            "everything-retained",
            inputs(retained, full_but(&[Kind::DatabaseCluster])),
        ),
        ("suspended", inputs(manifest("suspended.yaml"), full())),
        ("suspended-in-one", inputs(manifest("suspended-in-one.yaml"), bare())),
        ("rotating", annotated),
    ];
    fixed.map(|(name, inputs)| (name.to_owned(), inputs)).into()
}

/// A pod template's spec, wherever this kind has it.
fn pod_spec(body: &Value) -> Option<&Value> {
    body.pointer("/spec/template/spec")
}

#[test]
fn every_case_is_valid_and_complete() {
    for (name, inputs) in cases() {
        let problems = todo_operator::platform::validate::validate(&inputs);
        let serious: Vec<_> = problems
            .iter()
            .filter(|problem| problem.severity > todo_operator::platform::Severity::Note)
            .collect();
        assert!(serious.is_empty(), "{name}: {serious:?}");
        assert!(todo_operator::platform::build::build(&inputs).is_complete(), "{name}");
    }
    assert_eq!(json!(full().version(Kind::KafkaTopic)), "v1");
}
