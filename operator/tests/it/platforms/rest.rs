//! At rest nothing is written.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use todo_test_cluster::{Cluster, Options};

use super::world::World;

/// Long enough for everything that comes by itself: status of pods, second looks, discovery.
const A_WHILE: Duration = Duration::from_secs(10);

/// The versions of all of a namespace's objects that an operator may write.
async fn versions(world: &World) -> Result<BTreeMap<String, String>> {
    let objects = world.objects().await?;
    // The real autoscaler says every few seconds that there are no metrics here.
    Ok(objects
        .into_iter()
        .filter(|(name, _)| !name.starts_with("HorizontalPodAutoscaler/"))
        .map(|(name, object)| (name, object["metadata"]["resourceVersion"].to_string()))
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settled_platform_costs_no_write_not_even_after_a_restart_of_the_operator() -> Result<()> {
    let mut world = World::new(Cluster::shared_with(Options::NONE).await?, "rest").await?;
    world
        .secret("acme-db", &json!({"url": "postgres://todo:secret@db/todo"}))
        .await?;
    let spec = json!({
        "version": "1.0.0",
        "database": {"urlSecretRef": {"name": "acme-db", "key": "url"}},
        "api": {
            "autoscaling": {"min": 2, "max": 5, "targetCPU": 70, "targetMemory": 80},
            "resources": {"requests": {"cpu": "0.1", "memory": "65536Ki"}, "limits": {"memory": "256Mi"}},
            "ingress": {"host": "todo.example.com"},
        },
        "networkPolicy": true,
    });
    world.platform("acme", &spec).await?;
    // The real autoscaler raises the number to its least by itself.
    world
        .wait_for("acme", "Ready", "True AllComponentsAvailable: all 2/2")
        .await?;
    world.wait_for("acme", "Progressing", "False Settled").await?;
    world.until_quiet().await?;

    let status = world.status("acme").await?;
    let before = versions(&world).await?;
    ensure!(before.len() > 8, "few objects: {:?}", before.keys());
    world.tap.take();
    tokio::time::sleep(A_WHILE).await;
    ensure!(world.tap.take().is_empty(), "it writes at rest");
    world.stop_operator().await?;
    world.start_operator().await?;
    tokio::time::sleep(A_WHILE).await;
    let writes = world.tap.take();
    let after = world.status("acme").await?;
    ensure!(
        writes.is_empty(),
        "it writes after a restart: {writes:?}: {status:#?} became {after:#?}"
    );
    ensure!(versions(&world).await? == before, "something has changed");
    Ok(())
}

/// How many platforms rest beside each other, and for how long: what is written by the second shows with many.
const MANY: usize = 200;
const A_MINUTE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_platforms_at_rest_cost_no_write_for_a_minute() -> Result<()> {
    let mut world = World::new(Cluster::shared_with(Options::NONE).await?, "many").await?;
    world
        .secret("db", &json!({"url": "postgres://todo:secret@db/todo"}))
        .await?;
    let spec = json!({"version": "1.0.0", "database": {"urlSecretRef": {"name": "db", "key": "url"}}});
    let names: Vec<String> = (0..MANY).map(|number| format!("p{number:03}")).collect();
    for name in &names {
        world.platform(name, &spec).await?;
    }
    for name in &names {
        world.wait_for(name, "Progressing", "False Settled").await?;
        world.wait_for(name, "Ready", "True").await?;
    }
    world.until_quiet().await?;
    let before = versions(&world).await?;
    ensure!(before.len() > 8 * MANY, "few objects: {}", before.len());
    world.tap.take();
    tokio::time::sleep(A_MINUTE).await;
    let writes = world.tap.take();
    ensure!(writes.is_empty(), "it writes at rest: {writes:?}");
    world.stop_operator().await?;
    world.start_operator().await?;
    tokio::time::sleep(A_MINUTE).await;
    let writes = world.tap.take();
    ensure!(writes.is_empty(), "it writes after a restart: {writes:?}");
    ensure!(versions(&world).await? == before, "something has changed");
    Ok(())
}
