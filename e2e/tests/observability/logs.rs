//! Log lines name the trace that they belong to, and nothing that is nobody's business.

use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};
use todo_e2e::process::{Process, todo};
use todo_e2e::scene::Scene;
use todo_e2e::{database, wait_for};

use crate::traces::{CALLER, TRACE};

/// The JSON line with this message.
fn line(process: &Process, message: &str) -> Option<Value> {
    process
        .stderr()
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["message"] == message)
}

async fn until_line(process: &Process, message: &str) -> Result<Value> {
    wait_for(message, Duration::from_secs(30), || async {
        Ok(line(process, message))
    })
    .await
    .with_context(|| process.stderr())
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_a_request_and_of_an_event_name_its_trace() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    let data_dir = scene.data_dir().display().to_string();
    let mut command = todo([
        "up",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        &data_dir,
        "--database-url",
        &url,
    ]);
    command.env("RUST_LOG", "warn,todo_api=debug");
    let folder = scene.path(".");
    let mut process = Process::start(command, &folder, "up")?;
    let greeting = process.line_with("is ready at", Duration::from_mins(1)).await?;
    let words: Vec<_> = greeting.split_whitespace().collect();
    let base = words
        .iter()
        .find(|word| word.starts_with("http://"))
        .context("an address")?;
    let alice = scene.client(base, "alice").await?;
    let traceparent = format!("00-{TRACE}-{CALLER}-01");

    let unknown = alice
        .request(Method::GET, "/tasks/0")
        .header("traceparent", &traceparent);
    assert_eq!(unknown.send().await?.status(), 404);
    let refused = until_line(&process, "request refused").await?;
    assert_eq!(refused["trace_id"], TRACE);
    assert_eq!(refused["route"], "/api/v1/tasks/{id}");
    let span = refused["span_id"].as_str().context("a span")?;
    assert!(span.len() == 16 && span != CALLER, "{refused}");

    // Traces are off here, and yet the event's lines name the trace of what caused it.
    let pool = database::open(&url).await?;
    sqlx::query(
        "SELECT append_events(ARRAY[gen_random_uuid()], ARRAY['completed'], ARRAY[gen_random_uuid()], ARRAY['alice'],
                              ARRAY[1::bigint], ARRAY['alice'], ARRAY['{\"title\": \"Confess\"}'::jsonb],
                              traceparents => ARRAY[$1])",
    )
    .bind(&traceparent)
    .execute(&pool)
    .await?;
    let letter = until_line(&process, "dead letter").await?;
    assert_eq!(letter["trace_id"], TRACE);
    assert_ne!(letter["span_id"], refused["span_id"]);

    let task = json!({"title": "Confess", "description": "to Mallory"});
    alice.post("/tasks", &task).await?;
    assert!(process.stop().await?.success());
    let said = process.stderr();
    for private in ["Confess", "Mallory", "Bearer", "eyJ", "postgres://"] {
        assert!(!said.contains(private), "{private}: {said}");
    }
    Ok(())
}
