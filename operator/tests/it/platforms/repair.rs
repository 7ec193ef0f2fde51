//! What others change or delete is put right, and what is not the operator's is left alone.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use todo_test_cluster::{Cluster, Options};

use super::world::World;

fn labels(object: &Value) -> &Value {
    &object["metadata"]["labels"]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_child_that_someone_deletes_or_edits_is_as_it_was() -> Result<()> {
    let world = World::new(Cluster::shared_with(Options::NONE).await?, "repair").await?;
    world
        .secret("acme-db", &json!({"url": "postgres://todo:secret@db/todo"}))
        .await?;
    let spec = json!({
        "version": "1.0.0",
        "database": {"urlSecretRef": {"name": "acme-db", "key": "url"}},
        "api": {"replicas": 2},
        "networkPolicy": true,
    });
    world.platform("acme", &spec).await?;
    world.wait_for("acme", "Progressing", "False Settled").await?;

    let before = world.children("acme").await?;
    ensure!(before.len() > 6, "{:?}", before.keys());
    for name in before.keys() {
        world.delete(name).await?;
    }
    for (name, object) in &before {
        let again = world
            .wait_for_object(name, |again| again["metadata"]["uid"] != object["metadata"]["uid"])
            .await?;
        // A Job's selector and a Service's address are drawn anew.
        let is_drawn = ["Job/", "Service/"].iter().any(|kind| name.starts_with(kind));
        ensure!(is_drawn || again["spec"] == object["spec"], "{name}: {again}");
        ensure!(
            labels(&again) == labels(object),
            "{name}: {} instead of {}",
            labels(&again),
            labels(object)
        );
    }
    world.wait_for("acme", "Ready", "True").await?;

    let edited = "Deployment/acme-all";
    world
        .patch(
            edited,
            &json!({"spec": {"replicas": 7, "template": {"spec": {"terminationGracePeriodSeconds": 7}}}}),
        )
        .await?;
    world
        .wait_for_object(edited, |deployment| {
            deployment["spec"]["replicas"] == 2
                && deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] != 7
        })
        .await?;
    world
        .patch(
            edited,
            &json!({"metadata": {"annotations": {"someone.else/note": "mine"}}}),
        )
        .await?;
    world
        .patch(
            "ConfigMap/acme-settings",
            &json!({"data": {"todo.env": "TODO_LISTEN=127.0.0.1:1\n"}}),
        )
        .await?;
    world
        .wait_for_object("ConfigMap/acme-settings", |map| {
            map["data"]["todo.env"] != "TODO_LISTEN=127.0.0.1:1\n"
        })
        .await?;
    let deployment = world
        .get("apps/v1", "Deployment", "acme-all")
        .await?
        .context("it is gone")?;
    ensure!(
        deployment["metadata"]["annotations"]["someone.else/note"] == "mine",
        "what is not ours is gone"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_keeps_the_number_of_pods() -> Result<()> {
    let world = World::new(Cluster::shared_with(Options::NONE).await?, "autoscaler").await?;
    world
        .secret("acme-db", &json!({"url": "postgres://todo:secret@db/todo"}))
        .await?;
    let mut spec = json!({
        "version": "1.0.0",
        "database": {"urlSecretRef": {"name": "acme-db", "key": "url"}},
        "api": {"autoscaling": {"min": 2, "max": 9, "targetCPU": 70}},
    });
    world.platform("acme", &spec).await?;
    world.wait_for("acme", "Progressing", "False Settled").await?;
    world
        .patch("Deployment/acme-all", &json!({"spec": {"replicas": 6}}))
        .await?;
    world
        .wait_for("acme", "Ready", "True AllComponentsAvailable: all 6/6")
        .await?;
    // A pass that changes the Deployment itself.
    spec["api"]["limits"] = json!({"maxPageSize": 100});
    world.platform("acme", &spec).await?;
    world.wait_for("acme", "Progressing", "False Settled").await?;
    let deployment = world
        .get("apps/v1", "Deployment", "acme-all")
        .await?
        .context("it is gone")?;
    ensure!(
        deployment["spec"]["replicas"] == 6,
        "{}",
        deployment["spec"]["replicas"]
    );
    Ok(())
}
