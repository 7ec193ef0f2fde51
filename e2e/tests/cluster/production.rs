//! The manifest of a platform engineer: as it is shipped, on a cluster that lacks half of what it asks for, and then
//! fitted to the cluster, with a database of the user's and data that go with the platform.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::platforms::reaches_audit_log;
use crate::world::{World, items, until};

const SAMPLE: &str = "config/samples/production.yaml";

/// What of it fits one node and one broker, and an image that is there.
fn fitted() -> Value {
    let one = json!({"replicas": 1});
    // Partitions only ever grow.
    let topic = &one;
    json!({"spec": {
        "version": "0.1.0",
        "image": null,
        "deletionPolicy": "Delete",
        "kafka": {"topics": {"taskEvents": topic, "taskUpdates": topic, "reminders": topic}},
        "dapr": {"stateStore": {"redis": null, "postgresql": {}}, "tracing": null},
        "auth": null,
        "api": {"replicas": 1, "autoscaling": null},
        "workers": {"relay": one, "recurring": one, "reminders": one, "audit": one},
    }})
}

/// It is taken as it is, what can be made is made, and the status says what the rest waits for.
pub(crate) async fn tells_what_it_waits_for(world: &World) -> Result<()> {
    world.namespace_with_database("todo", "acme").await?;
    for (name, values) in [
        ("acme-redis", ["host=redis.example.com:6379"].as_slice()),
        ("acme-smtp", &["url=smtps://smtp.example.com"]),
        (
            "acme-vapid",
            &[
                "private=cHJpdmF0ZQ",
                "public=cHVibGlj",
                "subject=mailto:todo@example.com",
            ],
        ),
    ] {
        let values: Vec<String> = values.iter().map(|value| format!("--from-literal={value}")).collect();
        let mut create = vec!["--namespace=todo", "create", "secret", "generic", name];
        create.extend(values.iter().map(String::as_str));
        world.kubectl(&create)?;
    }
    world.kubectl(&["apply", "--filename", &World::path(SAMPLE)])?;
    let conditions = until("the status to tell of the brokers", || async {
        let live = world.get(&["--namespace=todo", "todoplatform/acme"])?;
        let conditions = live.pointer("/status/conditions").cloned().unwrap_or_default();
        let tells = message(&conditions, "TopicsReady").is_some_and(|message| message.contains("only 1 broker"));
        Ok(tells.then_some(conditions))
    })
    .await?;
    for (about, answer) in [
        ("Ready", "False"),
        ("DatabaseReady", "True"),
        ("Migrated", "False"),
        ("TopicsReady", "False"),
        ("Paused", "False"),
    ] {
        let found = condition(&conditions, about).with_context(|| format!("no {about} in {conditions}"))?;
        ensure!(found["status"] == answer, "{about}: {found}");
    }
    for child in [
        "service/acme-api",
        "ingress/acme-api",
        "networkpolicy/acme-default-deny",
        "secret/acme-internal-key",
        "component.dapr.io/acme-pubsub",
        "subscription.dapr.io/acme-audit-task-events",
    ] {
        world
            .get(&["--namespace=todo", child])
            .with_context(|| format!("{child} is not made"))?;
    }
    let deployments = world.get(&["--namespace=todo", "deployments"])?;
    ensure!(
        items(&deployments)?.is_empty(),
        "pods would make topics by themselves, and otherwise: {deployments}"
    );
    world.stage("the production sample is taken, and tells what it waits for");
    Ok(())
}

/// Fitted to the cluster, it works, with the database that its Secret leads to and a user of its own at the brokers.
pub(crate) async fn works_when_fitted(world: &World) -> Result<()> {
    world.kubectl(&[
        "--namespace=todo",
        "patch",
        "todoplatform/acme",
        "--type=merge",
        "--patch",
        &fitted().to_string(),
    ])?;
    world.has_condition("todo", "todoplatform/acme", "Ready")?;
    let alice = world.user("todo", "acme", "alice")?;
    reaches_audit_log(&alice).await?;
    world.stage("fitted to the cluster, it works");
    Ok(())
}

/// With `deletionPolicy: Delete` all that was its goes with it, in other namespaces and on the brokers too.
pub(crate) async fn goes_without_a_trace(world: &World) -> Result<()> {
    let on_broker = world.topics_of("acme")?;
    ensure!(on_broker.len() >= 3, "Kafka itself has its topics: {on_broker:?}");
    world.kubectl(&["--namespace=todo", "delete", "todoplatform/acme", "--timeout=3m"])?;
    let kinds = "deployments,statefulsets,pods,services,secrets,configmaps,jobs,serviceaccounts,ingresses,\
                 networkpolicies,components.dapr.io,subscriptions.dapr.io,configurations.dapr.io,\
                 resiliencies.dapr.io,kafkatopics,kafkausers";
    until("nothing of the platform to be left", || async {
        let theirs = "--selector=todoplatform.dev/platform=acme";
        let left = world.get(&["--all-namespaces", kinds, theirs])?;
        Ok(items(&left)?.is_empty().then_some(()))
    })
    .await?;
    let on_broker = world.topics_of("acme")?;
    ensure!(on_broker.is_empty(), "Kafka itself still has topics: {on_broker:?}");
    world.stage("it is gone, and nothing of it is left");
    Ok(())
}

fn condition<'a>(conditions: &'a Value, about: &str) -> Option<&'a Value> {
    conditions
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == about)
}

fn message<'a>(conditions: &'a Value, about: &str) -> Option<&'a str> {
    condition(conditions, about)?["message"].as_str()
}
