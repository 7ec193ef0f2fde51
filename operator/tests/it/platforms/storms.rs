//! Requests that fail, watches that break off and events that get lost delay an operator, and change nothing of what it
//! makes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use similar::TextDiff;
use todo_operator::pace::Pace;
use todo_test_cluster::Cluster;

use super::crashes::{End, end};
use super::storm::Storm;
use super::world::World;

/// A second instead of minutes: for how long a lost event goes unnoticed.
const PACE: Pace = Pace {
    look_anew: Duration::from_secs(2),
    let_go: Duration::from_mins(5),
    look_again: Duration::from_secs(1),
};
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

fn first() -> Value {
    json!({
        "version": "1.0.0",
        "database": {"urlSecretRef": {"name": "acme-db", "key": "url"}},
        "api": {"replicas": 2},
        "networkPolicy": true,
    })
}

/// What people do to two platforms, and what is left and was made in the end.
async fn story(world: &World) -> Result<End> {
    let secret = json!({"url": "postgres://todo:secret@db/todo"});
    world.secret("acme-db", &secret).await?;
    world.platform("acme", &first()).await?;
    world.wait_for_object("Deployment/acme-all", |_| true).await?;

    // Others edit children, and delete some.
    world
        .patch("Deployment/acme-all", &json!({"spec": {"replicas": 7}}))
        .await?;
    let settings = json!({"data": {"todo.env": "TODO_LISTEN=127.0.0.1:1\n"}});
    world.patch("ConfigMap/acme-settings", &settings).await?;
    for name in ["Service/acme-api", "ServiceAccount/acme-all", "Deployment/acme-all"] {
        let before = world.wait_for_object(name, |_| true).await?;
        world.delete(name).await?;
        world
            .wait_for_object(name, |now| now["metadata"]["uid"] != before["metadata"]["uid"])
            .await?;
    }

    // The manifest changes, so that children come, change and go; and another waits for its Secret.
    let mut second = first();
    second["api"] = json!({"replicas": 3, "ingress": {"host": "todo.example.com"}});
    second["networkPolicy"] = json!(false);
    world.platform("acme", &second).await?;
    let late = json!({"version": "1.0.0", "database": {"urlSecretRef": {"name": "late-db", "key": "url"}}});
    world.platform("late", &late).await?;
    world.wait_for("late", "DatabaseReady", "False").await?;
    world.secret("late-db", &secret).await?;
    world.wait_for("late", "Progressing", "False Settled").await?;

    // What is over now may have lost the last that was said.
    world.tap.calm();
    for name in ["acme", "late"] {
        world.wait_for(name, "Ready", "True").await?;
        world.wait_for(name, "Progressing", "False Settled").await?;
    }
    world
        .wait_for_object("Deployment/acme-all", |deployment| deployment["spec"]["replicas"] == 3)
        .await?;
    world
        .wait_for_object("ConfigMap/acme-settings", |map| map["data"] != settings["data"])
        .await?;
    world.until_quiet().await?;
    let writes = world.tap.take();
    end(world, &writes).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_failures_changes_nothing_of_what_is_made() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let fair = async {
        let world = World::at_pace(cluster, "fair", PACE, PATIENCE).await?;
        story(&world).await
    };
    let foul = async {
        let world = World::at_pace(cluster, "foul", PACE, PATIENCE).await?;
        world.tap.storm(Storm {
            requests: 0.25,
            events: 0.25,
            breaks: 0.05,
        });
        let began = Instant::now();
        let end = story(&world).await?;
        println!("{:?} after {:?}", world.tap.hits(), began.elapsed());
        // Lists and looks go on all the time, and none of them writes.
        tokio::time::sleep(3 * PACE.look_anew).await;
        let writes = world.tap.take();
        ensure!(writes.is_empty(), "it writes at rest: {writes:?}");
        let hits = world.tap.hits();
        for kind in [
            "409",
            "429",
            "429 with a wait",
            "500",
            "503",
            "lost",
            "answer lost",
            "cut",
            "answer cut",
        ] {
            ensure!(hits.contains_key(kind), "it did not happen: {kind}");
        }
        ensure!(hits["event lost"] > 5, "{hits:?}");
        Ok(end)
    };
    let (fair, foul) = tokio::try_join!(fair, foul)?;
    let (expected, left) = (format!("{fair:#?}"), format!("{foul:#?}"));
    ensure!(
        foul == fair,
        "{}",
        TextDiff::from_lines(&expected, &left).unified_diff()
    );
    Ok(())
}
