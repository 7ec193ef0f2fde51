//! The smallest platform: all of it in one pod, as it is shipped; and the end of its namespace.

use anyhow::{Result, ensure};
use serde_json::json;
use todo_e2e::client::{Client, text};
use todo_e2e::wait_for;

use crate::world::{EVENT_PATIENCE, World};

const SCHEDULE_SECONDS: i64 = 5;
/// Between an occurrence and its task, on a busy machine.
const LATE_SECONDS: i64 = 2;

/// As it is shipped, with its schedules.
const SMALLEST: &str = "config/samples/platform.yaml";

/// No Kafka, no Dapr and no database of the user's: one Deployment, and a PostgreSQL for evaluation.
pub(crate) async fn smallest(world: &World) -> Result<()> {
    world.kubectl(&["create", "namespace", "first"])?;
    world.kubectl(&["--namespace", "first", "apply", "--filename", &World::path(SMALLEST)])?;
    world.has_condition("first", "todoplatform/home", "Ready")?;
    world.stage("the smallest platform is ready");
    let alice = world.user("first", "home", "alice")?;
    reaches_audit_log(&alice).await?;
    world.stage("an event has reached the audit log");
    makes_tasks_on_time(world, &alice).await?;
    world.stage("the smallest platform works");
    Ok(())
}

async fn makes_tasks_on_time(world: &World, alice: &Client) -> Result<()> {
    world.apply(&format!(
        "
apiVersion: todoplatform.dev/v1alpha1
kind: RecurringSchedule
metadata: {{name: often, namespace: first}}
spec:
  platformRef: {{name: home}}
  user: alice
  schedule: {{every: {SCHEDULE_SECONDS}s}}
  template: {{title: 'Number {{{{n}}}}'}}
"
    ))?;
    let made = wait_for("a schedule to make three tasks", EVENT_PATIENCE, || async {
        let made = scheduled(alice).await?;
        Ok((made.len() >= 3).then_some(made))
    })
    .await?;
    for pair in made.windows(2) {
        let apart = pair[1].duration_since(pair[0]).as_secs();
        ensure!(
            (apart - SCHEDULE_SECONDS).abs() <= LATE_SECONDS,
            "tasks of a schedule of {SCHEDULE_SECONDS} s were made {apart} s apart"
        );
    }
    world.has_condition("first", "recurringschedule/often", "Ready")
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

/// A namespace is deleted with a platform and its schedules in it. Kubernetes takes half a minute and more for it, in
/// which other things can be looked at.
pub(crate) fn delete_namespace(world: &World) -> Result<()> {
    world.kubectl(&["delete", "namespace", "first", "--wait=false"])?;
    Ok(())
}

/// It goes, and nothing hangs.
pub(crate) fn namespaces_are_gone(world: &World) -> Result<()> {
    world.kubectl(&[
        "delete",
        "namespace",
        "first",
        "todo",
        "--ignore-not-found",
        "--timeout=3m",
    ])?;
    world.stage("the namespaces are gone");
    Ok(())
}

/// What becomes of a new task of this user reaches the audit log.
pub(crate) async fn reaches_audit_log(user: &Client) -> Result<()> {
    let task = user.post("/tasks", &json!({"title": "Buy milk"})).await?;
    let history = format!("/tasks/{}/history", text(&task, "id")?);
    wait_for("the task to be in the audit log", EVENT_PATIENCE, || async {
        Ok((!user.list(&history).await?.is_empty()).then_some(()))
    })
    .await
}
