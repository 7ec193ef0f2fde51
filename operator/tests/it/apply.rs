//! What is sent to a real API server, and what is not.

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::reflector::ObjectRef;
use serde_json::{Value, from_value, json};
use todo_operator::apply::{Applied, drift};
use todo_operator::child::{Child, Kind, Tenure, Write};
use todo_operator::error::{Class, Error};
use todo_operator::live::Live;
use todo_test_cluster::{Cluster, Options};

use crate::scene::{PATIENCE, Scene, every_kind};

#[tokio::test]
async fn at_rest_nothing_is_sent_also_after_a_restart() -> Result<()> {
    let scene = Scene::bare("rest").await?;
    let children = every_kind(&scene);
    for (what, child) in &children {
        assert_eq!(scene.apply(child).await?, Applied::Created, "{what}");
    }
    assert_eq!(scene.writes.take().len(), children.len());
    for (what, child) in &children {
        assert_eq!(drift(&scene.live, child), None, "{what}");
        assert_eq!(scene.apply(child).await?, Applied::Unchanged, "{what}");
    }
    let scene = scene.restarted().await?;
    for (what, child) in &children {
        assert_eq!(drift(&scene.live, child), None, "{what}");
        assert_eq!(scene.apply(child).await?, Applied::Unchanged, "{what}");
    }
    assert_eq!(scene.writes.take(), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn at_rest_nothing_is_sent_to_kinds_of_others_either() -> Result<()> {
    let options = Options {
        dapr: true,
        keda: true,
        monitoring: true,
        ..Options::NONE
    };
    let scene = Scene::on(Cluster::shared_with(options).await?, "others").await?;
    let children = [
        scene.child(
            Kind::Component,
            "todo-pubsub",
            json!({"spec": {"type": "pubsub.kafka", "version": "v1",
                "metadata": [{"name": "brokers", "value": "kafka:9092"}, {"name": "empty", "value": ""}]}, "scopes": ["todo-api"]}),
        ),
        scene.child(
            Kind::Subscription,
            "todo-audit",
            json!({"spec": {"pubsubname": "todo-pubsub", "topic": "todo-task-events", "routes": {"default": "/events/task-events"}}}),
        ),
        scene.child(
            Kind::ScaledObject,
            "todo-audit",
            json!({"spec": {"scaleTargetRef": {"name": "todo-audit"}, "minReplicaCount": 0, "maxReplicaCount": 4,
                "triggers": [{"type": "kafka", "metadata": {"lagThreshold": "100"}}]}}),
        ),
        scene.child(
            Kind::PodMonitor,
            "todo",
            json!({"spec": {"selector": {"matchLabels": {"app": "a"}}, "podMetricsEndpoints": [{"port": "http"}]}}),
        ),
    ];
    for child in &children {
        assert_eq!(scene.apply(child).await?, Applied::Created, "{}", child.key);
    }
    scene.writes.take();
    let scene = scene.restarted().await?;
    for child in &children {
        assert_eq!(scene.apply(child).await?, Applied::Unchanged, "{}", child.key);
    }
    assert_eq!(scene.writes.take(), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn edits_of_others_are_noticed_and_repaired() -> Result<()> {
    let scene = Scene::bare("edits").await?;
    let children = every_kind(&scene);
    for child in children.values() {
        scene.apply(child).await?;
    }
    let edits = [
        ("map", "configmaps", json!({"data": {"todo.env": "A=2\n"}})),
        (
            "map",
            "configmaps",
            json!({"metadata": {"annotations": {"todoplatform.dev/applied": "x"}}}),
        ),
        ("service", "services", json!({"spec": {"selector": {"more": "1"}}})),
        (
            "policy",
            "networkpolicies",
            json!({"spec": {"ingress": [{"from": [{"namespaceSelector": {}}, {"podSelector": {}}], "ports": [{"port": 8080}]}]}}),
        ),
        ("deployment", "deployments", json!({"spec": {"replicas": 7}})),
        (
            "account",
            "serviceaccounts",
            json!({"automountServiceAccountToken": null}),
        ),
        (
            "autoscaler",
            "horizontalpodautoscalers",
            json!({"spec": {"maxReplicas": 50}}),
        ),
    ];
    let platform = ObjectRef::new("todo").within(scene.namespace.name());
    for (what, resource, edit) in edits {
        let child = &children[what];
        let before = scene.live.get(&child.key).unwrap().version.clone();
        let mut triggers = std::pin::pin!(scene.live.triggers());
        let api = kube::Api::<kube::core::DynamicObject>::namespaced_with(
            scene.client.clone(),
            scene.namespace.name(),
            &child.key.kind.resource(&scene.capabilities).unwrap(),
        );
        api.patch(&child.key.name, &PatchParams::default(), &Patch::Merge(&edit))
            .await?;
        // Controllers touch other children meanwhile, which are told of too.
        let is_told = async {
            while scene.live.get(&child.key).is_none_or(|now| now.version == before) {
                assert_eq!(triggers.next().await, Some(platform.clone()), "{what}");
            }
        };
        tokio::time::timeout(PATIENCE, is_told).await.context(resource)?;
        // What a controller changed in the meantime is no reason to fail.
        assert_eq!(scene.apply(child).await?, Applied::Changed, "{what} {edit}");
        assert_eq!(drift(&scene.live, child), None, "{what} {edit}");
    }
    let service: Service = scene.namespace.api().get("todo-a").await?;
    assert_eq!(service.spec.unwrap().selector.unwrap().len(), 1);
    let policy: NetworkPolicy = scene.namespace.api().get("todo-a").await?;
    assert_eq!(policy.spec.unwrap().ingress.unwrap()[0].from.as_ref().unwrap().len(), 1);
    Ok(())
}

#[tokio::test]
async fn what_others_deleted_is_made_again() -> Result<()> {
    let scene = Scene::bare("deleted").await?;
    let child = scene.child(Kind::ConfigMap, "todo-a", json!({"data": {"a": "1"}}));
    scene.apply(&child).await?;
    let mut triggers = std::pin::pin!(scene.live.triggers());
    let maps = scene.namespace.api::<ConfigMap>();
    maps.delete("todo-a", &DeleteParams::default()).await?;
    assert!(tokio::time::timeout(PATIENCE, triggers.next()).await?.is_some());
    assert!(scene.live.get(&child.key).is_none());
    assert_eq!(scene.apply(&child).await?, Applied::Created);
    Ok(())
}

#[tokio::test]
async fn what_is_no_longer_asked_for_is_taken_out() -> Result<()> {
    let scene = Scene::bare("less").await?;
    let mut child = scene.child(Kind::ConfigMap, "todo-a", json!({"data": {"a": "1", "b": "2"}}));
    scene.apply(&child).await?;
    child.body["data"].as_object_mut().unwrap().remove("b");
    assert_eq!(scene.apply(&child).await?, Applied::Changed);
    let map: ConfigMap = scene.namespace.api().get("todo-a").await?;
    assert_eq!(map.data.unwrap().into_keys().collect::<Vec<_>>(), ["a"]);
    Ok(())
}

#[tokio::test]
async fn what_is_someone_elses_is_never_overwritten() -> Result<()> {
    let scene = Scene::bare("strangers").await?;
    let maps = scene.namespace.api::<ConfigMap>();
    let mut theirs = scene.names().labels();
    theirs.insert("todoplatform.dev/platform".into(), "other".into());
    // One that is there, or the garbage collector takes what it owns.
    let holder = from_value(json!({"metadata": {"name": "holder"}}))?;
    let holder = maps.create(&PostParams::default(), &holder).await?;
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "holder", "uid": holder.metadata.uid, "controller": true}]);
    let strangers = [
        json!({"metadata": {"name": "unlabelled"}, "data": {"a": "theirs"}}),
        json!({"metadata": {"name": "others", "labels": theirs}, "data": {"a": "theirs"}}),
        json!({"metadata": {"name": "owned", "labels": scene.names().labels(), "ownerReferences": owner}, "data": {"a": "theirs"}}),
    ];
    for stranger in strangers {
        let made = maps.create(&PostParams::default(), &from_value(stranger)?).await?;
        let name = made.metadata.name.clone().unwrap();
        for write in [Write::Always, Write::Once] {
            let mut child = scene.child(Kind::ConfigMap, &name, json!({"data": {"a": "ours"}}));
            child.write = write;
            for live in [&scene.live, &Live::default()] {
                let applied = todo_operator::apply::apply(&scene.client, &scene.capabilities, live, &child).await;
                let error = applied.expect_err(&name);
                assert!(matches!(error, Error::NotOurs { .. }), "{name}: {error}");
                assert_eq!(error.class(), Class::NotOurs);
            }
        }
        let now = maps.get(&name).await?;
        assert_eq!(now.metadata.resource_version, made.metadata.resource_version, "{name}");
    }
    Ok(())
}

/// Whether it was made by an apply or not: who owns the field is another matter then.
#[tokio::test]
async fn what_was_to_go_with_its_platform_and_is_to_stay_is_let_go() -> Result<()> {
    let scene = Scene::bare("let-go").await?;
    let api: Api<ConfigMap> = scene.namespace.api();
    let holder = from_value(json!({"metadata": {"name": "holder"}}))?;
    let uid = api.create(&PostParams::default(), &holder).await?.metadata.uid.unwrap();
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "holder", "uid": uid, "controller": true});
    for (name, first) in [("applied", Write::Always), ("made", Write::Once)] {
        let child = |write: Write, tenure: Tenure| {
            let child = scene.child(Kind::ConfigMap, name, json!({"data": {"a": "1"}}));
            let mut child = Child {
                write,
                tenure,
                platform: uid.clone(),
                ..child
            };
            if tenure == Tenure::Owned {
                child.body["metadata"]["ownerReferences"] = json!([owner]);
            }
            child
        };
        scene.apply(&child(first, Tenure::Owned)).await?;
        scene.apply(&child(Write::Always, Tenure::Owned)).await?;
        let kept = child(Write::Always, Tenure::Kept);
        scene.until(&kept.key, |object| object.is_some()).await?;
        assert_eq!(
            drift(&scene.live, &kept).as_deref(),
            Some("metadata.ownerReferences"),
            "{name}"
        );
        assert_eq!(scene.apply(&kept).await?, Applied::Changed, "{name}");
        assert_eq!(api.get(name).await?.metadata.owner_references, None, "{name}");
        assert_eq!(scene.apply(&kept).await?, Applied::Unchanged, "{name}");
        // And back.
        scene.apply(&child(Write::Always, Tenure::Owned)).await?;
        assert!(api.get(name).await?.metadata.owner_references.is_some(), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_cache_that_is_behind_costs_a_request_and_changes_nothing() -> Result<()> {
    let scene = Scene::bare("behind").await?;
    let child = scene.child(Kind::ConfigMap, "todo-a", json!({"data": {"a": "1"}}));
    scene.apply(&child).await?;
    let version = scene.live.get(&child.key).unwrap().version.clone();
    scene.writes.take();
    let behind = Live::default();
    let applied = todo_operator::apply::apply(&scene.client, &scene.capabilities, &behind, &child).await?;
    assert_eq!(applied, Applied::Unchanged);
    assert_eq!(scene.writes.take().len(), 1);
    let now: ConfigMap = scene.namespace.api().get("todo-a").await?;
    assert_eq!(now.metadata.resource_version, Some(version));
    Ok(())
}

#[tokio::test]
async fn what_is_made_once_stays_as_it_was_made() -> Result<()> {
    let scene = Scene::bare("once").await?;
    let secret = |value: &str| {
        let child = scene.child(Kind::Secret, "todo-token", json!({"data": {"secret": value}}));
        Child {
            write: Write::Once,
            ..child
        }
    };
    assert_eq!(scene.apply(&secret("b25l")).await?, Applied::Created);
    scene.writes.take();
    assert_eq!(scene.apply(&secret("dHdv")).await?, Applied::Unchanged);
    assert_eq!(scene.writes.take(), Vec::<String>::new());
    // Also when two drew at once.
    let behind = Live::default();
    let late = todo_operator::apply::apply(&scene.client, &scene.capabilities, &behind, &secret("dHdv")).await?;
    assert_eq!(late, Applied::Unchanged);
    let stored: Secret = scene.namespace.api().get("todo-token").await?;
    assert_eq!(stored.data.unwrap()["secret"].0, b"one");
    Ok(())
}

fn replicas(deployment: &Deployment) -> Option<i32> {
    deployment.spec.replicas
}

async fn scale(scene: &Scene, count: i32) -> Result<()> {
    let deployments = scene.namespace.api::<Deployment>();
    let patch = json!({"spec": {"replicas": count}});
    let parameters = PatchParams {
        field_manager: Some("kube-controller-manager".into()),
        ..PatchParams::default()
    };
    deployments
        .patch_scale("todo-a", &parameters, &Patch::Merge(&patch))
        .await?;
    Ok(())
}

#[tokio::test]
async fn replicas_pass_to_an_autoscaler_and_back_without_a_step_to_one() -> Result<()> {
    let scene = Scene::bare("replicas").await?;
    let deployments = scene.namespace.api::<Deployment>();
    let mut child = every_kind(&scene).remove("deployment").unwrap();
    child.body["spec"]["replicas"] = json!(4);
    scene.apply_again(&child).await?;

    // The reason for all this: who leaves out what only he set, sets it back.
    let mut plain = every_kind(&scene).remove("deployment").unwrap().body;
    plain["metadata"]["name"] = json!("plain");
    let manager = PatchParams::apply("someone").force();
    deployments.patch("plain", &manager, &Patch::Apply(&plain)).await?;
    plain["spec"].as_object_mut().unwrap().remove("replicas");
    let dropped = deployments.patch("plain", &manager, &Patch::Apply(&plain)).await?;
    assert_eq!(replicas(&dropped), Some(1));

    let mut watched = std::pin::pin!(kube::runtime::watcher(
        deployments.clone(),
        kube::runtime::watcher::Config::default().fields("metadata.name=todo-a"),
    ));
    let mut seen = vec![];
    let with = child.body["spec"]["replicas"].take();
    assert_eq!(scene.apply_again(&child).await?, Applied::Changed);
    assert_eq!(replicas(&deployments.get("todo-a").await?), Some(4));
    scale(&scene, 6).await?;
    scene
        .until(&child.key, |live| {
            live.is_some_and(|live| live["spec"]["replicas"] == 6)
        })
        .await?;
    assert_eq!(scene.apply_again(&child).await?, Applied::Unchanged);
    child.body["metadata"]["labels"]["new"] = json!("label");
    assert_eq!(scene.apply_again(&child).await?, Applied::Changed);
    assert_eq!(replicas(&deployments.get("todo-a").await?), Some(6));
    let scene = scene.restarted().await?;
    assert_eq!(scene.apply_again(&child).await?, Applied::Unchanged);

    // Back, and over again.
    child.body["spec"]["replicas"] = with;
    assert_eq!(scene.apply_again(&child).await?, Applied::Changed);
    assert_eq!(replicas(&deployments.get("todo-a").await?), Some(4));
    child.body["spec"]["replicas"].take();
    assert_eq!(scene.apply_again(&child).await?, Applied::Changed);
    child.body["metadata"]["labels"]["last"] = json!("label");
    scene.apply_again(&child).await?;
    while !seen.last().is_some_and(|deployment: &Deployment| {
        deployment
            .metadata
            .labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key("last"))
    }) {
        match tokio::time::timeout(PATIENCE, watched.next()).await?.unwrap()? {
            kube::runtime::watcher::Event::Apply(deployment) | kube::runtime::watcher::Event::InitApply(deployment) => {
                seen.push(deployment);
            }
            _ => {}
        }
    }
    let counts: Vec<_> = seen.iter().filter_map(replicas).collect();
    assert!(counts.iter().all(|count| *count >= 4), "{counts:?}");
    Ok(())
}

#[tokio::test]
async fn a_field_that_cannot_change_is_named() -> Result<()> {
    let scene = Scene::bare("immutable").await?;
    let children = every_kind(&scene);
    let changes: [(&str, &str, Value, &str); 4] = [
        (
            "job",
            "/spec/template/spec/containers/0/image",
            json!("todo:2"),
            "spec.template",
        ),
        ("set", "/spec/serviceName", json!("other"), "spec"),
        (
            "deployment",
            "/spec/selector/matchLabels/app",
            json!("b"),
            "spec.selector",
        ),
        ("service", "/spec/clusterIP", json!("10.0.0.99"), "spec.clusterIPs[0]"),
    ];
    for (what, path, value, field) in changes {
        let mut child = children[what].clone();
        scene.apply(&child).await?;
        if let Some(place) = child.body.pointer_mut(path) {
            *place = value;
        } else {
            child.body["spec"]["clusterIP"] = value;
        }
        if what == "deployment" {
            child.body["spec"]["template"]["metadata"]["labels"]["app"] = json!("b");
        }
        let error = scene.apply(&child).await.expect_err(what);
        match &error {
            Error::Immutable { object, field: named } => {
                assert_eq!(named, field, "{error}");
                assert!(object.contains(&child.key.name), "{error}");
            }
            other => panic!("{what}: {other}"),
        }
        assert_eq!(error.class(), Class::Invalid);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_going_is_waited_for() -> Result<()> {
    let scene = Scene::bare("going").await?;
    let mut child = scene.child(Kind::ConfigMap, "todo-a", json!({"data": {"a": "1"}}));
    child.body["metadata"]["finalizers"] = json!(["example.com/slow"]);
    scene.apply(&child).await?;
    let maps = scene.namespace.api::<ConfigMap>();
    maps.delete("todo-a", &DeleteParams::default()).await?;
    scene
        .until(&child.key, |live| {
            live.is_some_and(|live| !live["metadata"]["deletionTimestamp"].is_null())
        })
        .await?;
    let error = scene.apply(&child).await.unwrap_err();
    assert!(matches!(error, Error::Terminating { .. }), "{error}");
    let free = json!({"metadata": {"finalizers": null}});
    maps.patch("todo-a", &PatchParams::default(), &Patch::Merge(&free))
        .await?;
    assert!(scene.live.gone(&child.key, PATIENCE).await);
    assert_eq!(scene.apply(&child).await?, Applied::Created);
    scene
        .namespace
        .api::<ConfigMap>()
        .patch("todo-a", &PatchParams::default(), &Patch::Merge(&free))
        .await?;
    Ok(())
}

#[tokio::test]
async fn what_is_not_served_is_told_from_what_is_wrong() -> Result<()> {
    let scene = Scene::bare("unserved").await?;
    let topic = scene.child(Kind::KafkaTopic, "todo-a", json!({"spec": {}}));
    assert!(matches!(
        scene.apply(&topic).await,
        Err(Error::NotServed(Kind::KafkaTopic))
    ));
    let wrong = scene.child(Kind::Service, "todo-a", json!({"spec": {"ports": [{"port": 0}]}}));
    let error = scene.apply(&wrong).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("spec.ports[0].port"), "{error}");
    let mut elsewhere = scene.child(Kind::ConfigMap, "todo-a", json!({}));
    elsewhere.key.namespace = "no-such-namespace".into();
    elsewhere.body["metadata"]["namespace"] = json!("no-such-namespace");
    let error = scene.apply(&elsewhere).await.unwrap_err();
    assert!(
        error.is_not_found() && error.to_string().contains("no-such-namespace"),
        "{error}"
    );
    Ok(())
}
