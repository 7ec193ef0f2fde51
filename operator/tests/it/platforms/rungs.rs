//! From one rung to the next, and from one version to the next.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use todo_test_cluster::{Cluster, Fate, Options};

use super::world::World;

fn image(deployment: &Value) -> &str {
    deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        .as_str()
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pod_of_a_version_starts_before_its_migration_has_succeeded() -> Result<()> {
    let world = World::new(Cluster::shared_with(Options::NONE).await?, "upgrade").await?;
    world
        .secret("acme-db", &json!({"url": "postgres://todo:secret@db/todo"}))
        .await?;
    let spec =
        |version: &str| json!({"version": version, "database": {"urlSecretRef": {"name": "acme-db", "key": "url"}}});
    world.platform("acme", &spec("1.0.0")).await?;
    world.wait_for("acme", "Progressing", "False Settled").await?;

    world.kubelet.set_rule(|pod: &Pod| {
        let images = pod.spec.iter().flat_map(|spec| &spec.containers);
        let is_new = images
            .filter_map(|container| container.image.as_deref())
            .any(|image| image.ends_with(":1.1.0"));
        let is_job = pod
            .metadata
            .labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key("batch.kubernetes.io/job-name"));
        if is_new && is_job {
            Fate::Fails(1)
        } else {
            Fate::usual(pod)
        }
    });
    world.platform("acme", &spec("1.1.0")).await?;
    let said = world.wait_for("acme", "Migrated", "False MigrationRetrying").await?;
    ensure!(said.contains("kubectl logs job/acme-migrate-"), "{said}");
    let deployment = world
        .get("apps/v1", "Deployment", "acme-all")
        .await?
        .context("no pods")?;
    ensure!(image(&deployment).ends_with(":1.0.0"), "{}", image(&deployment));
    ensure!(
        world.condition("acme", "Ready").await?.starts_with("True"),
        "what runs goes on"
    );

    world.kubelet.set_rule(Fate::usual);
    world.wait_for("acme", "Migrated", "True").await?;
    world.wait_for("acme", "Progressing", "False Settled").await?;
    let deployment = world
        .get("apps/v1", "Deployment", "acme-all")
        .await?
        .context("no pods")?;
    ensure!(image(&deployment).ends_with(":1.1.0"), "{}", image(&deployment));
    let version = world.status("acme").await?.version.context("no version")?;
    ensure!(
        version.running.as_deref() == Some("1.1.0") && version.previous.as_deref() == Some("1.0.0"),
        "{version:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_move_to_another_database_when_it_is_migrated_and_not_before() -> Result<()> {
    let world = World::new(Cluster::shared_with(Options::NONE).await?, "move").await?;
    for name in ["acme-db", "other-db"] {
        let secret = json!({"url": format!("postgres://todo:secret@{name}/todo")});
        world.secret(name, &secret).await?;
    }
    let spec = |secret: &str| json!({"version": "1.0.0", "database": {"urlSecretRef": {"name": secret, "key": "url"}}});
    let databases = async || -> Result<(bool, bool)> {
        let deployment = world.get("apps/v1", "Deployment", "acme-all").await?;
        let volumes = deployment.context("no pods")?["spec"]["template"]["spec"]["volumes"].to_string();
        Ok((volumes.contains("acme-db"), volumes.contains("other-db")))
    };
    world.platform("acme", &spec("acme-db")).await?;
    world.wait_for("acme", "Progressing", "False Settled").await?;

    world.kubelet.set_rule(|pod: &Pod| match pod.metadata.labels.as_ref() {
        Some(labels) if labels.contains_key("batch.kubernetes.io/job-name") => Fate::Fails(1),
        _ => Fate::usual(pod),
    });
    world.platform("acme", &spec("other-db")).await?;
    world.wait_for("acme", "Migrated", "False MigrationRetrying").await?;
    ensure!(
        databases().await? == (true, false),
        "pods have gone before the schema is there"
    );
    ensure!(
        world.condition("acme", "Ready").await?.starts_with("True"),
        "what runs goes on"
    );

    world.kubelet.set_rule(Fate::usual);
    world.wait_for("acme", "Migrated", "True").await?;
    world.wait_for("acme", "Progressing", "False Settled").await?;
    ensure!(databases().await? == (false, true), "pods stay where they were");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_missing_is_named_and_taken_when_it_comes() -> Result<()> {
    let world = World::new(Cluster::shared_with(Options::NONE).await?, "secret").await?;
    let spec = json!({"version": "1.0.0", "database": {"urlSecretRef": {"name": "acme-db", "key": "url"}}});
    world.platform("acme", &spec).await?;
    let said = world.wait_for("acme", "DatabaseReady", "False").await?;
    ensure!(
        said.contains("spec.database.urlSecretRef") && said.contains("acme-db"),
        "{said}"
    );
    world.secret("acme-db", &json!({"other": "x"})).await?;
    world
        .secret("acme-db", &json!({"url": "postgres://todo:secret@db/todo"}))
        .await?;
    world.wait_for("acme", "Ready", "True").await?;
    let events = world.events("acme").await?;
    let mut told = BTreeSet::new();
    for event in &events {
        ensure!(told.insert(event), "repeated: {event}");
    }
    ensure!(!events.iter().any(|event| event.contains("postgres://")), "{events:?}");
    Ok(())
}
