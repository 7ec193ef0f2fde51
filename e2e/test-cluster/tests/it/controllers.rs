//! The real controllers, over what the fake kubelet says.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use serde_json::{Value, from_value, json};
use todo_test_cluster::{Cluster, FakeKubelet, Fate, Namespace};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_mins(1);

fn pod_template(image: &str, restart_policy: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "it" } },
        "spec": { "restartPolicy": restart_policy, "containers": [{ "name": "it", "image": image }] },
    })
}

async fn deploy(namespace: &Namespace, name: &str, image: &str) -> Result<Api<Deployment>> {
    let deployments = namespace.api::<Deployment>();
    let deployment = from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "it" } },
            "template": pod_template(image, "Always"),
        },
    }))?;
    deployments.create(&PostParams::default(), &deployment).await?;
    Ok(deployments)
}

async fn run_job(namespace: &Namespace, name: &str, image: &str) -> Result<Api<Job>> {
    let jobs = namespace.api::<Job>();
    let job = from_value(json!({
        "metadata": { "name": name },
        "spec": { "backoffLimit": 0, "template": pod_template(image, "Never") },
    }))?;
    jobs.create(&PostParams::default(), &job).await?;
    Ok(jobs)
}

fn has_available(count: i32) -> impl Fn(Option<&Deployment>) -> bool {
    move |deployment| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.and_then(|status| status.available_replicas).unwrap_or_default() == count
    }
}

fn has_condition(wanted: &'static str) -> impl Fn(Option<&Job>) -> bool {
    move |job| {
        let conditions = job.and_then(|job| job.status.as_ref()?.conditions.as_ref());
        conditions
            .into_iter()
            .flatten()
            .any(|one| one.type_ == wanted && one.status == "True")
    }
}

#[tokio::test]
async fn a_deployment_becomes_available_and_its_pods_can_be_made_unready() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let namespace = cluster.namespace("deployment").await?;
    let kubelet = FakeKubelet::start(cluster.client().await?, namespace.name());
    let deployments = deploy(&namespace, "web", "web:1").await?;
    timeout(PATIENCE, await_condition(deployments.clone(), "web", has_available(2))).await??;

    kubelet.set_fate_of_image("web:1", Fate::Unready);
    timeout(PATIENCE, await_condition(deployments.clone(), "web", has_available(0))).await??;
    kubelet.set_rule(Fate::usual);
    timeout(PATIENCE, await_condition(deployments, "web", has_available(2))).await??;
    Ok(())
}

#[tokio::test]
async fn pods_of_an_image_that_cannot_be_pulled_say_so() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let namespace = cluster.namespace("no-image").await?;
    let kubelet = FakeKubelet::start(cluster.client().await?, namespace.name());
    kubelet.set_fate_of_image("web:404", Fate::Waits("ImagePullBackOff"));
    deploy(&namespace, "web", "web:404").await?;
    let waiting = async {
        loop {
            let pods = namespace.api::<Pod>().list(&ListParams::default()).await?;
            let text = serde_json::to_string(&pods.items)?;
            if pods.items.len() == 2 && text.matches("ImagePullBackOff").count() == 2 {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, waiting).await??;
    Ok(())
}

#[tokio::test]
async fn jobs_complete_or_fail_by_the_rule() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let namespace = cluster.namespace("jobs").await?;
    let kubelet = FakeKubelet::start(cluster.client().await?, namespace.name());
    kubelet.set_fate_of_image("migrate:bad", Fate::Fails(1));
    let jobs = run_job(&namespace, "good", "migrate:good").await?;
    run_job(&namespace, "bad", "migrate:bad").await?;
    timeout(
        PATIENCE,
        await_condition(jobs.clone(), "good", has_condition("Complete")),
    )
    .await??;
    timeout(PATIENCE, await_condition(jobs, "bad", has_condition("Failed"))).await??;
    Ok(())
}

#[tokio::test]
async fn what_is_owned_goes_with_its_owner_in_the_background_and_in_the_foreground() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let namespace = cluster.namespace("owned").await?;
    let maps = namespace.api::<ConfigMap>();
    for (owner, how) in [
        ("back", DeleteParams::background()),
        ("fore", DeleteParams::foreground()),
    ] {
        let map: ConfigMap = from_value(json!({ "metadata": { "name": owner } }))?;
        let map = maps.create(&PostParams::default(), &map).await?;
        let child = format!("{owner}-child");
        let owned = from_value(json!({ "metadata": { "name": child, "ownerReferences": [{
            "apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": map.metadata.uid,
            "controller": true, "blockOwnerDeletion": true,
        }] } }))?;
        let owned = maps.create(&PostParams::default(), &owned).await?;
        maps.delete(owner, &how).await?;
        for (name, uid) in [(child.as_str(), owned.metadata.uid), (owner, map.metadata.uid)] {
            let uid = uid.context("it has a uid")?;
            let gone = await_condition(maps.clone(), name, conditions::is_deleted(&uid));
            timeout(PATIENCE, gone)
                .await
                .with_context(|| format!("{name} stays"))??;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_namespace_goes_with_all_that_is_in_it() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let namespace = cluster.namespace("goes").await?;
    let _kubelet = FakeKubelet::start(cluster.client().await?, namespace.name());
    let deployments = deploy(&namespace, "web", "web:1").await?;
    timeout(PATIENCE, await_condition(deployments, "web", has_available(2))).await??;
    namespace.delete().await
}
