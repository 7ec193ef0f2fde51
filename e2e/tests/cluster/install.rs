//! The charts, installed and upgraded as their README says.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use todo_e2e::client::HTTP;
use todo_e2e::cluster::POSTGRES_IMAGE;

use crate::world::{TAG, World, items, until};

/// Where a sidecar tells what it does.
const SIDECAR_METRICS_PORT: u16 = 9090;

/// Installs the resource types and the operator, and waits until it works.
pub(crate) fn charts(world: &World) -> Result<()> {
    world.helm(&[
        "install",
        "todo-operator-crds",
        &World::path("charts/todo-operator-crds"),
    ])?;
    let values = format!("image.tag={TAG},evaluationPostgresImage={POSTGRES_IMAGE}");
    world.helm(&[
        "install",
        "todo-operator",
        &World::path("charts/todo-operator"),
        "--namespace",
        "todo-system",
        "--create-namespace",
        "--set",
        &values,
        "--wait",
        "--timeout",
        "2m",
    ])?;
    world.stage("the operator is installed");
    Ok(())
}

/// The operator gets a sidecar, and reaches platforms by Dapr from then on. No pod of a platform notices.
pub(crate) async fn upgrade_to_mutual_tls(world: &World) -> Result<()> {
    let pods = || -> Result<BTreeSet<String>> {
        let pods = world.get(&["--namespace", "first", "pods"])?;
        let names = items(&pods)?.iter().map(|pod| pod["metadata"]["uid"].to_string());
        Ok(names.collect())
    };
    let before = pods()?;
    world.helm(&[
        "upgrade",
        "todo-operator",
        &World::path("charts/todo-operator"),
        "--namespace",
        "todo-system",
        "--reuse-values",
        "--set",
        "daprSidecar.enabled=true",
        "--wait",
        "--timeout",
        "3m",
    ])?;
    world.stage("the operator is upgraded, and has a sidecar");
    world.apply(
        "
apiVersion: todoplatform.dev/v1alpha1
kind: RecurringSchedule
metadata: {name: by-sidecar, namespace: first}
spec:
  platformRef: {name: home}
  user: alice
  schedule: {every: 1h}
  template: {title: Look after the sidecars}
",
    )?;
    world.has_condition("first", "recurringschedule/by-sidecar", "Ready")?;
    // The platform's sidecar lets in nobody but the operator, whom it knows by the certificate of mutual TLS alone.
    until("a call from sidecar to sidecar", || async {
        Ok((calls_to_platform(world).await? > 0).then_some(()))
    })
    .await?;
    // One of before may have been on its way out.
    ensure!(
        pods()?.is_subset(&before),
        "the operator's upgrade has started pods of a platform"
    );
    world.stage("a schedule has gone to its platform by mutual TLS");
    Ok(())
}

/// How many calls the operator's sidecars have sent to the one of the platform's API, and had answered well.
async fn calls_to_platform(world: &World) -> Result<usize> {
    let pods = world.get(&[
        "--namespace",
        "todo-system",
        "pods",
        "--selector=app.kubernetes.io/name=todo-operator",
        "--field-selector=status.phase=Running",
    ])?;
    let mut calls = 0;
    for pod in items(&pods)? {
        let address = pod.pointer("/status/podIP").and_then(serde_json::Value::as_str);
        let address = address.context("a running pod has an address")?;
        let outside = world.leading_to(&format!("{address}:{SIDECAR_METRICS_PORT}"))?;
        let metrics = HTTP
            .get(format!("http://{outside}/metrics"))
            .send()
            .await?
            .text()
            .await?;
        let answered = metrics.lines().filter(|line| {
            line.starts_with("dapr_runtime_service_invocation_res_recv_total")
                && line.contains("src_app_id=\"home-api\"")
                && line.contains("status=\"200\"")
        });
        calls += answered.count();
    }
    Ok(calls)
}
