//! The topics of a Kafka that runs elsewhere, looked after by the whole operator: a real broker that asks for a login over
//! TLS, and no Strimzi.

use std::time::Instant;

use anyhow::{Result, ensure};
use kube::api::DeleteParams;
use serde_json::{Value, json};
use todo_operator::kafka::{Admin, TopicOutcome};
use todo_test_cluster::Cluster;

use super::deletions::{over_kafka, until};
use super::world::World;
use crate::kafka::broker::{ADMIN, Broker};

/// A namespace with what a platform over the broker refers to.
async fn world(broker: &Broker, hint: &str) -> Result<World> {
    let world = World::new(Cluster::shared().await?, hint).await?;
    world
        .secret("acme-db", &json!({"url": "postgres://todo:secret@db/todo"}))
        .await?;
    world.secret("kafka-ca", &json!({"ca.crt": broker.ca})).await?;
    login(&world, ADMIN.1).await?;
    Ok(world)
}

async fn login(world: &World, password: &str) -> Result<()> {
    let login = json!({"username": ADMIN.0, "password": password});
    world.secret("kafka-login", &login).await
}

/// A platform whose topics are on one broker, with so many partitions for the first.
fn spec(broker: &Broker, policy: &str, partitions: u32) -> Value {
    let topic = |partitions: u32| json!({"partitions": partitions, "replicas": 1});
    let kafka = json!({
        "external": {
            "brokers": [broker.address("SASL_SSL")],
            "caSecretRef": {"name": "kafka-ca", "key": "ca.crt"},
            "sasl": {"mechanism": "SCRAM-SHA-512", "secretRef": {"name": "kafka-login"}},
            "manageTopics": true,
        },
        "topics": {"taskEvents": topic(partitions), "taskUpdates": topic(1), "reminders": topic(1)},
    });
    over_kafka(policy, &kafka)
}

