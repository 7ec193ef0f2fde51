//! The cache over a real API server: what it knows, whom it tells, and what it survives.

use std::time::Duration;

use anyhow::Result;
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::reflector::ObjectRef;
use serde_json::{from_value, json};
use todo_operator::child::Kind;
use todo_operator::discovery::Discovery;
use todo_operator::live::{Live, Scope};
use todo_operator::pace::Pace;
use todo_test_cluster::{Cluster, CrdGroup, Options, Program};
use tokio_util::sync::CancellationToken;

use crate::scene::{PATIENCE, Scene, eventually};

#[tokio::test]
async fn only_what_carries_our_label_is_kept_and_without_managed_fields() -> Result<()> {
    let scene = Scene::bare("kept").await?;
    let child = scene.child(Kind::ConfigMap, "todo-a", json!({"data": {"a": "1"}}));
    scene.apply(&child).await?;
    let foreign = json!({"metadata": {"name": "foreign"}, "data": {"b": "2"}});
    let maps = scene.namespace.api::<ConfigMap>();
    maps.create(&PostParams::default(), &from_value(foreign)?).await?;
    let scene = scene.restarted().await?;
    let known = scene.live.of(&scene.names());
    assert_eq!(known.len(), 1);
    let value = known[0].value();
    assert_eq!(value["data"]["a"], "1");
    assert!(value["metadata"]["managedFields"].is_null() && value["metadata"]["uid"].is_string());
    assert_eq!(known[0].parse::<ConfigMap>().unwrap().data.unwrap()["a"], "1");
    Ok(())
}

#[tokio::test]
async fn a_pass_sees_its_own_writes_at_once_and_is_not_woken_by_them() -> Result<()> {
    let scene = Scene::bare("own").await?;
    let mut triggers = std::pin::pin!(scene.live.triggers());
    for count in 0..20 {
        let child = scene.child(Kind::ConfigMap, "todo-a", json!({"data": {"a": count.to_string()}}));
        scene.apply(&child).await?;
        let known = scene.live.get(&child.key).unwrap();
        assert_eq!(known.value()["data"]["a"], count.to_string());
    }
    let maps = scene.namespace.api::<ConfigMap>();
    let edit = json!({"data": {"a": "theirs"}});
    maps.patch("todo-a", &PatchParams::default(), &Patch::Merge(&edit))
        .await?;
    let key = scene.key(Kind::ConfigMap, "todo-a");
    scene
        .until(&key, |live| live.is_some_and(|live| live["data"]["a"] == "theirs"))
        .await?;
    assert!(triggers.next().now_or_never().is_some());
    assert!(triggers.next().now_or_never().is_none());
    Ok(())
}

#[tokio::test]
async fn only_secrets_that_someone_asked_for_are_told_of() -> Result<()> {
    let scene = Scene::bare("secrets").await?;
    let names = scene.names();
    let wanted = (names.namespace.clone(), "wanted".to_owned());
    scene.live.interest(&names, [wanted].into());
    let mut triggers = std::pin::pin!(scene.live.triggers());
    let secrets = scene.namespace.api::<Secret>();
    let make = |name: &str| from_value(json!({"metadata": {"name": name}, "data": {"a": "MQ=="}}));
    let parameters = PostParams::default();
    secrets.create(&parameters, &make("foreign")?).await?;
    secrets.create(&parameters, &make("wanted")?).await?;
    let platform = || ObjectRef::new("todo").within(&names.namespace);
    assert_eq!(tokio::time::timeout(PATIENCE, triggers.next()).await?, Some(platform()));
    assert!(triggers.next().now_or_never().is_none());
    secrets.delete("wanted", &DeleteParams::default()).await?;
    assert_eq!(tokio::time::timeout(PATIENCE, triggers.next()).await?, Some(platform()));
    assert!(scene.live.is_empty());
    scene.live.forget(&names);
    secrets.create(&parameters, &make("wanted")?).await?;
    let child = scene.child(Kind::Secret, "todo-a", json!({"data": {"a": "MQ=="}}));
    scene.apply(&child).await?;
    secrets.delete("todo-a", &DeleteParams::default()).await?;
    assert_eq!(tokio::time::timeout(PATIENCE, triggers.next()).await?, Some(platform()));
    Ok(())
}

