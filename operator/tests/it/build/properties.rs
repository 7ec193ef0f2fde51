//! What must hold of anything that is built.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::{apps, autoscaling, batch, core, networking, policy};
use promql_parser::label::MatchOp;
use promql_parser::parser::{Expr, VectorSelector, parse};
use serde::de::DeserializeOwned;
use serde_json::Value;
use todo_operator::child::{Child, Children, Kind, Stage, Tenure, Write};
use todo_operator::names::{NAMESPACE_LABEL, Names, PLATFORM_LABEL};
use todo_operator::platform::build::build;
use todo_operator::platform::{Inputs, VolumeFacts};

use super::restricted::violations;
use super::{SECRET, bare, cases, facts, full, full_but, inputs, manifest, pod_spec, sample, values, with_spec};

/// The cases, and each in a cluster that lacks one kind or another.
fn every_case() -> Vec<(String, Inputs)> {
    let mut every = cases();
    for (name, inputs) in cases() {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.optional().is_some()) {
            let inputs = Inputs {
                capabilities: Arc::new(full_but(&[kind])),
                ..inputs.clone()
            };
            every.push((format!("{name} without {kind}"), inputs));
        }
        let unborn = Inputs {
            release: None,
            ..inputs
        };
        every.push((format!("{name} before its first release"), unborn));
    }
    every
}

/// What is built of each of them.
static BUILT: LazyLock<Vec<(String, Inputs, Children)>> = LazyLock::new(|| {
    let cases = every_case().into_iter();
    cases
        .map(|(name, inputs)| {
            let children = build(&inputs);
            (name, inputs, children)
        })
        .collect()
});

fn each(check: impl Fn(&str, &Inputs, &Child)) {
    for (name, inputs, children) in BUILT.iter() {
        for child in children.iter() {
            check(&format!("{name}: {}", child.key), inputs, child);
        }
    }
}

fn get<'a>(children: &'a Children, kind: Kind, name: &str) -> Option<&'a Value> {
    let found = children
        .iter()
        .find(|child| child.key.kind == kind && child.key.name == name);
    found.map(|child| &child.body)
}

#[test]
fn the_same_inputs_make_the_same_children() {
    for (name, inputs, children) in BUILT.iter() {
        assert_eq!(*children, build(inputs), "{name}");
    }
}

#[test]
fn every_child_is_called_by_its_key_and_says_whose_it_is() {
    each(|place, inputs, child| {
        let names = Names::of(&inputs.platform);
        let metadata = &child.body["metadata"];
        assert_eq!(child.body["kind"], child.key.kind.name(), "{place}");
        assert_eq!(metadata["name"], child.key.name.as_str(), "{place}");
        assert_eq!(metadata["namespace"], child.key.namespace.as_str(), "{place}");
        assert_eq!(metadata["labels"][PLATFORM_LABEL], names.platform.as_str(), "{place}");
        assert_eq!(metadata["labels"][NAMESPACE_LABEL], names.namespace.as_str(), "{place}");
        assert_eq!(
            metadata["labels"]["app.kubernetes.io/managed-by"], "todo-operator",
            "{place}"
        );
        assert!(metadata["labels"]["app.kubernetes.io/component"].is_string(), "{place}");
        assert!(child.body.get("status").is_none(), "{place}");
    });
}

#[test]
fn a_child_has_an_owner_or_is_kept_or_lies_elsewhere() {
    each(|place, inputs, child| {
        let owners = child.body.pointer("/metadata/ownerReferences");
        let is_elsewhere = child.key.namespace != Names::of(&inputs.platform).namespace;
        assert_eq!(
            owners.is_none(),
            child.tenure == Tenure::Kept || is_elsewhere,
            "{place}"
        );
        if let Some(owners) = owners {
            assert_eq!(
                owners[0]["uid"],
                inputs.platform.metadata.uid.as_deref().unwrap(),
                "{place}"
            );
            assert_eq!(owners[0]["controller"], true, "{place}");
        }
    });
}