/// How many partitions topics have at the broker; `None` for one that is not there.
async fn partitions(broker: &Broker, topics: &[&str]) -> Result<Vec<Option<u32>>> {
    let mut admin = Admin::connect(&broker.plain()).await?;
    let found = admin.find(topics).await?;
    Ok(found
        .into_iter()
        .map(|topic| topic.partitions.filter(|_| topic.outcome == TopicOutcome::There))
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_grown_and_deleted_with_their_platform() -> Result<()> {
    let broker = Broker::shared().await;
    let world = world(broker, "topics").await?;
    world.platform("made", &spec(broker, "Retain", 2)).await?;
    world.wait_for("made", "Ready", "True").await?;
    let said = world.wait_for("made", "TopicsReady", "True AllTopicsReady").await?;
    let topics: Vec<String> = world
        .status("made")
        .await?
        .topics
        .into_iter()
        .map(|topic| topic.name)
        .collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    ensure!(
        topics.len() > 3 && said.contains(&topics.len().to_string()),
        "{said}: {topics:?}"
    );
    let found = partitions(broker, &topics).await?;
    ensure!(found.iter().all(Option::is_some), "{found:?}");

    world.platform("made", &spec(broker, "Retain", 5)).await?;
    world.wait_for("made", "TopicsReady", "True AllTopicsReady").await?;
    ensure!(partitions(broker, &["made-task-events"]).await? == [Some(5)]);

    // A topic is data: it stays with `Retain`, is found by the next of that name, and goes with `Delete`.
    world.platforms().delete("made", &DeleteParams::default()).await?;
    until("the platform goes", async || {
        Ok(world.platforms().get_opt("made").await?.is_none())
    })
    .await?;
    ensure!(
        partitions(broker, &topics).await?.iter().all(Option::is_some),
        "data is gone"
    );
    world.platform("made", &spec(broker, "Delete", 5)).await?;
    world.wait_for("made", "TopicsReady", "True AllTopicsReady").await?;
    let began = Instant::now();
    world.platforms().delete("made", &DeleteParams::default()).await?;
    until("the platform goes", async || {
        Ok(world.platforms().get_opt("made").await?.is_none())
    })
    .await?;
    until("the topics go", async || {
        Ok(partitions(broker, &topics).await?.iter().all(Option::is_none))
    })
    .await?;
    println!("deleted within {:?}", began.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_with_what_to_do_and_a_right_one_is_taken_at_once() -> Result<()> {
    let broker = Broker::shared().await;
    let world = world(broker, "password").await?;
    login(&world, "not-my-secret").await?;
    world.platform("locked", &spec(broker, "Delete", 2)).await?;
    let said = world.wait_for("locked", "TopicsReady", "False LoginRefused").await?;
    ensure!(said.contains("the Secret kafka-login"), "{said}");
    let deployment = world.get("apps/v1", "Deployment", "locked-relay").await?;
    ensure!(
        deployment.is_none(),
        "a relay without topics would make them by itself, and otherwise"
    );

    login(&world, ADMIN.1).await?;
    let began = Instant::now();
    world.wait_for("locked", "Ready", "True").await?;
    println!("ready {:?} after the password was right", began.elapsed());
    ensure!(partitions(broker, &["locked-task-events"]).await? == [Some(2)]);

    // What runs goes on when the password turns wrong, and it is told.
    login(&world, "nor-this").await?;
    world.wait_for("locked", "TopicsReady", "False LoginRefused").await?;
    let deployment = world.get("apps/v1", "Deployment", "locked-relay").await?;
    ensure!(deployment.is_some(), "what ran is gone");
    login(&world, ADMIN.1).await?;
    world.wait_for("locked", "TopicsReady", "True AllTopicsReady").await?;
    let told = format!(
        "{:?} {:?}",
        world.events("locked").await?,
        world.status("locked").await?
    );
    for password in ["not-my-secret", "nor-this", ADMIN.1] {
        ensure!(!told.contains(password), "{told}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_go_with_a_namespace_though_its_secrets_may_go_first() -> Result<()> {
    let broker = Broker::shared().await;
    let world = world(broker, "namespace").await?;
    world.platform("whole", &spec(broker, "Delete", 2)).await?;
    world.wait_for("whole", "TopicsReady", "True AllTopicsReady").await?;
    ensure!(partitions(broker, &["whole-task-events"]).await? == [Some(2)]);
    world.delete("Secret/kafka-login").await?;
    world.wait_for("whole", "TopicsReady", "False").await?;
    let began = Instant::now();
    world.namespace.delete().await?;
    println!("gone after {:?}", began.elapsed());
    until("the topics go", async || {
        Ok(partitions(broker, &["whole-task-events"]).await? == [None])
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_go_also_when_the_status_that_lists_them_was_not_told_of_yet() -> Result<()> {
    let broker = Broker::shared().await;
    let world = world(broker, "behind").await?;
    world.delete("Secret/kafka-login").await?;
    world.platform("behind", &spec(broker, "Delete", 2)).await?;
    world.wait_for("behind", "TopicsReady", "False").await?;
    world.until_quiet().await?;
    ensure!(
        world.status("behind").await?.topics.is_empty(),
        "listed before they were made"
    );

    // The topics are made, and the next pass begins with the platform as it was before.
    world.tap.hold("todoplatforms");
    login(&world, ADMIN.1).await?;
    world.wait_for("behind", "TopicsReady", "True AllTopicsReady").await?;
    world.delete("Secret/kafka-login").await?;
    world.wait_for("behind", "TopicsReady", "False").await?;
    ensure!(!world.status("behind").await?.topics.is_empty(), "forgotten");
    world.tap.let_go();
    world.namespace.delete().await?;
    until("the topics go", async || {
        Ok(partitions(broker, &["behind-task-events"]).await? == [None])
    })
    .await
    .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_login_rolls_the_pods_that_log_in_and_no_others() -> Result<()> {
    let broker = Broker::shared().await;
    let world = world(broker, "rolls").await?;
    world.platform("rolled", &spec(broker, "Delete", 2)).await?;
    world.wait_for("rolled", "Ready", "True").await?;
    world.wait_for("rolled", "Progressing", "False Settled").await?;
    let before = super::rotations::templates(&world, "rolled").await?;
    // What the sidecars read, without a change of what it means here.
    let login = json!({"username": ADMIN.0, "password": ADMIN.1, "note": "changed"});
    world.secret("kafka-login", &login).await?;
    let mut after = before.clone();
    until("the relay rolls", async || {
        after = super::rotations::templates(&world, "rolled").await?;
        Ok(after["rolled-relay"] != before["rolled-relay"])
    })
    .await?;
    world.wait_for("rolled", "Progressing", "False Settled").await?;
    after = super::rotations::templates(&world, "rolled").await?;
    let rolled: Vec<&String> = after.keys().filter(|name| after[*name] != before[*name]).collect();
    let consumers = ["rolled-audit", "rolled-recurring", "rolled-relay"];
    ensure!(
        consumers.iter().all(|name| rolled.iter().any(|rolled| rolled == name)),
        "{rolled:?}"
    );
    ensure!(!rolled.iter().any(|name| *name == "rolled-api"), "{rolled:?}");
    Ok(())
}
