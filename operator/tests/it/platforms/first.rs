//! From nothing to a platform that is ready, and to nothing again.

use anyhow::{Context as _, Result, ensure};
use kube::api::DeleteParams;
use serde_json::json;
use todo_test_cluster::{Cluster, Options};

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