#[test]
fn what_holds_data_is_kept_unless_the_manifest_says_otherwise() {
    let data = [Kind::StatefulSet, Kind::DatabaseCluster, Kind::KafkaTopic];
    each(|place, inputs, child| {
        let is_database_secret =
            child.key.kind == Kind::Secret && child.key.name == Names::of(&inputs.platform).database();
        if data.contains(&child.key.kind) || is_database_secret {
            let is_retained = inputs.platform.spec.deletion_policy == todo_crds::platform::DeletionPolicy::Retain;
            assert_eq!(child.tenure == Tenure::Kept, is_retained, "{place}");
        }
    });
}

#[test]
fn no_two_children_have_one_key() {
    for (name, _, children) in BUILT.iter() {
        let mut keys = BTreeSet::new();
        for child in children.iter() {
            assert!(keys.insert(child.key.clone()), "{name}: {} twice", child.key);
        }
    }
}

#[test]
fn children_come_in_the_order_of_their_stages() {
    for (name, _, children) in BUILT.iter() {
        let stages: Vec<Stage> = children.iter().map(|child| child.stage).collect();
        assert!(stages.is_sorted(), "{name}");
    }
}

#[test]
fn nothing_is_built_that_the_cluster_does_not_serve() {
    each(|place, inputs, child| {
        let version = inputs.capabilities.version(child.key.kind);
        assert!(version.is_some(), "{place}");
        let api_version = child.body["apiVersion"].as_str().unwrap();
        assert_eq!(api_version.rsplit('/').next(), version, "{place}");
    });
}

#[test]
fn every_pod_may_run_under_the_restricted_profile_and_has_no_token() {
    each(|place, _, child| {
        let Some(pod) = pod_spec(&child.body) else {
            return;
        };
        assert_eq!(violations(pod), Vec::<String>::new(), "{place}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{place}");
        for container in pod["containers"].as_array().unwrap() {
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{place}");
            assert!(container.pointer("/resources/requests/cpu").is_some(), "{place}");
            assert!(container.pointer("/resources/requests/memory").is_some(), "{place}");
        }
    });
}

#[test]
fn every_account_and_config_and_secret_that_a_pod_names_is_built_or_referred_to() {
    for (name, inputs, children) in BUILT.iter() {
        for child in children.iter() {
            let Some(pod) = pod_spec(&child.body) else {
                continue;
            };
            let place = format!("{name}: {}", child.key);
            let account = pod["serviceAccountName"].as_str().unwrap();
            assert!(
                get(children, Kind::ServiceAccount, account).is_some(),
                "{place}: {account}"
            );
            let mut secrets = vec![];
            for volume in pod["volumes"].as_array().unwrap() {
                if let Some(map) = volume.pointer("/configMap/name") {
                    assert!(
                        get(children, Kind::ConfigMap, map.as_str().unwrap()).is_some(),
                        "{place}: {map}"
                    );
                }
                let sources = volume.pointer("/projected/sources").and_then(Value::as_array);
                for source in sources.into_iter().flatten() {
                    secrets.push((&source["secret"]["name"], &source["secret"]["items"][0]["key"]));
                }
            }
            for container in pod["containers"].as_array().unwrap() {
                for env in container["env"].as_array().into_iter().flatten() {
                    if let Some(secret) = env.pointer("/valueFrom/secretKeyRef") {
                        secrets.push((&secret["name"], &secret["key"]));
                    }
                }
            }
            for (secret, key) in secrets {
                let (secret, key) = (secret.as_str().unwrap(), key.as_str().unwrap());
                let is_built = get(children, Kind::Secret, secret).is_some_and(|body| body["data"][key].is_string());
                let is_given = inputs.secrets.get(secret).is_some_and(|facts| facts.keys.contains(key));
                // CloudNativePG's own, for the application's user.
                let is_made = get(children, Kind::DatabaseCluster, secret.trim_end_matches("-app")).is_some();
                let is_lost = inputs.database.is_cluster && secret.ends_with("-db-app");
                assert!(is_built || is_given || is_made || is_lost, "{place}: {secret}/{key}");
            }
        }
    }
}

#[test]
fn no_secret_value_is_in_anything_but_a_secret() {
    each(|place, _, child| {
        if child.key.kind == Kind::Secret {
            return;
        }
        let text = child.body.to_string();
        assert!(!text.contains(SECRET), "{place}");
        // However it lies within base64, one of the three shifts shows.
        for shift in 0..3 {
            let encoded = BASE64_STANDARD.encode(format!("{}{SECRET}", &"   "[..shift]));
            assert!(!text.contains(&encoded[4..encoded.len() - 4]), "{place}");
        }
    });
}

