//! The stand-ins for Strimzi's operators, on Strimzi's own CRDs.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};
use serde_json::{Value, from_value, json};
use todo_test_cluster::{Cluster, Namespace, StandInKafka, StandInTopicOperator, StandInUserOperator};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_mins(1);

async fn api(cluster: &Cluster, namespace: &Namespace, kind: &str) -> Result<Api<DynamicObject>> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("kafka.strimzi.io", "v1", kind));
    Ok(Api::namespaced_with(cluster.client().await?, namespace.name(), &kind))
}

fn object(kind: &str, name: &str, spec: &Value) -> Result<DynamicObject> {
    Ok(from_value(json!({
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": kind,
        "metadata": { "name": name, "labels": { "strimzi.io/cluster": "events" } },
        "spec": spec,
    }))?)
}

/// The first condition, once it speaks of the object as it is.
async fn condition(api: &Api<DynamicObject>, name: &str) -> Result<(String, String, String)> {
    let spoken = |object: Option<&DynamicObject>| {
        object.is_some_and(|object| object.data["status"]["observedGeneration"].as_i64() == object.metadata.generation)
    };
    let object = timeout(PATIENCE, await_condition(api.clone(), name, spoken)).await??;
    let first = object.context("it is there")?.data["status"]["conditions"][0].clone();
    let text = |field: &str| first[field].as_str().unwrap_or_default().to_owned();
    Ok((text("type"), text("status"), text("reason")))
}

async fn change(api: &Api<DynamicObject>, name: &str, change: Value) -> Result<()> {
    api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
    Ok(())
}

async fn delete(api: &Api<DynamicObject>, name: &str) -> Result<()> {
    api.delete(name, &DeleteParams::default()).await?;
    let gone = |object: Option<&DynamicObject>| object.is_none();
    timeout(PATIENCE, await_condition(api.clone(), name, gone)).await??;
    Ok(())
}

fn is(kind: &str, status: &str, reason: &str) -> (String, String, String) {
    (kind.to_owned(), status.to_owned(), reason.to_owned())
}

#[tokio::test]
async fn topics_are_made_grown_refused_and_removed_as_strimzi_does() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let namespace = cluster.namespace("topics").await?;
    let kafka = StandInKafka::new();
    let _operator = StandInTopicOperator::start(cluster.client().await?, namespace.name(), kafka.clone());
    let topics = api(cluster, &namespace, "KafkaTopic").await?;

    let spec = json!({ "partitions": 3, "replicas": 1, "config": { "retention.ms": 1000 } });
    topics
        .create(&PostParams::default(), &object("KafkaTopic", "events", &spec)?)
        .await?;
    assert_eq!(condition(&topics, "events").await?, is("Ready", "True", ""));
    assert_eq!(kafka.topics()["events"].config["retention.ms"], "1000");
    assert_eq!(topics.get("events").await?.finalizers(), ["strimzi.io/topic-operator"]);

    change(&topics, "events", json!({ "spec": { "partitions": 6 } })).await?;
    assert_eq!(condition(&topics, "events").await?, is("Ready", "True", ""));
    assert_eq!(kafka.topics()["events"].partitions, 6);
    change(&topics, "events", json!({ "spec": { "partitions": 5 } })).await?;
    assert_eq!(
        condition(&topics, "events").await?,
        is("Ready", "False", "NotSupported")
    );
    assert_eq!(kafka.topics()["events"].partitions, 6);

    let same = json!({ "topicName": "events", "partitions": 6, "replicas": 1 });
    topics
        .create(&PostParams::default(), &object("KafkaTopic", "second", &same)?)
        .await?;
    assert_eq!(
        condition(&topics, "second").await?,
        is("Ready", "False", "ResourceConflict")
    );
    delete(&topics, "second").await?;
    assert!(kafka.topics().contains_key("events"));

    delete(&topics, "events").await?;
    assert!(kafka.topics().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_topic_that_is_not_managed_stays_when_its_resource_goes() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let namespace = cluster.namespace("unmanaged").await?;
    let kafka = StandInKafka::new();
    let operator = StandInTopicOperator::start(cluster.client().await?, namespace.name(), kafka.clone());
    let topics = api(cluster, &namespace, "KafkaTopic").await?;
    let spec = json!({ "partitions": 3, "replicas": 1 });
    for name in ["kept", "held"] {
        topics
            .create(&PostParams::default(), &object("KafkaTopic", name, &spec)?)
            .await?;
        assert_eq!(condition(&topics, name).await?, is("Ready", "True", ""));
    }

    change(
        &topics,
        "kept",
        json!({ "metadata": { "annotations": { "strimzi.io/managed": "false" } } }),
    )
    .await?;
    // An annotation is no new generation.
    let unmanaged = |topic: Option<&DynamicObject>| {
        topic.is_some_and(|topic| topic.data["status"]["conditions"][0]["type"] == "Unmanaged")
    };
    timeout(PATIENCE, await_condition(topics.clone(), "kept", unmanaged)).await??;
    assert_eq!(topics.get("kept").await?.data["status"]["topicName"], Value::Null);
    delete(&topics, "kept").await?;
    assert!(kafka.topics().contains_key("kept"));

    drop(operator);
    topics.delete("held", &DeleteParams::default()).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(topics.get("held").await?.metadata.deletion_timestamp.is_some());
    let _operator = StandInTopicOperator::start(cluster.client().await?, namespace.name(), kafka.clone());
    let gone = |object: Option<&DynamicObject>| object.is_none();
    timeout(PATIENCE, await_condition(topics, "held", gone)).await??;
    assert!(!kafka.topics().contains_key("held"));
    Ok(())
}

#[tokio::test]
async fn a_user_gets_a_secret_that_goes_with_it() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let namespace = cluster.namespace("users").await?;
    let _operator = StandInUserOperator::start(cluster.client().await?, namespace.name())?;
    let users = api(cluster, &namespace, "KafkaUser").await?;
    let secrets = namespace.api::<Secret>();
    for (name, how, key) in [("scram", "scram-sha-512", "password"), ("cert", "tls", "user.crt")] {
        let spec = json!({ "authentication": { "type": how } });
        users
            .create(&PostParams::default(), &object("KafkaUser", name, &spec)?)
            .await?;
        assert_eq!(condition(&users, name).await?, is("Ready", "True", ""));
        assert_eq!(users.get(name).await?.data["status"]["secret"], name);
        let secret = secrets.get(name).await?;
        assert!(secret.data.context("it has data")?.contains_key(key));
        delete(&users, name).await?;
        let gone = |secret: Option<&Secret>| secret.is_none();
        timeout(PATIENCE, await_condition(secrets.clone(), name, gone)).await??;
    }
    Ok(())
}
