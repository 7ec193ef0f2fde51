//! The platform spread out over Dapr and Kafka: that it does what one process does, and that what runs it can be trusted.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use todo_e2e::client::{Client, text};
use todo_e2e::process::todo_program;
use todo_e2e::scene::{Scene, free_port};
use todo_e2e::stack::{self, Options, Part, Role, Stack, left_behind};
use todo_e2e::wait_for;
use tokio::process::Command;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn the_tour_works_over_kafka_and_leaves_nothing_running() -> Result<()> {
    let scene = Scene::new()?;
    let stack = Stack::start(&scene, Options::default()).await?;
    let alice = stack.client(&scene, "alice").await?;

    let at = Timestamp::now() + SignedDuration::from_secs(2);
    let call = json!({"title": "Call Bob", "reminders": [{"at": {"at": at, "time_zone": "Europe/Berlin"}}]});
    let call = alice.post("/tasks", &call).await?;
    let told = wait_for("the reminder", SOON, || async {
        Ok(alice.list("/notifications").await?.into_iter().next())
    })
    .await?;
    ensure!(told["task_id"] == call["id"] && told["late"] == false, "{told}");

    let ticks = json!({
        "name": "ticks",
        "schedule": {"cron": "* * * * * *", "time_zone": "Europe/Berlin"},
        "template": {"title": "Tick {{n}}"},
    });
    let ticks = alice.post("/schedules", &ticks).await?;
    let made = format!("/tasks?schedule_id={}", text(&ticks, "id")?);
    wait_for("two ticks", SOON, || async {
        Ok((alice.list(&made).await?.len() >= 2).then_some(()))
    })
    .await?;
    let kinds = history(&alice, text(&call, "id")?, 2).await?;
    ensure!(kinds == ["created", "reminder"], "{kinds:?}");

    // The history came through Kafka, and every service can be measured.
    let delivered = stack.metrics(Role::Audit, 0).await?;
    ensure!(delivered.contains("todo_delivered_messages_total"), "{delivered}");
    for role in Role::ALL {
        let measured = stack.metrics(role, 0).await?;
        ensure!(measured.contains("# TYPE "), "{}: {measured}", role.name());
    }

    stack.stop().await?;
    let left = left_behind(&scene.data_dir());
    ensure!(left.is_empty(), "still running: {left:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_comes_back_with_its_broker_and_a_dropped_stack_is_gone() -> Result<()> {
    let scene = Scene::new()?;
    let options = Options::default().alarms(false).copies(Role::Reminders, 0);
    let stack = Stack::start(&scene, options).await?;
    let alice = stack.client(&scene, "alice").await?;
    let (kafka, audit) = (Part::Kafka, Part::Sidecar(Role::Audit, 0));

    stack.kill(kafka).await?;
    stack.crash(audit).await?;
    wait_for(
        "the sidecar to try again without Kafka",
        Duration::from_mins(2),
        || async { Ok((stack.restarts(audit) >= 2).then_some(())) },
    )
    .await?;
    ensure!(stack.process(kafka).is_none(), "what a test kills stays down");
    ensure!(!stack.is_ready(audit).await?, "a sidecar without its broker is ready");
    let task = alice.post("/tasks", &json!({"title": "While Kafka is away"})).await?;

    stack.restart(kafka).await?;
    stack.wait_until_ready().await?;
    history(&alice, text(&task, "id")?, 1).await?;

    let server = Part::Database;
    stack.pause(server)?;
    ensure!(!stack.is_ready(server).await?, "a frozen server answers");
    stack.resume(server)?;
    stack.wait_ready(server).await?;
    stack.crash(server).await?;
    stack.wait_until_ready().await?;
    alice.get("/tasks").await?;

    ensure!(
        !left_behind(&scene.data_dir()).is_empty(),
        "nothing runs where it should"
    );
    drop(stack);
    let left = left_behind(&scene.data_dir());
    ensure!(left.is_empty(), "still running: {left:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_killed_of_a_developers_stack_is_started_again_and_the_rest_left_alone() -> Result<()> {
    let _turn = stack::turn().await;
    let scene = Scene::new()?;
    let data = scene.data_dir();
    let port = free_port()?.to_string();
    // Whatever happens below, nothing of it stays.
    let _stopped = Down(&data);

    developer(&data, &["up", "--port", &port]).await?;
    let alice = scene.client(&format!("http://127.0.0.1:{port}"), "alice").await?;
    let task = alice.post("/tasks", &json!({"title": "Kept"})).await?;
    let path = format!("/tasks/{}", text(&task, "id")?);
    history(&alice, text(&task, "id")?, 1).await?;

    let before = processes(&developer(&data, &["status"]).await?);
    let mut killed = 0;
    for (part, process) in &before {
        if part == "postgres" || Role::ALL.iter().any(|role| role.name() == part) {
            kill(Pid::from_raw(*process), Signal::SIGKILL)?;
            killed += 1;
        }
    }
    ensure!(
        killed == 1 + Role::ALL.len(),
        "{killed} processes of todo in {before:?}"
    );
    ensure!(developer(&data, &["status"]).await.is_err(), "it says that all is well");

    developer(&data, &["up", "--port", &port]).await?;
    let after = processes(&developer(&data, &["status"]).await?);
    let untouched = before.iter().filter(|part| after.contains(part)).count();
    ensure!(untouched == before.len() - killed, "{before:?} became {after:?}");
    ensure!(alice.get(&path).await? == task, "the task has changed");

    developer(&data, &["down"]).await?;
    let left = left_behind(&data);
    ensure!(left.is_empty(), "still running: {left:?}");
    Ok(())
}

/// The kinds of a task's history, as soon as it has so many entries.
async fn history(user: &Client, task: &str, entries: usize) -> Result<Vec<String>> {
    let path = format!("/tasks/{task}/history");
    wait_for("the history", SOON, || async {
        let history = user.list(&path).await?;
        let kinds = history.iter().map(|entry| Ok(text(entry, "event_type")?.to_owned()));
        let kinds = kinds.collect::<Result<Vec<_>>>()?;
        Ok((kinds.len() >= entries).then_some(kinds))
    })
    .await
}

/// Runs the program behind `cargo xtask stack`, and returns what it printed.
async fn developer(data: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_stack"))
        .args(arguments)
        .arg("--data-dir")
        .arg(data)
        .env("TODO_BIN", todo_program())
        .output()
        .await?;
    let said = String::from_utf8(output.stdout)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{arguments:?} failed ({}): {said}{errors}",
        output.status
    );
    Ok(said)
}

/// The parts and their processes, from what `status` prints.
fn processes(table: &str) -> Vec<(String, i32)> {
    let rows = table.lines().skip(1).filter_map(|row| {
        let mut words = row.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    });
    rows.collect()
}

/// Stops a developer's stack when a test is over.
struct Down<'a>(&'a Path);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let stopped = std::process::Command::new(env!("CARGO_BIN_EXE_stack"))
            .arg("down")
            .arg("--data-dir")
            .arg(self.0)
            .output()
            .context("cannot run the program stack");
        if let Err(error) = stopped {
            eprintln!("{error:#}");
        }
    }
}
