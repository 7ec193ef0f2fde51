//! The API server: clients, audit, restarts.

use std::fs::{self, DirEntry};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, discovery};
use serde_json::{Value, from_value, json};
use todo_test_cluster::{Cluster, CrdGroup, Options, Program};

fn platform(name: &str, spec: &Value) -> Result<DynamicObject> {
    Ok(from_value(json!({
        "apiVersion": "todoplatform.dev/v1alpha1",
        "kind": "TodoPlatform",
        "metadata": { "name": name },
        "spec": spec,
    }))?)
}

#[tokio::test]
async fn our_own_resources_are_served_and_checked() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let namespace = cluster.namespace("own").await?;
    let kind = GroupVersionKind::gvk("todoplatform.dev", "v1alpha1", "TodoPlatform");
    let (kind, _) = discovery::pinned_kind(&cluster.client().await?, &kind).await?;
    let platforms: Api<DynamicObject> = Api::namespaced_with(cluster.client().await?, namespace.name(), &kind);
    platforms
        .create(
            &PostParams::default(),
            &platform("home", &json!({ "version": "0.1.0" }))?,
        )
        .await?;
    let refused = platforms
        .create(&PostParams::default(), &platform("other", &json!({ "version": 7 }))?)
        .await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.is_invalid()));
    Ok(())
}

#[tokio::test]
async fn a_service_account_may_do_what_its_role_says_and_the_audit_log_shows_what_it_did() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let namespace = cluster.namespace("audit").await?;
    let api = namespace.api::<ServiceAccount>();
    let account = from_value(json!({ "metadata": { "name": "reader" } }))?;
    api.create(&PostParams::default(), &account).await?;
    let role = from_value(json!({
        "metadata": { "name": "reader" },
        "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"] }],
    }))?;
    namespace.api::<Role>().create(&PostParams::default(), &role).await?;
    let binding = from_value(json!({
        "metadata": { "name": "reader" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
        "subjects": [{ "kind": "ServiceAccount", "name": "reader", "namespace": namespace.name() }],
    }))?;
    namespace
        .api::<RoleBinding>()
        .create(&PostParams::default(), &binding)
        .await?;

    let client = cluster.client_for_service_account(namespace.name(), "reader").await?;
    let log = cluster.audit_log().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace.name());
    assert!(maps.get_opt("none").await?.is_none());
    let denied = maps
        .create(
            &PostParams::default(),
            &from_value(json!({ "metadata": { "name": "mine" } }))?,
        )
        .await;
    assert!(matches!(denied, Err(kube::Error::Api(status)) if status.is_forbidden()));

    let user = format!("system:serviceaccount:{}:reader", namespace.name());
    let entries = log.entries_of(&user).await?;
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| (entry.verb.as_str(), entry.resource.as_str(), entry.code, entry.allowed))
        .collect();
    assert_eq!(
        seen,
        [("get", "configmaps", 404, true), ("create", "configmaps", 403, false)]
    );
    assert_eq!(entries.iter().filter(|entry| entry.is_write()).count(), 1);
    assert_eq!(entries[0].name, "none");
    assert_eq!(entries[0].namespace, namespace.name());
    Ok(())
}