#[test]
fn a_deployment_has_replicas_exactly_when_no_autoscaler_owns_them() {
    for (name, _, children) in BUILT.iter() {
        for child in children.iter().filter(|child| child.key.kind == Kind::Deployment) {
            let scalers = [Kind::HorizontalPodAutoscaler, Kind::ScaledObject];
            let scaled: Vec<Kind> = scalers
                .into_iter()
                .filter(|kind| get(children, *kind, &child.key.name).is_some())
                .collect();
            assert!(scaled.len() < 2, "{name}: {} has two autoscalers", child.key);
            let replicas = child.body.pointer("/spec/replicas");
            assert_eq!(replicas.is_none(), !scaled.is_empty(), "{name}: {}", child.key);
        }
    }
}

#[test]
fn a_suspended_component_has_no_pods_no_autoscaler_and_no_budget() {
    let children = build(&inputs(manifest("suspended.yaml"), full()));
    for component in ["api", "reminders", "audit"] {
        let name = format!("quiet-{component}");
        let deployment = get(&children, Kind::Deployment, &name).unwrap();
        assert_eq!(deployment.pointer("/spec/replicas").unwrap(), 0, "{name}");
        for kind in [
            Kind::HorizontalPodAutoscaler,
            Kind::ScaledObject,
            Kind::PodDisruptionBudget,
        ] {
            assert!(get(&children, kind, &name).is_none(), "{name}: {kind}");
        }
    }
    let relay = get(&children, Kind::Deployment, "quiet-relay").unwrap();
    assert_eq!(relay.pointer("/spec/replicas").unwrap(), 1);
    let warned = get(&children, Kind::PrometheusRule, "quiet").unwrap().to_string();
    assert!(warned.contains("TodoNoRelay") && !warned.contains("TodoNoReminders"));
}

#[test]
fn no_pod_starts_before_a_release_may_run() {
    for (name, inputs) in cases() {
        let children = build(&Inputs {
            release: None,
            ..inputs
        });
        let early = children.iter().find(|child| child.stage == Stage::Run);
        assert_eq!(early.map(|child| child.key.to_string()), None, "{name}");
        assert!(children.iter().any(|child| child.key.kind == Kind::Job), "{name}");
    }
}

#[test]
fn the_migration_is_of_the_target_while_pods_stay_at_what_runs() {
    let mut inputs = inputs(sample("production.yaml"), full());
    let running = inputs.release.as_mut().unwrap();
    running.version = "1.3.2".to_owned();
    running.image = "registry.example.com/todo:1.3.2".to_owned();
    for child in build(&inputs).iter() {
        let Some(pod) = pod_spec(&child.body) else {
            continue;
        };
        let version = match child.key.kind {
            Kind::Job => "1.4.0",
            _ => "1.3.2",
        };
        assert_eq!(
            pod["containers"][0]["image"],
            format!("registry.example.com/todo:{version}"),
            "{}",
            child.key
        );
        let labels = child.body.pointer("/spec/template/metadata/labels").unwrap();
        assert_eq!(labels["app.kubernetes.io/version"], version, "{}", child.key);
    }
}

#[test]
fn pods_stay_at_their_database_until_another_is_migrated() {
    let before = inputs(sample("production.yaml"), full());
    let mut after = before.clone();
    let platform = Arc::make_mut(&mut after.platform);
    platform.spec.database.url_secret_ref.as_mut().unwrap().name = "another-db".to_owned();
    assert_eq!(rolled(&before, &after), BTreeSet::new());
    let (before, after) = (build(&before), build(&after));
    let jobs = |children: &Children| -> Vec<Value> {
        let jobs = children.iter().filter(|child| child.key.kind == Kind::Job);
        jobs.map(|job| job.body.clone()).collect()
    };
    assert_ne!(jobs(&before), jobs(&after));
    assert!(jobs(&after)[0].to_string().contains("another-db"));
    let components = |children: &Children| -> Vec<Value> {
        let components = children.iter().filter(|child| child.key.kind == Kind::Component);
        components.map(|component| component.body.clone()).collect()
    };
    assert_eq!(components(&before), components(&after));
}

