//! Keys that are drawn anew when it is asked for, and Secrets of others that change.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use todo_operator::names::ROTATE_INTERNAL_KEY;
use todo_test_cluster::{Cluster, Options};

use super::world::World;

/// The pod templates of a platform, by the Deployment's name: what they say is what pods roll by.
pub(super) async fn templates(world: &World, platform: &str) -> Result<BTreeMap<String, Value>> {
    let children = world.children(platform).await?.into_values();
    let deployments = children.filter(|child| child["kind"] == "Deployment");
    Ok(deployments
        .map(|deployment| {
            let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
            (name.to_owned(), deployment["spec"]["template"].clone())
        })
        .collect())
}

async fn ask(world: &World, value: &str) -> Result<()> {
    let patch = json!({"metadata": {"annotations": {ROTATE_INTERNAL_KEY: value}}});
    world
        .platforms()
        .patch("acme", &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

/// The key and the one before it, as they are kept.
async fn keys(world: &World) -> Result<(String, Option<String>)> {
    let secret = world
        .get("v1", "Secret", "acme-internal-key")
        .await?
        .context("no key")?;
    let text = |name: &str| secret["data"][name].as_str().map(str::to_owned);
    Ok((text("key").context("no key")?, text("previous")))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_internal_key_is_drawn_anew_once_for_each_time_that_it_is_asked_for() -> Result<()> {
    let mut world = World::new(Cluster::shared_with(Options::NONE).await?, "key").await?;
    world
        .secret("acme-db", &json!({"url": "postgres://todo:secret@db/todo"}))
        .await?;
    let spec = json!({"version": "1.0.0", "database": {"urlSecretRef": {"name": "acme-db", "key": "url"}}});
    world.platform("acme", &spec).await?;
    world.wait_for("acme", "Ready", "True").await?;
    world.until_quiet().await?;
    let (first, none) = keys(&world).await?;
    ensure!(none.is_none(), "there was none before the first");
    let pods = templates(&world, "acme").await?;

    let mut before = first.clone();
    for asked in ["once", "twice"] {
        ask(&world, asked).await?;
        world
            .wait_for_object("Secret/acme-internal-key", |secret| {
                secret["data"]["key"] != before.as_str()
            })
            .await?;
        let (key, previous) = keys(&world).await?;
        ensure!(
            previous.as_ref() == Some(&before),
            "who still has the key before is shut out"
        );
        before = key;
    }
    // Asked for again in the same words, and with another operator: it was answered already.
    world.until_quiet().await?;
    ask(&world, "twice").await?;
    world.stop_operator().await?;
    world.start_operator().await?;
    world.until_quiet().await?;
    ensure!(keys(&world).await?.0 == before, "it was drawn again");
    // The processes read the file again, so no pod has to go for it.
    ensure!(templates(&world, "acme").await? == pods, "pods rolled");

    // Somebody's mistake is repaired, and the pods still need not roll.
    world.delete("Secret/acme-internal-key").await?;
    world
        .wait_for_object("Secret/acme-internal-key", |secret| {
            secret["data"]["key"] != before.as_str()
        })
        .await?;
    world.until_quiet().await?;
    ensure!(templates(&world, "acme").await? == pods, "pods rolled");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_changes_with_the_manifest_rolls_pods_once_and_is_not_read_in_every_pass() -> Result<()> {
    let world = World::new(Cluster::shared().await?, "once").await?;
    let redis = |host: &str| json!({"host": format!("{host}.example:6379")});
    let spec = |limit: &str| {
        json!({
            "version": "1.0.0",
            "database": {"urlSecretRef": {"name": "acme-db", "key": "url"}},
            "dapr": {"stateStore": {"redis": {"hostSecretRef": {"name": "acme-redis", "key": "host"}}}},
            "api": {"resources": {"limits": {"memory": limit}}},
        })
    };
    world
        .secret("acme-db", &json!({"url": "postgres://todo:secret@db/todo"}))
        .await?;
    world.secret("acme-redis", &redis("before")).await?;
    world.until_quiet().await?;
    world.platform("acme", &spec("200Mi")).await?;
    world.wait_for("acme", "Ready", "True").await?;
    world.until_quiet().await?;
    // To apply, to start pods after the migration, to tell that they are there: three passes at least.
    let reads = world.tap.reads_of("/secrets/acme-redis");
    ensure!((1..3).contains(&reads), "read {reads} times");
    let before = templates(&world, "acme").await?;

    // The watch tells of the manifest first.
    world.tap.hold("secrets");
    world.secret("acme-redis", &redis("after")).await?;
    world.platform("acme", &spec("300Mi")).await?;
    world
        .wait_for_object("Deployment/acme-all", |deployment| {
            let resources = &deployment["spec"]["template"]["spec"]["containers"][0]["resources"];
            resources["limits"]["memory"] == "300Mi"
        })
        .await?;
    world.until_quiet().await?;
    let rolled = templates(&world, "acme").await?;
    world.tap.let_go();
    world.until_quiet().await?;
    ensure!(templates(&world, "acme").await? == rolled, "pods rolled twice");

    // And one that changes alone does it, too.
    world.secret("acme-redis", &redis("at-last")).await?;
    let annotations = |pods: &BTreeMap<String, Value>| pods["acme-all"]["metadata"]["annotations"].clone();
    world
        .wait_for_object("Deployment/acme-all", |deployment| {
            deployment["spec"]["template"]["metadata"]["annotations"] != annotations(&rolled)
        })
        .await?;
    ensure!(
        annotations(&before) != annotations(&rolled),
        "the first change did not show"
    );
    Ok(())
}
