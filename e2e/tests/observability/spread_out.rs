//! The same over processes, sidecars and Kafka: one trace through all of them, and each process's own metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use todo_e2e::scene::Scene;
use todo_e2e::stack::{Options, Role, Stack};
use todo_e2e::wait_for;

use crate::catalogue::Catalogue;
use crate::collector::{Collector, Span};
use crate::metrics::scrape;
use crate::traces::{CALLER, TRACE, complete_a_repeating_task, next_task};

/// The spans from the first of the trace down to this one, as `service: name`.
fn path(spans: &[Span], last: &Span) -> Vec<String> {
    let mut path = vec![];
    let mut span = Some(last);
    while let Some(found) = span {
        path.insert(0, format!("{}: {}", found.service, found.name));
        span = spans.iter().find(|above| above.id == found.parent);
    }
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_through_every_process_and_each_shows_what_is_listed() -> Result<()> {
    let collector = Collector::start().await?;
    let scene = Scene::new()?;
    let options = Options::default().set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint);
    let stack = Stack::start(&scene, options).await?;
    let alice = stack.client(&scene, "alice").await?;
    let soon = (jiff::Timestamp::now() + Duration::from_mins(10)).to_string();
    let reminder = json!({"at": {"at": soon, "time_zone": "Europe/Berlin"}});
    let task = json!({"title": "Call Bob", "reminders": [reminder]});
    alice.post("/tasks", &task).await?;

    let id = complete_a_repeating_task(&alice, &format!("00-{TRACE}-{CALLER}-01")).await?;
    next_task(&alice, &id).await?;
    let down_to = |consumer: &'static str, event: &'static str| {
        move |collector: &Collector| {
            let spans = collector.trace(TRACE);
            let last = spans.iter().find(|span| {
                span.name == "process" && span.has("consumer", consumer) && span.has("todo.event.type", event)
            })?;
            let path = path(&spans, last);
            path[0].starts_with("todo-api").then_some(path)
        }
    };
    let completed = collector
        .until("the completion's trace", down_to("audit", "completed"))
        .await?;
    assert_eq!(
        completed,
        [
            "todo-api: POST /api/v1/tasks/{id}/complete",
            "todo-relay: publish",
            "todo-audit: process"
        ]
    );
    let spawned = collector
        .until("the next task's trace", down_to("audit", "recurring_spawn"))
        .await?;
    assert_eq!(
        spawned,
        [
            "todo-api: POST /api/v1/tasks/{id}/complete",
            "todo-relay: publish",
            "todo-recurring: process",
            "todo-relay: publish",
            "todo-audit: process",
        ]
    );

    let catalogue = Catalogue::read()?;
    let mut bases = vec![(stack.api_base(), vec!["http_requests_total"])];
    for (role, shown) in [
        (
            Role::Relay,
            vec![
                "todo_outbox_published_total",
                "todo_consumer_lag_seconds",
                "todo_dapr_call_seconds",
            ],
        ),
        (
            Role::Audit,
            vec!["todo_consumer_events_total", "todo_delivered_messages_total"],
        ),
        (
            Role::Recurring,
            vec!["todo_consumer_event_delay_seconds", "todo_delivered_messages_total"],
        ),
        (
            Role::Reminders,
            vec!["todo_alarms_set_total", "todo_alarms_pending", "todo_role_running"],
        ),
    ] {
        bases.push((stack.base(role, 0), shown));
    }
    for (base, shown) in bases {
        let page = wait_for("its metrics", Duration::from_secs(30), || async {
            let page = scrape(&base).await?;
            let all = shown
                .iter()
                .copied()
                .collect::<BTreeSet<_>>()
                .is_subset(&page.families());
            Ok(all.then_some(page))
        })
        .await
        .with_context(|| format!("{shown:?} at {base}"))?;
        assert_eq!(page.problems(&catalogue), Vec::<String>::new(), "{base}");
    }
    stack.stop().await?;
    Ok(())
}