#[test]
fn as_long_as_the_brokers_are_unknown_nothing_that_speaks_to_them_is_touched() {
    let settled = inputs(manifest("everything.yaml"), full());
    let no_listener = Inputs {
        kafka: None,
        ..settled.clone()
    };
    let no_user = Inputs {
        kafka_user: None,
        ..settled
    };
    for inputs in [no_listener, no_user] {
        let children = build(&inputs);
        assert!(!children.is_complete());
        let touched = children
            .iter()
            .find(|child| child.stage == Stage::Run || child.key.kind.group() == "dapr.io");
        assert_eq!(touched.map(|child| child.key.to_string()), None);
        // What they wait for is asked for.
        assert!(children.iter().any(|child| child.key.kind == Kind::KafkaUser));
        assert!(children.iter().any(|child| child.key.kind == Kind::Job));
    }
}

/// The names of the Deployments whose pods differ.
fn rolled(before: &Inputs, after: &Inputs) -> BTreeSet<String> {
    let templates = |inputs: &Inputs| -> Vec<(String, Value)> {
        build(inputs)
            .iter()
            .filter(|child| child.key.kind == Kind::Deployment)
            .map(|child| (child.key.name.clone(), child.body["spec"]["template"].clone()))
            .collect()
    };
    let (before, after) = (templates(before), templates(after));
    let pairs = before.into_iter().zip(after);
    pairs
        .filter(|(before, after)| before != after)
        .map(|(_, (name, _))| name)
        .collect()
}

fn with_new_secret(inputs: &Inputs, name: &str) -> Inputs {
    let mut inputs = inputs.clone();
    let mut values = values(name);
    for value in values.values_mut() {
        value.extend_from_slice(b"-new");
    }
    let known = inputs.secrets.insert(name.to_owned(), facts(&values));
    assert!(known.is_some(), "{name} is not one of the case's Secrets");
    inputs
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| format!("acme-{name}")).collect()
}

#[test]
fn a_changed_secret_rolls_the_pods_that_do_not_read_it_again_and_no_others() {
    let redis = inputs(manifest("everything.yaml"), full());
    let managed = inputs(manifest("managed-kafka.yaml"), full());
    let everyone = names(&["api", "audit", "recurring", "relay", "reminders"]);
    let speakers = names(&["audit", "recurring", "relay"]);
    let cases = [
        // Loaded by sidecars at their start.
        (&redis, "acme-redis", names(&["api"])),
        (&managed, "acme-kafka", speakers.clone()),
        // The API's sidecar keeps state in the database; the processes read its URL again.
        (&managed, "acme-db", names(&["api"])),
        // Read again by the process.
        (&redis, "acme-token", names(&[])),
        (&redis, "acme-internal-key", names(&[])),
        // In the environment of both sides.
        (&redis, "acme-app-token", everyone.clone()),
        (&redis, "acme-dapr-token", everyone),
    ];
    for (inputs, secret, expected) in cases {
        assert_eq!(rolled(inputs, &with_new_secret(inputs, secret)), expected, "{secret}");
    }
    let mut other_user = redis.clone();
    other_user.kafka_user = Some([("password".to_owned(), b"another".to_vec())].into());
    assert_eq!(rolled(&redis, &other_user), speakers);
}

#[test]
fn a_changed_setting_rolls_the_pods_that_read_it_and_no_others() {
    let inputs = inputs(manifest("everything.yaml"), full());
    let everyone = names(&["api", "audit", "recurring", "relay", "reminders"]);
    let cases = [
        ("/api/rateLimit/burst", Value::from(41), names(&["api"])),
        ("/api/limits/maxPageSize", Value::from(101), names(&["api"])),
        ("/database/pool/max", Value::from(31), everyone.clone()),
        ("/observability/logFormat", Value::from("json"), everyone.clone()),
        (
            "/workers/audit/resources/limits/memory",
            Value::from("1Gi"),
            names(&["audit"]),
        ),
        // Brokers keep topics; nobody who runs reads how long.
        ("/kafka/topics/taskEvents/retention", Value::from("61d"), names(&[])),
        ("/observability/alerts", Value::from(false), names(&[])),
        ("/api/autoscaling/max", Value::from(10), names(&[])),
        (
            "/dapr/tracing/otlpEndpoint",
            Value::from("other.observability:4317"),
            everyone,
        ),
    ];
    for (path, value, expected) in cases {
        let changed = with_spec(&inputs, |spec| *spec.pointer_mut(path).unwrap() = value);
        assert_eq!(rolled(&inputs, &changed), expected, "{path}");
    }
}

