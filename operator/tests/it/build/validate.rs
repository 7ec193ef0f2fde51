//! What is told of inputs that are not as they should be.

use todo_operator::child::Kind;
use todo_operator::platform::build::build;
use todo_operator::platform::status::ConditionType;
use todo_operator::platform::validate::validate;
use todo_operator::platform::{DatabaseFacts, Inputs, KafkaFacts, Severity, VolumeFacts};

use super::{bare, full, full_but, inputs, manifest, sample, with_spec};

/// The problems with this reason, each as what it is about, how serious it is, and what it says.
fn told(inputs: &Inputs, reason: &str) -> Vec<(ConditionType, Severity, String)> {
    let problems = validate(inputs).into_iter();
    let found = problems.filter(|problem| problem.reason == reason);
    found
        .map(|problem| (problem.about, problem.severity, problem.message))
        .collect()
}

/// The only problem with this reason.
fn one(inputs: &Inputs, reason: &str) -> (ConditionType, Severity, String) {
    let mut found = told(inputs, reason);
    assert_eq!(found.len(), 1, "{reason}: {found:?} of {:?}", validate(inputs));
    found.remove(0)
}

#[test]
fn the_smallest_manifest_has_no_problem_on_a_bare_cluster() {
    assert_eq!(validate(&inputs(sample("platform.yaml"), bare())), vec![]);
}

#[test]
fn a_secret_that_is_not_there_is_told_with_its_field_and_what_to_do() {
    let settled = inputs(sample("production.yaml"), full());
    let without = |name: &str| {
        let mut inputs = settled.clone();
        inputs.secrets.remove(name).unwrap();
        one(&inputs, "SecretNotFound")
    };
    assert_eq!(
        without("acme-db"),
        (
            ConditionType::DatabaseReady,
            Severity::Blocking,
            "spec.database.urlSecretRef: there is no Secret acme-db in namespace todo; create it with the key url"
                .to_owned()
        )
    );
    let (about, _, message) = without("acme-redis");
    assert_eq!(about, ConditionType::ComponentsReady);
    assert!(
        message.starts_with("spec.dapr.stateStore.redis.hostSecretRef: "),
        "{message}"
    );
}

#[test]
fn a_key_that_is_not_there_is_told() {
    let mut inputs = inputs(manifest("managed-kafka.yaml"), full());
    let secret = inputs.secrets.get_mut("acme-kafka").unwrap();
    secret.keys.remove("password");
    let (about, severity, message) = one(&inputs, "SecretKeyNotFound");
    assert_eq!((about, severity), (ConditionType::TopicsReady, Severity::Blocking));
    assert_eq!(
        message,
        "spec.kafka.external.sasl.secretRef: the Secret acme-kafka in namespace todo has no key password; add it, or name \
         another"
    );
}

#[test]
fn an_optional_api_that_is_absent_stands_in_nobodys_way() {
    let cases = [
        (Kind::Component, "DaprNotInstalled", Severity::Impaired),
        (Kind::KafkaTopic, "StrimziNotInstalled", Severity::Impaired),
        (Kind::PodMonitor, "PrometheusNotInstalled", Severity::Note),
        (Kind::PrometheusRule, "PrometheusNotInstalled", Severity::Note),
    ];
    for (kind, reason, expected) in cases {
        let (_, severity, message) = one(&inputs(manifest("everything.yaml"), full_but(&[kind])), reason);
        assert_eq!(severity, expected, "{message}");
    }
    let managed = inputs(manifest("managed-kafka.yaml"), full_but(&[Kind::HttpRoute]));
    assert_eq!(one(&managed, "GatewayNotInstalled").1, Severity::Impaired);
    let lags = told(
        &inputs(manifest("everything.yaml"), full_but(&[Kind::ScaledObject])),
        "NoLagAutoscaling",
    );
    assert_eq!(lags.len(), 2, "recurring and audit: {lags:?}");
}

#[test]
fn what_kafka_does_not_offer_yet_is_waited_for() {
    let settled = inputs(manifest("everything.yaml"), full());
    let with = |kafka: Option<KafkaFacts>| Inputs {
        kafka,
        ..settled.clone()
    };
    let facts = settled.kafka.clone().unwrap();
    let cases = [
        (with(None), "KafkaNotFound", "there is no Kafka kafka/events"),
        (
            with(Some(KafkaFacts {
                listener: None,
                ..facts.clone()
            })),
            "NoListener",
            "with authentication scram-sha-512",
        ),
        (
            Inputs {
                kafka_user: None,
                ..settled.clone()
            },
            "WaitingForKafkaUser",
            "KafkaUser todo-acme",
        ),
    ];
    for (inputs, reason, expected) in cases {
        let (about, severity, message) = one(&inputs, reason);
        assert_eq!((about, severity), (ConditionType::TopicsReady, Severity::Impaired));
        assert!(message.contains(expected), "{message}");
    }
    let few = with(Some(KafkaFacts {
        brokers: Some(3),
        ..facts
    }));
    let told = told(&few, "NotEnoughBrokers");
    assert_eq!(told.len(), 3);
    assert!(
        told[0].2.starts_with("spec.kafka.topics.taskEvents.replicas: 5 copies"),
        "{told:?}"
    );
}

