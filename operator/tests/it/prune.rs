//! What is deleted on a real API server, and what never is.

use anyhow::Result;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, PostParams};
use serde_json::{from_value, json};
use todo_operator::child::{Children, Kind};
use todo_operator::prune::{Data, Pruning, prune};

use todo_operator::apply::Applied;
use todo_test_cluster::{Cluster, Options};

use crate::scene::{PATIENCE, Scene, every_kind};

async fn run(scene: &Scene, built: &Children, is_complete: bool, data: Data) -> Result<Vec<String>> {
    let names = scene.names();
    let pruning = Pruning {
        names: &names,
        uid: "1",
        built,
        is_complete,
        data,
        is_retained: false,
    };
    let deleted = prune(&scene.client, &scene.capabilities, &scene.live, pruning).await?;
    Ok(deleted.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn what_is_not_asked_for_goes_and_data_only_when_it_is_said() -> Result<()> {
    let scene = Scene::bare("prune").await?;
    let children = every_kind(&scene);
    let mut built = Children::default();
    for child in children.values() {
        scene.apply(child).await?;
    }
    built.add(children["map"].clone());
    assert!(run(&scene, &built, false, Data::Delete).await?.is_empty());

    let deleted = run(&scene, &built, true, Data::Keep).await?;
    // All but what is asked for, the only migration, and the two that hold data.
    assert_eq!(deleted.len(), children.len() - 4, "{deleted:?}");
    assert!(scene.namespace.api::<StatefulSet>().get_opt("todo-a").await?.is_some());
    assert!(scene.namespace.api::<Secret>().get_opt("todo-a").await?.is_some());
    assert!(scene.namespace.api::<ConfigMap>().get_opt("todo-a").await?.is_some());
    for what in ["service", "deployment"] {
        assert!(scene.live.gone(&children[what].key, PATIENCE).await, "{what}");
    }

    let deleted = run(&scene, &built, true, Data::Delete).await?;
    assert_eq!(deleted.len(), 2, "{deleted:?}");
    assert!(scene.live.gone(&children["set"].key, PATIENCE).await);
    Ok(())
}

#[tokio::test]
async fn what_was_made_anew_since_the_look_at_it_is_not_deleted() -> Result<()> {
    let mut scene = Scene::bare("anew").await?;
    let map = scene.child(Kind::ConfigMap, "todo-a", json!({"data": {"a": "1"}}));
    let secret = scene.child(Kind::Secret, "todo-db", json!({"data": {"a": "MQ=="}}));
    scene.apply(&map).await?;
    scene.apply(&secret).await?;
    scene.freeze().await?;
    let (maps, secrets) = (scene.namespace.api::<ConfigMap>(), scene.namespace.api::<Secret>());
    maps.delete("todo-a", &DeleteParams::default()).await?;
    secrets.delete("todo-db", &DeleteParams::default()).await?;
    maps.create(&PostParams::default(), &from_value(map.body)?).await?;
    secrets
        .create(&PostParams::default(), &from_value(secret.body)?)
        .await?;
    assert!(run(&scene, &Children::default(), true, Data::Delete).await?.is_empty());
    assert!(maps.get_opt("todo-a").await?.is_some() && secrets.get_opt("todo-db").await?.is_some());
    Ok(())
}

#[tokio::test]
async fn in_kafkas_namespace_what_is_ours_goes_and_topics_only_when_it_is_said() -> Result<()> {
    let options = Options {
        strimzi: true,
        ..Options::NONE
    };
    let cluster = Cluster::shared_with(options).await?;
    let kafka = cluster.namespace("kafka").await?;
    let scene = Scene::beside_kafka(cluster, "beside", kafka.name()).await?;
    let elsewhere = |kind, name: &str, spec| {
        let mut child = scene.child(kind, name, json!({"spec": spec}));
        child.key.namespace = kafka.name().to_owned();
        child.body["metadata"]["namespace"] = json!(kafka.name());
        child
    };
    let topic = elsewhere(
        Kind::KafkaTopic,
        "todo-task-events",
        json!({"partitions": 3, "replicas": 1, "config": {"retention.ms": 604_800_000}}),
    );
    let user = elsewhere(
        Kind::KafkaUser,
        "shop-todo",
        json!({"authentication": {"type": "scram-sha-512"}}),
    );
    for child in [&topic, &user] {
        assert_eq!(scene.apply(child).await?, Applied::Created, "{}", child.key);
        assert_eq!(scene.apply(child).await?, Applied::Unchanged, "{}", child.key);
    }
    // Someone's copy of an object of ours: it has its labels, and is not ours to delete.
    let mut copy = scene.child(Kind::ConfigMap, "copy", json!({})).body;
    copy["metadata"]["namespace"] = json!(kafka.name());
    kafka
        .api::<ConfigMap>()
        .create(&PostParams::default(), &from_value(copy)?)
        .await?;

    let scene = scene.restarted().await?;
    for child in [&topic, &user] {
        assert_eq!(scene.apply(child).await?, Applied::Unchanged, "{}", child.key);
    }
    assert_eq!(
        run(&scene, &Children::default(), true, Data::Keep).await?,
        [user.key.to_string()]
    );
    assert_eq!(
        run(&scene, &Children::default(), true, Data::Delete).await?,
        [topic.key.to_string()]
    );
    assert!(kafka.api::<ConfigMap>().get_opt("copy").await?.is_some());
    Ok(())
}