#[test]
fn pods_get_their_sidecars_when_dapr_comes() {
    let before = inputs(manifest("managed-kafka.yaml"), full_but(&[Kind::Component]));
    let after = inputs(manifest("managed-kafka.yaml"), full());
    assert_eq!(
        rolled(&before, &after),
        names(&["api", "audit", "recurring", "relay", "reminders"])
    );
    let annotations = |inputs: &Inputs| {
        let children = build(inputs);
        let relay = get(&children, Kind::Deployment, "acme-relay").unwrap();
        relay
            .pointer("/spec/template/metadata/annotations")
            .unwrap()
            .to_string()
    };
    assert!(!annotations(&before).contains("dapr.io/"));
    assert!(annotations(&after).contains("dapr.io/enabled"));
}

#[test]
fn the_internal_key_is_drawn_once_and_again_when_that_is_asked() {
    let find = |inputs: &Inputs| {
        let children = build(inputs);
        children
            .iter()
            .find(|child| child.key.name.ends_with("-internal-key"))
            .unwrap()
            .clone()
    };
    let decoded = |child: &Child, key: &str| {
        let value = child.body["data"][key]
            .as_str()
            .map(|value| BASE64_STANDARD.decode(value).unwrap());
        value.map(|value| String::from_utf8(value).unwrap())
    };
    let mut inputs = inputs(sample("platform.yaml"), full());
    assert_eq!(find(&inputs).write, Write::Once);

    let asked = "todoplatform.dev/rotate-internal-key";
    let mut platform = (*inputs.platform).clone();
    platform.metadata.annotations = Some([(asked.to_owned(), "monday".to_owned())].into());
    inputs.platform = Arc::new(platform);
    let rotated = find(&inputs);
    assert_eq!(rotated.write, Write::Always);
    assert_eq!(rotated.body["metadata"]["resourceVersion"], "7");
    assert_eq!(rotated.body["metadata"]["annotations"][asked], "monday");
    assert_eq!(decoded(&rotated, "key").unwrap(), inputs.drawn.internal_key);
    assert_eq!(
        decoded(&rotated, "previous").unwrap(),
        format!("{SECRET}former-internal-key")
    );

    // It was answered: the annotation stays, and asks for nothing more.
    inputs.internal_key.as_mut().unwrap().rotated = Some("monday".to_owned());
    assert_eq!(find(&inputs).write, Write::Once);
    // One that is made while the annotation is there has answered it.
    inputs.internal_key = None;
    assert_eq!(find(&inputs).body["metadata"]["annotations"][asked], "monday");
}

#[test]
fn the_key_to_the_data_follows_the_deletion_policy_and_keeps_its_value() {
    let mut inputs = inputs(sample("platform.yaml"), bare());
    let mut known = facts(&values("home-db"));
    known.uid = Some("uid-of-the-secret".to_owned());
    inputs.secrets.insert("home-db".to_owned(), known);
    for (policy, is_owned) in [("Retain", false), ("Delete", true)] {
        let inputs = with_spec(&inputs, |spec| spec["deletionPolicy"] = policy.into());
        let children = build(&inputs);
        let secret = children
            .iter()
            .find(|child| child.key.kind == Kind::Secret && child.key.name == "home-db");
        let secret = secret.unwrap();
        assert_eq!(secret.write, Write::Always);
        assert_eq!(secret.body["metadata"]["uid"], "uid-of-the-secret");
        assert!(secret.body["data"].is_null() && secret.body["type"].is_null());
        assert_eq!(
            secret.body["metadata"]["ownerReferences"].is_array(),
            is_owned,
            "{policy}"
        );
    }
}

