//! One trace follows a task from the request to the last of its effects.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use reqwest::Method;
use serde_json::{Value, json};
use todo_e2e::client::{Client, text};
use todo_e2e::scene::Scene;
use todo_e2e::{database, wait_for};

use crate::collector::{Collector, Span};

pub(crate) const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub(crate) const CALLER: &str = "00f067aa0ba902b7";

/// What nobody but the task's owner is to read.
const TITLE: &str = "Confess to Mallory";

/// Makes a task that repeats and completes it, as a caller in this trace; returns the id.
pub(crate) async fn complete_a_repeating_task(client: &Client, traceparent: &str) -> Result<String> {
    let due = json!({"local": "2031-01-31T09:00:00", "time_zone": "Europe/Berlin"});
    let task = json!({"title": TITLE, "due": due, "recurrence": {"every": "1mo"}});
    let created = send(client, "/tasks", Some(&task), traceparent).await?;
    let id = text(&created, "id")?.to_owned();
    send(client, &format!("/tasks/{id}/complete"), None, traceparent).await?;
    Ok(id)
}

async fn send(client: &Client, path: &str, body: Option<&Value>, traceparent: &str) -> Result<Value> {
    let mut request = client.request(Method::POST, path).header("traceparent", traceparent);
    if let Some(body) = body {
        request = request.json(body);
    }
    Ok(request.send().await?.error_for_status()?.json().await?)
}

/// Waits for the task that follows.
pub(crate) async fn next_task(client: &Client, former: &str) -> Result<()> {
    wait_for("the next task", Duration::from_mins(1), || async {
        let tasks = client.list("/tasks").await?;
        Ok(tasks.iter().any(|task| task["id"] != former).then_some(()))
    })
    .await
}

/// The one span of `spans` below `parent` with this name and attribute.
fn below<'a>(spans: &'a [Span], parent: &str, name: &str, attribute: (&str, &str)) -> Option<&'a Span> {
    spans
        .iter()
        .find(|span| span.parent == parent && span.name == name && span.has(attribute.0, attribute.1))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_task_is_one_trace_from_its_request_to_its_last_effect() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    let collector = Collector::start().await?;
    let mut up = scene.up("up", &url, &["--otlp-endpoint", &collector.endpoint]).await?;
    let alice = scene.client(&up.base, "alice").await?;
    let id = complete_a_repeating_task(&alice, &format!("00-{TRACE}-{CALLER}-01")).await?;
    next_task(&alice, &id).await?;
    // Two requests and the next task, each event published to two consumers.
    let spans = collector
        .until("the whole trace", |collector| {
            let spans = collector.trace(TRACE);
            (spans.len() >= 2 + 3 * 2 * 2).then_some(spans)
        })
        .await?;
    assert!(up.process.stop().await?.success());
    assert!(
        spans.iter().all(|span| span.service == "todo" && !span.failed),
        "{spans:#?}"
    );
    let ids: HashSet<_> = spans.iter().map(|span| &span.id).collect();
    assert_eq!(ids.len(), spans.len(), "no two spans share an id");

    let complete = "POST /api/v1/tasks/{id}/complete";
    for name in ["POST /api/v1/tasks", complete] {
        let request = below(&spans, CALLER, name, ("http.request.method", "POST")).context(name)?;
        assert_eq!(request.kind, SpanKind::Server);
        assert!(request.has(
            "http.response.status_code",
            if name == complete { "200" } else { "201" }
        ));
        for consumer in ["audit", "recurring"] {
            let publish = below(&spans, &request.id, "publish", ("cursor", consumer)).context(consumer)?;
            assert_eq!(publish.kind, SpanKind::Producer);
            // The pass that it was part of is a trace of its own.
            assert_eq!(publish.links.len(), 1);
            let pass = collector.spans().into_iter().find(|span| span.id == publish.links[0]);
            assert!(pass.is_some_and(|pass| pass.name == "relay pass" && pass.trace != TRACE));
            let process = below(&spans, &publish.id, "process", ("consumer", consumer)).context(consumer)?;
            assert_eq!(process.kind, SpanKind::Consumer);
            if name != complete || consumer != "recurring" {
                continue;
            }
            // What a consumer causes goes on below it.
            for consumer in ["audit", "recurring"] {
                let publish = below(&spans, &process.id, "publish", ("cursor", consumer)).context("the next task")?;
                assert!(publish.has("todo.event.type", "recurring_spawn"));
                below(&spans, &publish.id, "process", ("consumer", consumer)).context(consumer)?;
            }
        }
    }
    let told = format!("{:?}", collector.spans());
    assert!(
        !told.contains(TITLE) && !told.contains("alice") && !told.contains("Bearer"),
        "{told}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_decides_about_its_trace_and_a_ratio_about_those_that_begin_here() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    let collector = Collector::start().await?;
    let mut up = scene.up("all", &url, &["--otlp-endpoint", &collector.endpoint]).await?;
    let alice = scene.client(&up.base, "alice").await?;
    complete_a_repeating_task(&alice, &format!("00-{TRACE}-{CALLER}-00")).await?;
    let soon = (jiff::Timestamp::now() + Duration::from_secs(1)).to_string();
    let reminder = json!({"at": {"at": soon, "time_zone": "Europe/Berlin"}});
    let own = json!({"title": "mine", "reminders": [reminder]});
    let own = alice.post("/tasks", &own).await?;
    wait_for("the reminder", Duration::from_secs(20), || async {
        let history = alice.list(&format!("/tasks/{}/history", text(&own, "id")?)).await?;
        Ok((history.len() >= 2).then_some(()))
    })
    .await?;
    alice.get(&format!("/tasks/{}", text(&own, "id")?)).await?;
    // Probes are no part of anything.
    for _ in 0..20 {
        todo_e2e::client::wait_until_ready(&up.base).await?;
    }
    // At its end a process sends what it still has.
    assert!(up.process.stop().await?.success());
    assert_eq!(collector.trace(TRACE).len(), 0, "its caller does not record it");
    let mut requests: Vec<_> = collector.spans();
    requests.retain(|span| span.kind == SpanKind::Server);
    requests.retain(|span| !span.name.contains("/history"));
    let names: Vec<_> = requests.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["POST /api/v1/tasks", "GET /api/v1/tasks/{id}"]);
    assert!(requests.iter().all(|span| span.parent.is_empty()));
    // What no request but time brought about is a trace of its own.
    let spans = collector.spans();
    let reminder = spans
        .iter()
        .find(|span| span.name == "publish" && span.has("todo.event.type", "reminder") && span.has("cursor", "audit"))
        .context("the reminder")?;
    assert_eq!(reminder.parent, "");
    assert!(below(&spans, &reminder.id, "process", ("consumer", "audit")).is_some());

    let none = Collector::start().await?;
    let settings = [
        "--otlp-endpoint",
        &none.endpoint,
        "--trace-sampler",
        "parentbased_always_off",
    ];
    let mut up = scene.up("none", &url, &settings).await?;
    let alice = scene.client(&up.base, "alice").await?;
    alice.post("/tasks", &json!({"title": "mine"})).await?;
    complete_a_repeating_task(&alice, &format!("00-{TRACE}-{CALLER}-01")).await?;
    assert!(up.process.stop().await?.success());
    let spans = none.spans();
    assert!(
        !spans.is_empty() && spans.iter().all(|span| span.trace == TRACE),
        "{spans:#?}"
    );
    Ok(())
}
