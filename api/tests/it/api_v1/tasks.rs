//! `/api/v1/tasks`

use insta::assert_json_snapshot;
use reqwest::Method;
use serde_json::json;
use todo_events::Trace;

use crate::app::{App, Reply, id};

#[tokio::test]
async fn a_created_task_is_shown_with_its_place_and_version() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let parent = ada.task(&json!({"title": "household"})).await;
    let task = json!({
        "title": " buy milk ",
        "description": "two litres",
        "priority": "high",
        "category": "errands",
        "tags": ["Shop", "food", "shop"],
        "due": {"local": "2031-03-31T18:00:00", "time_zone": "Europe/Berlin"},
        "parent_id": id(&parent),
        "recurrence": {"every": "1mo"},
        "reminders": [{"before": "30m"}, {"at": {"local": "2031-03-31T08:00:00", "time_zone": "Europe/Berlin"}}],
    });
    let created = ada.post("/api/v1/tasks", &task).await.expect(201);
    assert_eq!(
        created.header("location"),
        format!("/api/v1/tasks/{}", id(&created.body))
    );
    assert_eq!(created.header("etag"), "\"1\"");
    assert_eq!(created.header("cache-control"), "no-store");
    assert_eq!(created.header("x-content-type-options"), "nosniff");
    assert_json_snapshot!("created_task", created.body, {
        ".id" => "[id]", ".parent_id" => "[id]", ".reminders[].id" => "[id]",
        ".created_at" => "[time]", ".updated_at" => "[time]",
    });
    let read = ada.get(created.header("location")).await.expect(200);
    assert_eq!(read.body, created.body);
    assert_eq!(read.header("etag"), "\"1\"");
}

#[tokio::test]
async fn a_title_alone_makes_a_task() {
    let app = App::spawn().await;
    let created = app
        .user("ada")
        .post("/api/v1/tasks", &json!({"title": "buy milk"}))
        .await
        .expect(201);
    assert_json_snapshot!("created_plain_task", created.body, {
        ".id" => "[id]", ".created_at" => "[time]", ".updated_at" => "[time]",
    });
}

#[tokio::test]
async fn the_trace_of_a_request_goes_on_in_its_event() {
    let app = App::spawn().await;
    let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = app
        .user("ada")
        .request(Method::POST, "/api/v1/tasks")
        .header("traceparent", caller);
    Reply::to(request.json(&json!({"title": "traced"}))).await.expect(201);
    app.user("ada")
        .post("/api/v1/tasks", &json!({"title": "alone"}))
        .await
        .expect(201);
    let events = app.events().await;
    let traces: Vec<_> = events
        .iter()
        .map(|event| Trace::parse(event.traceparent.as_deref().unwrap()).unwrap())
        .collect();
    let caller = Trace::parse(caller).unwrap();
    // The event's parent is the request, and the request is a span of the caller's trace.
    assert_eq!((traces[0].trace_id, traces[0].sampled), (caller.trace_id, true));
    assert_ne!(traces[0].span_id, caller.span_id);
    // A request that comes without one begins a trace.
    assert_ne!(traces[1].trace_id, caller.trace_id);
    assert_eq!((events[0].user_id.as_str(), events[0].actor.as_str()), ("ada", "ada"));
}

#[tokio::test]
async fn a_list_holds_what_its_filters_say() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let parent = ada.task(&json!({"title": "parent", "category": "home"})).await;
    let due = |day: u8| json!({"at": format!("2031-05-{day:02}T12:00:00Z")});
    ada.task(&json!({"title": "early", "due": due(1), "tags": ["a"], "priority": "low"}))
        .await;
    ada.task(&json!({"title": "late 100%", "due": due(20), "tags": ["a", "b"], "parent_id": id(&parent)}))
        .await;
    let done = ada
        .task(&json!({"title": "done", "description": "in the MIDDLE of it"}))
        .await;
    ada.call(&format!("/api/v1/tasks/{}/complete", id(&done)))
        .await
        .expect(200);

    let cases = [
        ("", vec!["done", "late 100%", "early", "parent"]),
        ("?direction=asc", vec!["parent", "early", "late 100%", "done"]),
        ("?status=completed", vec!["done"]),
        (
            "?status=open&sort=due_at&direction=asc",
            vec!["early", "late 100%", "parent"],
        ),
        ("?priority=low", vec!["early"]),
        ("?sort=priority&direction=asc&limit=1", vec!["early"]),
        ("?category=home", vec!["parent"]),
        ("?tag=a", vec!["late 100%", "early"]),
        ("?tag=a&tag=B", vec!["late 100%"]),
        ("?due_before=2031-05-20T12:00:00Z", vec!["early"]),
        ("?due_after=2031-05-20T12:00:00Z", vec!["late 100%"]),
        (&format!("?parent_id={}", id(&parent)), vec!["late 100%"]),
        ("?schedule_id=00000000-0000-7000-8000-000000000000", vec![]),
        ("?q=middle", vec!["done"]),
        ("?q=0%25", vec!["late 100%"]),
        ("?q=%25", vec!["late 100%"]),
    ];
    for (query, expected) in cases {
        let list = ada.get(&format!("/api/v1/tasks{query}")).await.expect(200);
        let titles: Vec<&str> = list.body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|task| task["title"].as_str().unwrap())
            .collect();
        assert_eq!(titles, expected, "{query}");
    }
}

#[tokio::test]
async fn an_empty_list_is_a_list() {
    let app = App::spawn().await;
    let list = app.user("ada").get("/api/v1/tasks").await.expect(200);
    assert_eq!(list.body, json!({"items": [], "next_cursor": null}));
    assert_eq!(list.header("link"), "");
}
