//! What is built of a manifest, on a real API server with everyone's CRDs.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{self as core, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use todo_crds::TodoPlatform;
use todo_operator::apply::{Applied, drift};
use todo_operator::child::Kind;
use todo_operator::platform::Inputs;
use todo_operator::platform::build::build;
use todo_test_cluster::{Cluster, Options};

use crate::build::{inputs, manifest, sample};
use crate::scene::Scene;

/// The inputs of a platform that is there, in the scene's namespace, so that its children have an owner.
async fn settled(scene: &Scene, mut platform: TodoPlatform) -> Result<Inputs> {
    let metadata = &mut platform.metadata;
    metadata.namespace = Some(scene.namespace.name().to_owned());
    metadata.uid = None;
    if let Some(strimzi) = platform.spec.kafka.as_mut().and_then(|kafka| kafka.strimzi.as_mut()) {
        strimzi.cluster.namespace = None;
    }
    let api: Api<TodoPlatform> = scene.namespace.api();
    let created = api.create(&PostParams::default(), &platform).await?;
    Ok(inputs(created, scene.capabilities.clone()))
}

async fn is_taken_as_it_is(options: Options, platform: TodoPlatform) -> Result<()> {
    let scene = Scene::on(Cluster::shared_with(options).await?, "built").await?;
    let inputs = settled(&scene, platform).await?;
    let children = build(&inputs);
    for child in children.iter() {
        let applied = scene.apply(child).await.with_context(|| child.key.to_string())?;
        assert_eq!(applied, Applied::Created, "{}", child.key);
    }
    // A field that the API server does not know, or writes in another way, would be sent again in each pass.
    for child in children.iter() {
        assert_eq!(drift(&scene.live, child), None, "{}", child.key);
        assert_eq!(scene.apply(child).await?, Applied::Unchanged, "{}", child.key);
    }
    // Also when somebody else draws the secrets: what is there already is not drawn again.
    let mut redrawn = inputs.clone();
    redrawn.drawn.internal_key.push('2');
    redrawn.drawn.token.push('2');
    redrawn.drawn.database.push('2');
    redrawn.platform = Arc::clone(&inputs.platform);
    for child in build(&redrawn).iter() {
        assert_eq!(scene.apply(child).await?, Applied::Unchanged, "{}", child.key);
    }
    Ok(())
}

#[tokio::test]
async fn a_bare_cluster_takes_the_smallest_platform_as_it_is_built() -> Result<()> {
    is_taken_as_it_is(Options::NONE, sample("platform.yaml")).await
}

#[tokio::test]
async fn a_full_cluster_takes_every_kind_as_it_is_built() -> Result<()> {
    is_taken_as_it_is(Options::ALL, manifest("everything.yaml")).await
}

#[tokio::test]
async fn a_full_cluster_takes_a_managed_kafka_as_it_is_built() -> Result<()> {
    is_taken_as_it_is(Options::ALL, manifest("managed-kafka.yaml")).await
}

#[tokio::test]
async fn a_full_cluster_takes_what_is_suspended_as_it_is_built() -> Result<()> {
    is_taken_as_it_is(Options::ALL, manifest("suspended.yaml")).await
}

/// The API server's own check, where ours in `build` may have misread the standard.
#[tokio::test]
async fn every_pod_is_let_into_a_namespace_that_enforces_the_restricted_profile() -> Result<()> {
    let scene = Scene::on(Cluster::shared_with(Options::ALL).await?, "restricted").await?;
    let namespaces: Api<core::Namespace> = Api::all(scene.client.clone());
    let enforce = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let name = scene.namespace.name();
    namespaces
        .patch(name, &PatchParams::default(), &Patch::Merge(&enforce))
        .await?;
    let pods: Api<Pod> = scene.namespace.api();
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let mut tried = 0;
    for platform in [sample("platform.yaml"), manifest("everything.yaml")] {
        let mut inputs = settled(&scene, platform).await?;
        // The evaluation database's pod is wanted, too.
        inputs.database.is_cluster = false;
        inputs.database.is_stateful_set = true;
        for child in build(&inputs).iter() {
            if child.key.kind == Kind::ServiceAccount {
                scene.apply(child).await?;
            }
            let Some(template) = child
                .body
                .pointer("/spec/template")
                .filter(|pod| !pod["spec"].is_null())
            else {
                continue;
            };
            let mut spec = template["spec"].clone();
            let claims = child.body.pointer("/spec/volumeClaimTemplates");
            for claim in claims.and_then(Value::as_array).into_iter().flatten() {
                // As the StatefulSet's controller does.
                let name = &claim["metadata"]["name"];
                let volume = json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
                spec["volumes"].as_array_mut().unwrap().push(volume);
            }
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": child.key.name, "labels": template["metadata"]["labels"]},
                "spec": spec,
            }))?;
            pods.create(&dry_run, &pod)
                .await
                .with_context(|| child.key.to_string())?;
            tried += 1;
        }
    }
    assert_eq!(
        tried,
        3 + 7,
        "all, migration and database; api, four workers, migration and database"
    );
    // The label is in force: what breaks the profile is kept out.
    let open = json!({"metadata": {"name": "open"}, "spec": {"containers": [{"name": "a", "image": "a"}]}});
    let refused = pods.create(&dry_run, &serde_json::from_value(open)?).await.unwrap_err();
    assert!(refused.to_string().contains("restricted"), "{refused}");
    Ok(())
}
