//! From nothing to a platform that is ready, and to nothing again.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::json;
use todo_test_cluster::{Cluster, Fate, Options};

use super::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_manifest_becomes_a_platform_on_a_bare_cluster() -> Result<()> {
    let world = World::new(Cluster::shared_with(Options::NONE).await?, "smallest").await?;
    world.platform("home", &json!({"version": "0.1.0"})).await?;
    let ready = world.wait_for("home", "Ready", "True AllComponentsAvailable").await?;
    ensure!(ready.ends_with("all 1/1"), "{ready}");
    let database = world.condition("home", "DatabaseReady").await?;
    ensure!(database.contains("fit for evaluation"), "{database}");
    let deployment = world
        .get("apps/v1", "Deployment", "home-all")
        .await?
        .context("no pods")?;
    ensure!(deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example.com/todo:0.1.0");
    let events = world.events("home").await?;
    ensure!(
        events
            .iter()
            .any(|event| event.starts_with("Normal AllComponentsAvailable")),
        "{events:?}"
    );

    world.platforms().delete("home", &DeleteParams::background()).await?;
    let began = std::time::Instant::now();
    while world.get("apps/v1", "Deployment", "home-all").await?.is_some() {
        ensure!(began.elapsed() < super::world::PATIENCE, "the pods are still there");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    ensure!(
        world.get("v1", "Secret", "home-db").await?.is_some(),
        "the key to the data is gone"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_come_at_once_each_tells_how_far_it_is() -> Result<()> {
    const MANY: usize = 24;
    let world = World::new(Cluster::shared_with(Options::NONE).await?, "many").await?;
    world
        .secret("acme-db", &json!({"url": "postgres://todo:secret@db/todo"}))
        .await?;
    // A cluster without room: migrations do not begin, and nothing happens to a platform but its passes.
    world.kubelet.set_rule(|_: &Pod| Fate::Unseen);
    let spec = json!({"version": "1.0.0", "database": {"urlSecretRef": {"name": "acme-db", "key": "url"}}});
    let names: Vec<String> = (0..MANY).map(|number| format!("acme-{number}")).collect();
    for name in &names {
        world.platform(name, &spec).await?;
    }
    for name in &names {
        world.wait_for(name, "Progressing", "True Migrating").await?;
    }
    world.kubelet.set_rule(Fate::usual);
    for name in &names {
        world.wait_for(name, "Ready", "True").await?;
    }
    Ok(())
}