#[tokio::test]
async fn a_kind_that_comes_later_is_used_and_one_that_goes_is_let_go() -> Result<()> {
    let cluster = Cluster::start(Options::NONE).await?;
    let client = cluster.client().await?;
    let discovery = Discovery::start(client.clone()).await?;
    let mut capabilities = discovery.subscribe();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(discovery.run(Duration::from_millis(200), stop.clone()));
    let live = Live::default();
    let watching = (live.clone(), client.clone(), capabilities.clone(), stop);
    tokio::spawn(async move {
        let (live, client, capabilities, stop) = watching;
        live.run(client, capabilities, Scope::default(), Pace::default().look_anew, stop)
            .await;
    });
    tokio::time::timeout(PATIENCE, live.ready()).await?;
    let mut scene = Scene::on(&cluster, "later").await?;
    let key = scene.key(Kind::Component, "todo-pubsub");
    assert!(!live.is_listed(&key));

    cluster.install(CrdGroup::Dapr).await?;
    capabilities.wait_for(|known| known.has(Kind::Component)).await?;
    eventually(|| live.is_listed(&key)).await?;
    let now = capabilities.borrow().clone();
    scene.capabilities = now.clone();
    let child = scene.child(
        Kind::Component,
        "todo-pubsub",
        json!({"spec": {"type": "pubsub.in-memory", "version": "v1", "metadata": []}}),
    );
    todo_operator::apply::apply(&client, &now, &live, &child).await?;
    assert!(live.get(&key).is_some());

    let mut triggers = std::pin::pin!(live.triggers());
    let crds =
        kube::Api::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>::all(
            client,
        );
    crds.delete("components.dapr.io", &DeleteParams::default()).await?;
    capabilities.wait_for(|known| !known.has(Kind::Component)).await?;
    assert!(tokio::time::timeout(PATIENCE, triggers.next()).await?.is_some());
    eventually(|| live.get(&key).is_none() && !live.is_listed(&key)).await?;
    Ok(())
}

#[tokio::test]
async fn what_happened_while_the_api_server_was_away_is_seen_when_it_is_back() -> Result<()> {
    let cluster = Cluster::start(Options::NONE).await?;
    let scene = Scene::on(&cluster, "away").await?;
    let kept = scene.child(Kind::ConfigMap, "kept", json!({"data": {"a": "1"}}));
    let gone = scene.child(Kind::ConfigMap, "gone", json!({"data": {"a": "1"}}));
    scene.apply(&kept).await?;
    scene.apply(&gone).await?;
    for _ in 0..2 {
        cluster.kill_program(Program::ApiServer)?;
        let error = scene
            .apply(&scene.child(Kind::ConfigMap, "new", json!({})))
            .await
            .unwrap_err();
        assert_eq!(error.class(), todo_operator::error::Class::Unavailable, "{error}");
        cluster.start_program(Program::ApiServer).await?;
        // Before the watches are back, which wait longer after each failure.
        let maps = scene.namespace.api::<ConfigMap>();
        if maps.get_opt("gone").await?.is_some() {
            maps.delete("gone", &DeleteParams::default()).await?;
        }
        let edit = json!({"data": {"a": "2"}});
        maps.patch("kept", &PatchParams::default(), &Patch::Merge(&edit))
            .await?;
        scene.until(&gone.key, |live| live.is_none()).await?;
        scene
            .until(&kept.key, |live| live.is_some_and(|live| live["data"]["a"] == "2"))
            .await?;
    }
    assert!(scene.live.problems().is_empty(), "{:?}", scene.live.problems());
    Ok(())
}

#[tokio::test]
async fn a_watch_that_is_not_allowed_is_named_and_holds_up_no_other() -> Result<()> {
    let cluster = Cluster::shared_with(Options::NONE).await?;
    let namespace = cluster.namespace("denied").await?;
    let client = cluster.client_for_service_account(namespace.name(), "default").await?;
    let discovery = Discovery::start(client.clone()).await?;
    let live = Live::default();
    let scope = Scope {
        namespaces: Some([namespace.name().to_owned()].into()),
        ..Scope::default()
    };
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let watching = (live.clone(), discovery.subscribe());
    tokio::spawn(async move {
        watching
            .0
            .run(client, watching.1, scope, Pace::default().look_anew, stop)
            .await;
    });
    tokio::time::timeout(PATIENCE, live.ready()).await?;
    let problems = live.problems();
    let said = &problems[&format!("deployments.apps in {}", namespace.name())];
    assert!(said.contains("the verb list on deployments.apps"), "{said}");
    Ok(())
}
