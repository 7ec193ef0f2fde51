//! Platforms: one that is all in a pod, one that is spread out over Kafka and Dapr, and their end.

use anyhow::{Result, ensure};
use serde_json::json;
use todo_e2e::client::{Client, text};
use todo_e2e::wait_for;

use crate::world::{EVENT_PATIENCE, World, items, ready_containers, until};

const SCHEDULE_SECONDS: i64 = 5;

/// As it is shipped, with its schedules.
const SMALLEST: &str = "config/samples/platform.yaml";

const SPREAD_OUT: &str = "
apiVersion: todoplatform.dev/v1alpha1
kind: TodoPlatform
metadata: {name: acme, namespace: second}
spec:
  version: '0.1.0'
  deletionPolicy: Delete
  database:
    urlSecretRef: {name: acme-db, key: url}
  kafka:
    strimzi:
      cluster: {name: events, namespace: kafka}
      user: {create: false}
    topics:
      taskEvents: {partitions: 3, replicas: 1}
      taskUpdates: {partitions: 3, replicas: 1}
      reminders: {partitions: 3, replicas: 1}
  dapr:
    stateStore: {postgresql: {}}
  api: {replicas: 1}
  workers:
    relay: {replicas: 1}
    recurring: {replicas: 1}
    reminders: {replicas: 1}
    audit: {replicas: 1}
";

/// No Kafka, no Dapr and no database of the user's: one Deployment, and a PostgreSQL for evaluation.
pub(crate) async fn smallest(world: &World) -> Result<()> {
    world.kubectl(&["create", "namespace", "first"])?;
    world.kubectl(&["--namespace", "first", "apply", "--filename", &World::path(SMALLEST)])?;
    world.has_condition("first", "todoplatform/home", "Ready")?;
    world.stage("the smallest platform is ready");
    works(world, "first", "home").await?;
    world.stage("the smallest platform works");
    Ok(())
}

/// Each service a Deployment of its own, with a sidecar.
pub(crate) async fn spread_out(world: &World) -> Result<()> {
    world.namespace_with_database("second", "acme").await?;
    world.apply(SPREAD_OUT)?;
    world.has_condition("second", "todoplatform/acme", "Ready")?;
    world.stage("the platform over Kafka and Dapr is ready");
    let pods = world.get(&[
        "--namespace",
        "second",
        "pods",
        "--selector=todoplatform.dev/platform=acme",
    ])?;
    let with_sidecars = items(&pods)?.iter().filter(|pod| ready_containers(pod) == 2).count();
    ensure!(
        with_sidecars >= 5,
        "five pods and more have a sidecar, and both are ready: {with_sidecars}"
    );
    works(world, "second", "acme").await?;
    world.stage("the platform over Kafka and Dapr works");
    Ok(())
}

/// Platforms go, then a namespace with one in it: and all that was theirs goes with them.
pub(crate) async fn everything_goes(world: &World) -> Result<()> {
    let topics = world.get(&["--namespace", "kafka", "kafkatopics"])?;
    ensure!(items(&topics)?.len() >= 3, "the platform has topics");
    let on_broker = world.topics_of("acme")?;
    ensure!(on_broker.len() >= 3, "Kafka itself has them: {on_broker:?}");
    world.kubectl(&["--namespace", "second", "delete", "todoplatform/acme", "--timeout=3m"])?;
    let theirs = "todoplatform.dev/platform=acme";
    until("nothing of the platform to be left", || async {
        let kinds = "deployments,statefulsets,pods,services,secrets,configmaps,jobs,serviceaccounts,components.dapr.io,\
                     subscriptions.dapr.io,configurations.dapr.io,resiliencies.dapr.io,kafkatopics";
        let left = world.get(&["--all-namespaces", kinds, "--selector", theirs])?;
        Ok(items(&left)?.is_empty().then_some(()))
    })
    .await?;
    let on_broker = world.topics_of("acme")?;
    ensure!(on_broker.is_empty(), "Kafka itself still has topics: {on_broker:?}");
    world.stage("the platform over Kafka and Dapr is gone");
    for namespace in ["first", "second"] {
        world.kubectl(&["delete", "namespace", namespace, "--timeout=3m"])?;
    }
    world.stage("the namespaces are gone");
    Ok(())
}

/// A task that a user makes reaches the audit log, and a schedule makes tasks when it should.
async fn works(world: &World, namespace: &str, platform: &str) -> Result<()> {
    let alice = world.user(namespace, platform, "alice")?;
    let task = alice.post("/tasks", &json!({"title": "Buy milk"})).await?;
    let history = format!("/tasks/{}/history", text(&task, "id")?);
    wait_for("the task to be in the audit log", EVENT_PATIENCE, || async {
        Ok((!alice.list(&history).await?.is_empty()).then_some(()))
    })
    .await?;
    world.stage("an event has reached the audit log");

    world.apply(&format!(
        "
apiVersion: todoplatform.dev/v1alpha1
kind: RecurringSchedule
metadata: {{name: often, namespace: {namespace}}}
spec:
  platformRef: {{name: {platform}}}
  user: alice
  schedule: {{every: {SCHEDULE_SECONDS}s}}
  template: {{title: 'Number {{{{n}}}}'}}
"
    ))?;
    let made = wait_for("a schedule to make three tasks", EVENT_PATIENCE, || async {
        let made = scheduled(&alice).await?;
        Ok((made.len() >= 3).then_some(made))
    })
    .await?;
    for pair in made.windows(2) {
        let apart = pair[1].duration_since(pair[0]).as_secs();
        ensure!(
            (apart - SCHEDULE_SECONDS).abs() <= 2,
            "tasks of a schedule of {SCHEDULE_SECONDS} s were made {apart} s apart"
        );
    }
    world.has_condition(namespace, "recurringschedule/often", "Ready")
}

/// When the tasks of the schedule were made, in order.
async fn scheduled(user: &Client) -> Result<Vec<jiff::Timestamp>> {
    let tasks = user.list("/tasks").await?;
    let of_schedule = tasks
        .iter()
        .filter(|task| task["title"].as_str().is_some_and(|title| title.starts_with("Number")));
    let mut made = vec![];
    for task in of_schedule {
        made.push(text(task, "created_at")?.parse()?);
    }
    made.sort();
    Ok(made)
}
