//! `/metrics`

use serde_json::json;

use crate::app::{App, id};

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_user() {
    let app = App::spawn().await;
    let ada = app.user("a-user-nobody-else-is");
    let task = ada.task(&json!({"title": "counted"})).await;
    ada.get(&format!("/api/a-user-nobody-else-is/tasks/{}", id(&task)))
        .await
        .expect(200);
    ada.get("/a-path-that-is-not-there").await.expect(404);

    let metrics = app.nobody().get("/metrics").await.expect(200);
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4");
    for series in [
        r#"http_requests_total{method="POST",route="/api/v1/tasks",status="201"}"#,
        r#"http_requests_total{method="GET",route="/api/{user_id}/tasks/{id}",status="200"}"#,
        r#"http_requests_total{method="GET",route="unmatched",status="404"}"#,
        r#"http_request_duration_seconds_bucket{method="POST",route="/api/v1/tasks",le="0.001"}"#,
        r#"http_request_duration_seconds_count{method="POST",route="/api/v1/tasks"}"#,
    ] {
        assert!(
            metrics.text.contains(series),
            "{series} is missing in\n{}",
            metrics.text
        );
    }
    for secret in ["a-user-nobody-else-is", id(&task), "a-path-that-is-not-there"] {
        assert!(!metrics.text.contains(secret), "{secret}");
    }
}
