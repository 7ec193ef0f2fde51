//! Requests that fail, watches that break off and events that get lost delay an operator, and change nothing of what it
//! makes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};
use similar::TextDiff;
use todo_crds::RecurringSchedule;
use todo_operator::pace::Pace;
use todo_test_cluster::Cluster;

use super::crashes::{End, end};
use super::deletions::until;
use super::storm::Storm;
use super::world::World;

/// Seconds instead of minutes: for how long a lost event goes unnoticed.
const PACE: Pace = Pace {
    look_anew: Duration::from_secs(3),
    let_go: Duration::from_mins(5),
    look_again: Duration::from_secs(1),
};
const STORM: Storm = Storm {
    requests: 0.25,
    events: 0.25,
    breaks: 0.1,
};
/// For how long the storm lasts: waits grow with each failure, so a longer one makes a test longer and shows no more.
const LONG_ENOUGH: Duration = Duration::from_secs(15);
/// What has happened in it. Conflicts are for writes alone, of which there are few.
const FAULTS: [&str; 8] = [
    "429",
    "429 with a wait",
    "500",
    "503",
    "lost",
    "answer lost",
    "cut",
    "answer cut",
];
/// How long an answer is waited for: longer than a busy machine takes for one.
const PATIENCE: Duration = Duration::from_secs(4);

fn first() -> Value {
    json!({
        "version": "1.0.0",
        "database": {"urlSecretRef": {"name": "acme-db", "key": "url"}},
        "api": {"replicas": 2},
        "networkPolicy": true,
    })
}

fn schedule(cron: &str) -> Value {
    json!({
        "apiVersion": "todoplatform.dev/v1alpha1", "kind": "RecurringSchedule", "metadata": {"name": "tick"},
        "spec": {
            "platformRef": {"name": "acme"}, "user": "ada", "schedule": {"cron": cron}, "template": {"title": "a task"},
        },
    })
}

/// What people do to two platforms and a schedule, with what happens on the way, and what is left and was made in the end.
pub(super) async fn story(world: &World, mut meanwhile: impl AsyncFnMut() -> Result<()>) -> Result<End> {
    let secret = json!({"url": "postgres://todo:secret@db/todo"});
    world.secret("acme-db", &secret).await?;
    // One that waits for its Secret. The operator is at work when it says so.
    let late = json!({"version": "1.0.0", "database": {"urlSecretRef": {"name": "late-db", "key": "url"}}});
    world.platform("late", &late).await?;
    world.wait_for("late", "DatabaseReady", "False").await?;
    meanwhile().await?;
    world.platform("acme", &first()).await?;
    world.apply(&schedule("0 9 * * *")).await?;
    meanwhile().await?;
    world.wait_for_object("Deployment/acme-all", |_| true).await?;

    // Others edit children, and delete some.
    world
        .patch("Deployment/acme-all", &json!({"spec": {"replicas": 7}}))
        .await?;
    let settings = json!({"data": {"todo.env": "TODO_LISTEN=127.0.0.1:1\n"}});
    world.patch("ConfigMap/acme-settings", &settings).await?;
    meanwhile().await?;
    for name in ["Service/acme-api", "ServiceAccount/acme-all", "Deployment/acme-all"] {
        let before = world.wait_for_object(name, |_| true).await?;
        world.delete(name).await?;
        world
            .wait_for_object(name, |now| now["metadata"]["uid"] != before["metadata"]["uid"])
            .await?;
    }

    // The manifest changes, so that children come, change and go; and the Secret comes.
    let mut second = first();
    second["api"] = json!({"replicas": 3, "ingress": {"host": "todo.example.com"}});
    second["networkPolicy"] = json!(false);
    world.platform("acme", &second).await?;
    world.apply(&schedule("0 10 * * *")).await?;
    meanwhile().await?;
    world.secret("late-db", &secret).await?;
    meanwhile().await?;

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
    let schedules: Api<RecurringSchedule> = world.namespace.api();
    until("the schedule is looked at", async || {
        let schedule = schedules.get("tick").await?;
        let seen = schedule.status.and_then(|status| status.observed_generation);
        Ok(seen == schedule.metadata.generation)
    })
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
        story(&world, async || Ok(())).await
    };
    let foul = async {
        let world = World::at_pace(cluster, "foul", PACE, PATIENCE).await?;
        let began = Instant::now();
        let mut ending = None;
        let end = story(&world, async || {
            let tap = world.tap.clone();
            // It ends in the middle of something, and what is over may have lost the last that was said.
            ending.get_or_insert_with(|| {
                tap.storm(STORM);
                tokio::spawn(async move {
                    tokio::time::sleep(LONG_ENOUGH).await;
                    tap.calm();
                })
            });
            Ok(())
        })
        .await?;
        ending.context("no storm")?.await?;
        println!("{:?} after {:?}", world.tap.hits(), began.elapsed());
        let hits = world.tap.hits();
        ensure!(
            FAULTS.iter().filter(|fault| hits.contains_key(*fault)).count() > 5,
            "a calm storm: {hits:?}"
        );
        world.until_quiet().await?;
        world.tap.take();
        // Lists and looks go on all the time, and none of them writes.
        tokio::time::sleep(3 * PACE.look_anew).await;
        let writes = world.tap.take();
        ensure!(writes.is_empty(), "it writes at rest: {writes:?}");
        Ok(end)
    };
    let (fair, foul) = tokio::try_join!(fair, foul)?;
    same(&fair, &foul)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_starts_in_a_storm_waits_for_its_end() -> Result<()> {
    let mut world = World::at_pace(Cluster::shared().await?, "starts", PACE, PATIENCE).await?;
    world.stop_operator().await?;
    world.tap.storm(Storm {
        requests: 1.0,
        events: 0.0,
        breaks: 0.0,
    });
    world.start_operator().await?;
    world
        .secret("acme-db", &json!({"url": "postgres://todo:secret@db/todo"}))
        .await?;
    world.platform("acme", &first()).await?;
    until("two requests have failed", async || {
        Ok(world.tap.hits().values().sum::<usize>() >= 2)
    })
    .await?;
    ensure!(world.children("acme").await?.is_empty(), "it was no storm");
    world.tap.calm();
    world.wait_for("acme", "Ready", "True").await?;
    Ok(())
}