#[test]
fn the_climb_keeps_data_tokens_and_the_address() {
    let rung_2 = inputs(sample("platform.yaml"), full_but(&[Kind::DatabaseCluster]));
    let rung_3 = with_spec(&rung_2, |spec| {
        spec["kafka"] = serde_json::json!({"external": {"brokers": ["kafka:9092"], "tls": false}});
        spec["dapr"] = serde_json::json!({"stateStore": {"postgresql": {}}});
    });
    let (low, high) = (build(&rung_2), build(&rung_3));
    for (kind, name) in [
        (Kind::StatefulSet, "home-db"),
        (Kind::Secret, "home-db"),
        (Kind::Secret, "home-token"),
        (Kind::Secret, "home-internal-key"),
        (Kind::Service, "home-api"),
    ] {
        assert_eq!(
            get(&low, kind, name).unwrap(),
            get(&high, kind, name).unwrap(),
            "{kind} {name}"
        );
    }
    // Old and new pods are behind the Service together.
    let selector = get(&high, Kind::Service, "home-api").unwrap()["spec"]["selector"]
        .as_object()
        .unwrap()
        .clone();
    for (children, deployment) in [(&low, "home-all"), (&high, "home-api")] {
        let labels = &get(children, Kind::Deployment, deployment).unwrap()["spec"]["template"]["metadata"]["labels"];
        assert!(
            selector.iter().all(|(name, value)| labels[name] == *value),
            "{deployment}"
        );
    }
}

#[test]
fn an_empty_database_never_takes_the_place_of_one_that_is_gone() {
    let mut inputs = inputs(sample("platform.yaml"), full_but(&[Kind::DatabaseCluster]));
    inputs.database = todo_operator::platform::DatabaseFacts::default();
    let children = build(&inputs);
    assert!(children.iter().all(|child| child.key.kind != Kind::StatefulSet));
    // With the Secret still there, it was a StatefulSet, and its volume waits.
    inputs.secrets.insert("home-db".to_owned(), facts(&values("home-db")));
    assert!(get(&build(&inputs), Kind::StatefulSet, "home-db").is_some());
}

#[test]
fn what_stays_a_stateful_set_stays_one_when_cloudnativepg_comes() {
    let mut inputs = inputs(sample("platform.yaml"), full());
    inputs.database = todo_operator::platform::DatabaseFacts {
        is_stateful_set: true,
        ..todo_operator::platform::DatabaseFacts::default()
    };
    let children = build(&inputs);
    assert!(get(&children, Kind::StatefulSet, "home-db").is_some());
    assert!(get(&children, Kind::DatabaseCluster, "home-db").is_none());
}

#[test]
fn sidecars_keep_to_the_rules_that_lose_no_event() {
    let children = build(&inputs(manifest("managed-kafka.yaml"), full()));
    let pubsub = get(&children, Kind::Component, "acme-pubsub").unwrap();
    let item = |name: &str| {
        let items = pubsub["spec"]["metadata"].as_array().unwrap();
        items.iter().find(|item| item["name"] == name).unwrap_or(&Value::Null)["value"].clone()
    };
    // Kafka's own name would silently mean PLAIN.
    assert_eq!(item("saslMechanism"), "SHA-512");
    assert_eq!(item("initialOffset"), "oldest");
    assert_eq!(
        pubsub["scopes"],
        serde_json::json!(["acme-relay", "acme-recurring", "acme-audit"])
    );
    let resiliency = get(&children, Kind::Resiliency, "acme").unwrap();
    let inbound = &resiliency["spec"]["targets"]["components"]["acme-pubsub"]["inbound"];
    assert!(inbound["circuitBreaker"].is_null());
    let retry = &resiliency["spec"]["policies"]["retries"][inbound["retry"].as_str().unwrap()];
    assert_eq!(
        (&retry["policy"], &retry["maxRetries"]),
        (&Value::from("constant"), &Value::from(-1))
    );
    let subscriptions: Vec<&Child> = children
        .iter()
        .filter(|child| child.key.kind == Kind::Subscription)
        .collect();
    assert_eq!(subscriptions.len(), 2);
    for subscription in subscriptions {
        let spec = &subscription.body["spec"];
        assert_eq!(spec["topic"], "acme-task-events");
        assert_eq!(spec["routes"]["default"], "/events/task-events");
        assert_eq!(spec["metadata"]["rawPayload"], "true");
        assert!(spec["bulkSubscribe"]["maxMessagesCount"].as_u64().unwrap() <= 500);
        assert!(spec["deadLetterTopic"].as_str().unwrap().ends_with("-dead-letters"));
    }
}