#[test]
fn a_database_that_is_gone_stops_the_pass() {
    let mut inputs = inputs(sample("platform.yaml"), bare());
    inputs.database = DatabaseFacts::default();
    assert_eq!(one(&inputs, "DatabaseLost").1, Severity::Blocking);
    inputs.database.is_cluster = true;
    assert_eq!(one(&inputs, "CloudNativePGNotInstalled").1, Severity::Blocking);
    // Before the first release there is nothing to lose.
    inputs.database.is_cluster = false;
    inputs.release = None;
    assert_eq!(validate(&inputs), vec![]);
}

#[test]
fn tls_that_the_sidecar_cannot_speak_is_told_before_it_fails() {
    let managed = inputs(manifest("managed-kafka.yaml"), full());
    let open = with_spec(&managed, |spec| {
        let external = spec["kafka"]["external"].as_object_mut().unwrap();
        external.remove("sasl");
        external.remove("caSecretRef");
    });
    assert_eq!(one(&open, "AuthorityNotGiven").1, Severity::Blocking);
}

#[test]
fn what_has_no_effect_is_said() {
    let notes = |inputs: &Inputs, reason: &str| -> Vec<String> {
        told(inputs, reason).into_iter().map(|(.., message)| message).collect()
    };
    let production = inputs(sample("production.yaml"), full());
    let absent = notes(&production, "RoleNotAvailable");
    assert_eq!(absent.len(), 3, "{absent:?}");

    let small = inputs(sample("platform.yaml"), bare());
    let small = with_spec(&small, |spec| {
        spec["workers"]["audit"]["autoscaling"] = serde_json::json!({"max": 3, "targetLag": 10});
        spec["database"]["pool"]["max"] = 4.into();
        spec["dapr"] = serde_json::json!({"tracing": {"otlpEndpoint": "collector:4317"}});
    });
    for reason in ["NoLagAutoscaling", "NoPodsOfItsOwn", "PoolTooSmall", "NoSidecars"] {
        assert_eq!(one(&small, reason).1, Severity::Note);
    }
}

#[test]
fn a_spec_that_the_rules_refuse_stops_the_pass() {
    let small = inputs(sample("platform.yaml"), bare());
    let wrong = with_spec(&small, |spec| spec["version"] = "latest".into());
    let (_, severity, message) = one(&wrong, "InvalidSpec");
    assert_eq!(severity, Severity::Blocking);
    assert!(message.starts_with("spec.version: "), "{message}");
}

#[test]
fn a_volume_that_is_there_stays_as_it_is_and_the_rest_goes_on() {
    let with = |storage: serde_json::Value| {
        let settled = inputs(sample("platform.yaml"), bare());
        let mut inputs = with_spec(&settled, |spec| spec["database"]["storage"] = storage);
        inputs.database.volume = Some(VolumeFacts {
            size: "1Gi".to_owned(),
            class: None,
        });
        inputs
    };
    assert_eq!(
        told(&with(serde_json::json!({"size": "1024Mi"})), "VolumeCannotChange"),
        vec![]
    );
    for changed in [
        serde_json::json!({"size": "2Gi"}),
        serde_json::json!({"size": "1Gi", "className": "fast"}),
    ] {
        let inputs = with(changed);
        let (about, severity, message) = one(&inputs, "VolumeCannotChange");
        assert_eq!((about, severity), (ConditionType::DatabaseReady, Severity::Impaired));
        assert!(
            message.starts_with("spec.database.storage: ") && message.contains("urlSecretRef"),
            "{message}"
        );
        let children = build(&inputs);
        let set = children
            .iter()
            .find(|child| child.key.kind == Kind::StatefulSet)
            .unwrap();
        let claim = &set.body["spec"]["volumeClaimTemplates"][0]["spec"];
        assert_eq!(claim["resources"]["requests"]["storage"], "1Gi");
        assert!(claim.get("storageClassName").is_none(), "{claim}");
    }
}
