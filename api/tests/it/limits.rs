//! Bodies, calls and time are bounded.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use todo_api::{ApiConfig, RateLimit};

use crate::app::{App, Reply, config, id};

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let body_of = |size: usize| {
        let frame = json!({"title": "x", "description": ""}).to_string().len();
        json!({"title": "x", "description": "d".repeat(size - frame)}).to_string()
    };
    let post = |body: String| {
        Reply::to(
            ada.request(Method::POST, "/api/v1/tasks")
                .header("content-type", "application/json")
                .body(body),
        )
    };
    let whole = post(body_of(256 * 1024)).await.expect(422);
    assert_eq!(
        whole.fields(),
        ["description"],
        "read whole, and then too long for a description"
    );
    let refused = post(body_of(256 * 1024 + 1)).await.expect(413);
    assert_eq!(refused.problem(), "body-too-large");

    let task = ada.task(&json!({"title": "x"})).await;
    let patch = ada.patching(
        &format!("/api/v1/tasks/{}", id(&task)),
        &json!({"title": "y".repeat(300_000)}),
    );
    Reply::to(patch).await.expect(413);
}

#[tokio::test]
async fn who_calls_too_often_is_told_when_to_come_back() {
    let app = App::spawn_with(ApiConfig {
        rate_limit: RateLimit::new(1, 3),
        ..config()
    })
    .await;
    let (ada, bob) = (app.user("ada"), app.user("bob"));
    // A slow machine earns itself another request or two meanwhile.
    let mut allowed = 0;
    let refused = loop {
        let reply = ada.get("/api/ada/tasks").await;
        if reply.status != 200 {
            break reply.expect(429);
        }
        allowed += 1;
        assert!(allowed < 20, "never refused");
    };
    assert!(allowed >= 3, "refused after {allowed}");
    assert_eq!(refused.problem(), "rate-limited");
    assert_eq!(refused.header("retry-after"), "1");
    bob.get("/api/v1/tasks").await.expect(200);
    app.nobody().get("/healthz").await.expect(200);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    ada.get("/api/v1/tasks").await.expect(200);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended_and_leaves_nothing() {
    let app = App::spawn_with(ApiConfig {
        request_timeout: Duration::from_millis(1500),
        ..config()
    })
    .await;
    let ada = app.user("ada");
    let task = ada.task(&json!({"title": "held"})).await;
    let mut holder = app.db.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM tasks FOR UPDATE")
        .execute(&mut *holder)
        .await
        .unwrap();
    let ended = ada
        .patch(&format!("/api/v1/tasks/{}", id(&task)), &json!({"title": "never"}))
        .await
        .expect(503);
    assert_eq!(ended.problem(), "unavailable");
    assert_eq!(ended.header("retry-after"), "1");
    holder.rollback().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let after = ada.get(&format!("/api/v1/tasks/{}", id(&task))).await.expect(200);
    assert_eq!(after.body, task);
}