#[test]
fn a_sidecar_has_the_time_that_its_components_may_take_to_connect() {
    each(|case, inputs, child| {
        if child.key.kind != Kind::Component {
            return;
        }
        let children = build(inputs);
        let apps = child.body["scopes"].as_array().unwrap();
        let of_platform = apps
            .iter()
            .filter_map(|app| get(&children, Kind::Deployment, app.as_str()?));
        for deployment in of_platform {
            let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
            let misses = annotations["dapr.io/sidecar-liveness-probe-threshold"]
                .as_str()
                .unwrap();
            // Dapr's own period.
            let patience = 6 * misses.parse::<u64>().unwrap();
            let takes = child.body["spec"]["initTimeout"].as_str().unwrap();
            let takes: u64 = takes.strip_suffix('s').unwrap().parse().unwrap();
            assert!(takes < patience, "{case}: {} takes {takes} s", child.key);
        }
    });
}

#[test]
fn every_expression_is_narrowed_to_the_platform_and_still_parses() {
    for (name, inputs) in cases() {
        for child in build(&inputs).iter() {
            let mut expressions = vec![];
            match child.key.kind {
                Kind::PrometheusRule => expressions_in(&child.body, &mut expressions),
                Kind::ConfigMap if child.key.name.ends_with("-dashboards") => {
                    for text in child.body["data"].as_object().unwrap().values() {
                        let dashboard: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
                        expressions_in(&dashboard, &mut expressions);
                    }
                }
                _ => continue,
            }
            assert!(expressions.len() > 15, "{name}: {}", child.key);
            for expression in expressions {
                let parsed = parse(&expression.replace("$__rate_interval", "1m")).expect(&expression);
                let mut selectors = vec![];
                selectors_in(&parsed, &mut selectors);
                assert!(!selectors.is_empty(), "{expression}");
                for selector in selectors {
                    // Kafka's exporter is not the platform's.
                    let is_ours = selector.name.as_deref() != Some("kafka_consumergroup_lag");
                    let namespace = &Names::of(&inputs.platform).namespace;
                    let is_narrowed = selector.matchers.matchers.iter().any(|matcher| {
                        matches!(matcher.op, MatchOp::Equal)
                            && ((matcher.name == "job" && matcher.value.starts_with(&format!("{namespace}/")))
                                || (matcher.name == "namespace" && matcher.value == *namespace))
                    });
                    assert_eq!(is_narrowed, is_ours, "{expression}: {:?}", selector.name);
                }
            }
        }
    }
}

fn expressions_in(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "expr" => found.push(text.clone()),
                    _ => expressions_in(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions_in(item, found)),
        _ => {}
    }
}

fn selectors_in<'a>(expression: &'a Expr, found: &mut Vec<&'a VectorSelector>) {
    match expression {
        Expr::Aggregate(aggregate) => {
            selectors_in(&aggregate.expr, found);
            if let Some(parameter) = &aggregate.param {
                selectors_in(parameter, found);
            }
        }
        Expr::Unary(unary) => selectors_in(&unary.expr, found),
        Expr::Binary(binary) => {
            selectors_in(&binary.lhs, found);
            selectors_in(&binary.rhs, found);
        }
        Expr::Paren(paren) => selectors_in(&paren.expr, found),
        Expr::Subquery(subquery) => selectors_in(&subquery.expr, found),
        Expr::VectorSelector(selector) => found.push(selector),
        Expr::MatrixSelector(selector) => found.push(&selector.vs),
        Expr::Call(call) => call.args.args.iter().for_each(|argument| selectors_in(argument, found)),
        _ => {}
    }
}