/// With each event of a watch lost, only a list tells. That is how long it takes.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_watch_has_told_of_is_seen_by_the_next_list() -> Result<()> {
    let world = World::at_pace(Cluster::shared().await?, "lost", PACE, PATIENCE).await?;
    world
        .secret("acme-db", &json!({"url": "postgres://todo:secret@db/todo"}))
        .await?;
    world.platform("acme", &first()).await?;
    world.wait_for("acme", "Progressing", "False Settled").await?;
    world.until_quiet().await?;
    world.tap.storm(Storm {
        requests: 0.0,
        events: 1.0,
        breaks: 0.0,
    });
    let mut second = first();
    second["api"]["replicas"] = json!(3);
    let began = Instant::now();
    world.platform("acme", &second).await?;
    world
        .wait_for_object("Deployment/acme-all", |deployment| deployment["spec"]["replicas"] == 3)
        .await?;
    println!("a manifest after {:?}", began.elapsed());
    let before = world.wait_for_object("ServiceAccount/acme-all", |_| true).await?;
    let began = Instant::now();
    world.delete("ServiceAccount/acme-all").await?;
    world
        .wait_for_object("ServiceAccount/acme-all", |now| {
            now["metadata"]["uid"] != before["metadata"]["uid"]
        })
        .await?;
    println!("a child after {:?}", began.elapsed());
    world
        .secret("acme-db", &json!({"url": "postgres://todo:secret@elsewhere:5433/todo"}))
        .await?;
    world
        .wait_for_object("NetworkPolicy/acme-all", |policy| policy.to_string().contains("5433"))
        .await?;
    world.platforms().delete("acme", &DeleteParams::default()).await?;
    until("the children go", async || Ok(world.children("acme").await?.is_empty())).await?;
    let hits = world.tap.hits();
    ensure!(hits["event lost"] > 5, "{hits:?}");
    Ok(())
}

/// Both left the same, and made and deleted the same.
pub(super) fn same(expected: &End, left: &End) -> Result<()> {
    let (expected_text, left_text) = (format!("{expected:#?}"), format!("{left:#?}"));
    ensure!(
        left == expected,
        "{}",
        TextDiff::from_lines(&expected_text, &left_text).unified_diff()
    );
    Ok(())
}
