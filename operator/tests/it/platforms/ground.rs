//! What the platforms of a walk stand on: the Secrets that their specs name, two Kafka clusters of Strimzi's in each of
//! two namespaces, a Kafka that runs elsewhere, and who answers for them.
//!
//! The Kafka elsewhere is a real broker. Strimzi's operators and CloudNativePG's are test doubles.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};
use todo_crds::TodoPlatform;
use todo_operator::capabilities::Capabilities;
use todo_operator::child::Kind;
use todo_operator::kafka::look_after;
use todo_operator::platform::build::topics;
use todo_operator::platform::dereference::assumed;
use todo_test_cluster::{Options, StandInKafka, StandInTopicOperator, StandInUserOperator};

use super::world::{World, settings};
use crate::kafka::broker::{ADMIN, Broker};
use crate::specs::{ELSEWHERE, Ground, SECRETS};

/// The clusters of Strimzi's that there are in each namespace.
const CLUSTERS: [&str; 2] = ["events", "others"];

/// What is laid for one world.
pub(crate) struct Footing {
    /// The other namespace with Kafka clusters.
    pub(crate) elsewhere: String,
    is_full: bool,
    _strimzi: Vec<(StandInTopicOperator, StandInUserOperator)>,
}

/// What specs may refer to on a cluster with these APIs.
pub(crate) fn ground(options: Options, broker: &Broker) -> Ground {
    let external = |listener: &str, rest: Value| {
        let mut external = json!({"brokers": [broker.address(listener)], "tls": listener.ends_with("SSL")});
        external
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        json!({"external": external})
    };
    let authority = json!({"name": "authority", "key": "ca.pem"});
    let login = |mechanism: &str| json!({"mechanism": mechanism, "secretRef": {"name": "login"}});
    let mut kafkas = vec![
        external("PLAINTEXT", json!({"manageTopics": true})),
        external("SSL", json!({"caSecretRef": authority})),
        external("SASL_PLAINTEXT", json!({"sasl": login("SCRAM-SHA-256")})),
        external(
            "SASL_SSL",
            json!({"caSecretRef": authority, "sasl": login("SCRAM-SHA-512"), "manageTopics": true}),
        ),
        external("SASL_SSL", json!({"caSecretRef": authority, "sasl": login("PLAIN")})),
    ];
    if options.strimzi {
        let strimzi = |cluster: Value, user: Value| json!({"strimzi": {"cluster": cluster, "user": user}});
        kafkas.extend([
            strimzi(json!({"name": "events"}), json!({"create": true})),
            strimzi(json!({"name": "others"}), json!({"create": true})),
            strimzi(json!({"name": "events", "namespace": ELSEWHERE}), json!({})),
            strimzi(
                json!({"name": "others", "namespace": ELSEWHERE}),
                json!({"create": false}),
            ),
            strimzi(
                json!({"name": "events"}),
                json!({"create": false, "secretRef": {"name": "login"}}),
            ),
        ]);
    }
    Ground {
        kafkas,
        makes_databases_later: options.cnpg,
        pauses: false,
    }
}

impl Footing {
    pub(crate) async fn lay(world: &World, options: Options) -> Result<Self> {
        let broker = Broker::shared().await;
        for (name, keys) in SECRETS {
            let values = keys.iter().map(|key| ((*key).to_owned(), value(key, broker).into()));
            world.secret(name, &Value::Object(values.collect())).await?;
        }
        let own = world.namespace.name();
        let elsewhere = format!("{own}-kafka");
        let namespaces: Api<Namespace> = Api::all(world.client.clone());
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": elsewhere}}))?;
        namespaces.create(&PostParams::default(), &namespace).await?;
        let mut strimzi = vec![];
        if options.strimzi {
            for namespace in [own, &elsewhere] {
                for cluster in CLUSTERS {
                    make_kafka(world, namespace, cluster).await?;
                }
                strimzi.push((
                    StandInTopicOperator::start(world.client.clone(), namespace, StandInKafka::new()),
                    StandInUserOperator::start(world.client.clone(), namespace)?,
                ));
            }
        }
        Ok(Self {
            elsewhere,
            is_full: options.cnpg,
            _strimzi: strimzi,
        })
    }

    /// The spec as this world's namespaces are called.
    pub(crate) fn placed(&self, spec: &Value) -> Value {
        let mut spec = spec.clone();
        if let Some(namespace) = spec.pointer_mut("/kafka/strimzi/cluster/namespace")
            && *namespace == ELSEWHERE
        {
            *namespace = self.elsewhere.as_str().into();
        }
        spec
    }

    /// Says of each database cluster that it is ready, as CloudNativePG would.
    pub(crate) async fn answer_for_databases(&self, world: &World) -> Result<()> {
        if !self.is_full {
            return Ok(());
        }
        let kind = Kind::DatabaseCluster;
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(kind.group(), kind.version(), kind.name()));
        let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), world.namespace.name(), &resource);
        for cluster in api.list(&ListParams::default()).await?.items {
            if cluster.data["status"]["readyInstances"] != 3 {
                let status = json!({"status": {"readyInstances": 3, "phase": "Cluster in healthy state"}});
                let patch = Patch::Merge(&status);
                api.patch_status(&cluster.name_any(), &PatchParams::default(), &patch)
                    .await?;
            }
        }
        Ok(())
    }
}

/// Makes the topics that a spec asks for at the broker or takes for granted there. Two platforms of one name that made
/// them at once would be in each other's way.
pub(crate) async fn make_topics(broker: &Broker, name: &str, spec: &Value) -> Result<()> {
    let platform = platform("", name, spec)?;
    let asked = topics(&assumed(&settings(), Capabilities::default(), platform));
    for state in look_after(&broker.plain(), &asked, true).await? {
        ensure!(state.outcome.is_as_asked(), "{state:?}");
    }
    Ok(())
}

/// A platform as a file would have it.
pub(crate) fn platform(namespace: &str, name: &str, spec: &Value) -> Result<TodoPlatform> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "todoplatform.dev/v1alpha1",
        "kind": "TodoPlatform",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }))?)
}

/// What is in a Secret of this key.
fn value(key: &str, broker: &Broker) -> String {
    match key {
        "url" | "uri" => "postgres://todo:secret@db.example:6432/todo".to_owned(),
        "host" => "redis.example:6380".to_owned(),
        "username" => ADMIN.0.to_owned(),
        "password" => ADMIN.1.to_owned(),
        "ca.pem" => broker.ca.clone(),
        _ => "0123456789abcdef0123456789abcdef".to_owned(),
    }
}

/// A Kafka of Strimzi's that says it is there.
async fn make_kafka(world: &World, namespace: &str, name: &str) -> Result<()> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("kafka.strimzi.io", "v1", "Kafka"));
    let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), namespace, &resource);
    let kafka: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "Kafka",
        "metadata": {"name": name},
        "spec": {"kafka": {
            "listeners": [
                {"name": "plain", "port": 9092, "type": "internal", "tls": false},
                {"name": "tls", "port": 9093, "type": "internal", "tls": true,
                    "authentication": {"type": "scram-sha-512"}},
            ],
            "authorization": {"type": "simple"},
        }},
    }))?;
    api.create(&PostParams::default(), &kafka).await?;
    let host = format!("{name}-kafka-bootstrap.{namespace}.svc");
    let status = json!({"status": {"listeners": [
        {"name": "plain", "bootstrapServers": format!("{host}:9092")},
        {"name": "tls", "bootstrapServers": format!("{host}:9093"), "certificates": ["PEM"]},
    ]}});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .context("a Kafka says that it is there")?;
    Ok(())
}