#[tokio::test]
async fn programs_reach_the_cluster_by_its_kubeconfig() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let output = cluster.kubectl().args(["auth", "whoami", "--output=json"]).output()?;
    let said = String::from_utf8(output.stdout)?;
    assert!(output.status.success() && said.contains("system:masters"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_bare_cluster_has_no_others_resources_until_they_are_installed() -> Result<()> {
    let began = Instant::now();
    let cluster = Cluster::start(Options::NONE).await?;
    println!("a bare cluster started in {:?}", began.elapsed());
    let client = cluster.client().await?;
    let component = GroupVersionKind::gvk("dapr.io", "v1alpha1", "Component");
    assert!(discovery::pinned_kind(&client, &component).await.is_err());
    cluster.install(CrdGroup::Dapr).await?;
    cluster.install(CrdGroup::Dapr).await?;
    discovery::pinned_kind(&client, &component).await?;
    Ok(())
}

#[tokio::test]
async fn the_api_server_comes_back_with_what_it_had() -> Result<()> {
    let cluster = Cluster::start(Options::NONE).await?;
    let namespace = cluster.namespace("comes-back").await?;
    let maps = namespace.api::<ConfigMap>();
    let map = from_value(json!({ "metadata": { "name": "kept" } }))?;
    maps.create(&PostParams::default(), &map).await?;

    cluster.kill_program(Program::ApiServer)?;
    assert!(maps.get("kept").await.is_err());
    cluster.start_program(Program::ApiServer).await?;
    maps.get("kept").await?;

    cluster.stop_program(Program::ApiServer).await?;
    assert!(maps.get("kept").await.is_err());
    cluster.start_program(Program::ApiServer).await?;
    maps.get("kept").await.context("after an orderly stop")?;

    cluster.pause_program(Program::ApiServer)?;
    let frozen = tokio::time::timeout(Duration::from_secs(1), maps.get("kept")).await;
    assert!(frozen.is_err());
    cluster.resume_program(Program::ApiServer)?;
    maps.get("kept").await.context("after it was frozen")?;
    // The controllers have outlived it all.
    cluster.namespace("after").await?;
    Ok(())
}

fn folder_of(cluster: &Cluster) -> Result<PathBuf> {
    Ok(cluster.kubeconfig().parent().context("it is in a folder")?.to_owned())
}

/// How many processes work in a folder.
fn work_in(folder: &Path) -> Result<usize> {
    let processes = fs::read_dir("/proc")?.flatten();
    let works_there = |process: &DirEntry| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == folder);
    Ok(processes.filter(works_there).count())
}

#[tokio::test]
async fn nothing_is_left_of_a_cluster_that_was_dropped() -> Result<()> {
    let cluster = Cluster::start(Options::NONE).await?;
    let folder = folder_of(&cluster)?;
    assert_eq!(work_in(&folder)?, 3);
    drop(cluster);
    assert_eq!(work_in(&folder)?, 0);
    assert!(!folder.exists());
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_of_a_cluster_whose_process_was_killed() -> Result<()> {
    const CHILD: &str = "TODO_TEST_CLUSTER_CHILD";
    const MARK: &str = "the cluster is in ";
    if std::env::var_os(CHILD).is_some() {
        let cluster = Cluster::shared_with(Options::NONE).await?;
        println!("{MARK}{}", folder_of(cluster)?.display());
        return std::future::pending().await;
    }
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "--nocapture"])
        .arg("server::nothing_is_left_of_a_cluster_whose_process_was_killed")
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().context("it is piped")?);
    let folder = output.lines().map_while(Result::ok).find_map(|line| {
        let (_, folder) = line.split_once(MARK)?;
        Some(PathBuf::from(folder))
    });
    child.kill()?;
    child.wait()?;
    let folder = folder.context("the child starts no cluster")?;
    let began = Instant::now();
    while work_in(&folder)? > 0 || folder.exists() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "something is left in {}",
            folder.display()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test]
async fn the_shared_cluster_has_every_projects_resources() -> Result<()> {
    let began = Instant::now();
    let cluster = Cluster::shared().await?;
    println!("the shared cluster was there after {:?}", began.elapsed());
    for (group, version, kind) in [
        ("dapr.io", "v1alpha1", "Component"),
        ("dapr.io", "v2alpha1", "Subscription"),
        ("dapr.io", "v1alpha1", "Resiliency"),
        ("dapr.io", "v1alpha1", "Configuration"),
        ("kafka.strimzi.io", "v1", "KafkaTopic"),
        ("kafka.strimzi.io", "v1", "KafkaUser"),
        ("kafka.strimzi.io", "v1", "Kafka"),
        ("keda.sh", "v1alpha1", "ScaledObject"),
        ("keda.sh", "v1alpha1", "TriggerAuthentication"),
        ("monitoring.coreos.com", "v1", "PodMonitor"),
        ("monitoring.coreos.com", "v1", "PrometheusRule"),
        ("postgresql.cnpg.io", "v1", "Cluster"),
    ] {
        let kind = GroupVersionKind::gvk(group, version, kind);
        discovery::pinned_kind(&cluster.client().await?, &kind)
            .await
            .with_context(|| format!("{kind:?}"))?;
    }
    Ok(())
}