/// What the database runs by, and the only key to it, must be there on the way back.
#[test]
fn a_database_that_a_platform_has_left_stays_with_what_it_needs() {
    for policy in ["Retain", "Delete"] {
        let with_policy = |inputs: &Inputs| with_spec(inputs, |spec| spec["deletionPolicy"] = policy.into());
        let own = with_policy(&inputs(sample("platform.yaml"), bare()));
        let name = Names::of(&own.platform).database();
        let mut left = with_spec(&own, |spec| {
            spec["database"]["urlSecretRef"] = serde_json::json!({"name": "acme-db", "key": "url"});
        });
        left.secrets.insert("acme-db".to_owned(), facts(&values("acme-db")));
        let of_database = |inputs: &Inputs| -> Vec<Child> {
            let children = build(inputs);
            children
                .iter()
                .filter(|child| child.key.name == name)
                .cloned()
                .collect()
        };
        assert_eq!(of_database(&own).len(), 4, "account, Secret, Service and StatefulSet");
        assert_eq!(of_database(&left), of_database(&own), "{policy}");
        left.database = todo_operator::platform::DatabaseFacts::default();
        assert_eq!(of_database(&left), vec![], "somebody has deleted it");

        let mut left = with_spec(&with_policy(&inputs(sample("platform.yaml"), full())), |spec| {
            spec["database"]["urlSecretRef"] = serde_json::json!({"name": "acme-db", "key": "url"});
        });
        left.database.left_volume = Some(VolumeFacts {
            size: "100Gi".to_owned(),
            class: None,
        });
        let children = build(&left);
        let cluster = get(&children, Kind::DatabaseCluster, &name).unwrap();
        assert_eq!(
            cluster["spec"]["storage"],
            serde_json::json!({"size": "100Gi"}),
            "no smaller one"
        );
    }
}

/// Kubernetes' own kinds have types: what is read by one and written again must be the same, or a field is misspelt.
#[test]
fn every_field_of_kubernetes_own_kinds_is_one_that_there_is() {
    fn same<T: DeserializeOwned + serde::Serialize>(place: &str, body: &Value) {
        let typed: T = serde_json::from_value(body.clone()).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(serde_json::to_value(typed).unwrap(), *body, "{place}");
    }
    each(|place, _, child| match child.key.kind {
        Kind::ServiceAccount => same::<core::v1::ServiceAccount>(place, &child.body),
        Kind::ConfigMap => same::<core::v1::ConfigMap>(place, &child.body),
        Kind::Secret => same::<core::v1::Secret>(place, &child.body),
        Kind::Service => same::<core::v1::Service>(place, &child.body),
        Kind::NetworkPolicy => same::<networking::v1::NetworkPolicy>(place, &child.body),
        Kind::StatefulSet => same::<apps::v1::StatefulSet>(place, &child.body),
        Kind::Job => same::<batch::v1::Job>(place, &child.body),
        Kind::Deployment => same::<apps::v1::Deployment>(place, &child.body),
        Kind::HorizontalPodAutoscaler => same::<autoscaling::v2::HorizontalPodAutoscaler>(place, &child.body),
        Kind::PodDisruptionBudget => same::<policy::v1::PodDisruptionBudget>(place, &child.body),
        Kind::Ingress => same::<networking::v1::Ingress>(place, &child.body),
        kind => assert!(kind.optional().is_some(), "{place}: its type is not checked"),
    });
}

#[test]
fn pods_that_are_made_with_their_secrets_do_not_roll_when_those_are_there() {
    let settled = inputs(manifest("everything.yaml"), full());
    let names = Names::of(&settled.platform);
    let own = [names.app_token(), names.dapr_token()];
    let mut first = settled.clone();
    first.secrets.retain(|name, _| !own.contains(name));
    let made = build(&first);
    let mut next = first.clone();
    for name in &own {
        let data = get(&made, Kind::Secret, name)
            .and_then(|secret| secret["data"].as_object())
            .unwrap();
        let values = data.iter().map(|(key, value)| {
            let value = BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap();
            (key.clone(), value)
        });
        next.secrets.insert(name.clone(), facts(&values.collect()));
    }
    next.drawn.app_token = "another draw".to_owned();
    next.drawn.dapr_token = "another draw".to_owned();
    let deployments = |children: &Children| -> Vec<Child> {
        let deployments = children.iter().filter(|child| child.key.kind == Kind::Deployment);
        deployments.cloned().collect()
    };
    assert_eq!(deployments(&made), deployments(&build(&next)));
}
