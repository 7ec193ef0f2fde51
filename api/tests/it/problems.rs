//! Whatever goes wrong is a problem that names what is wrong.

use insta::assert_json_snapshot;
use reqwest::Method;
use serde_json::json;

use crate::app::{App, Reply};

#[tokio::test]
async fn a_field_that_is_wrong_is_named() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let cases = [
        (json!({}), vec!["title"]),
        (json!({"title": ""}), vec!["title"]),
        (json!({"title": " "}), vec!["title"]),
        (json!({"title": "x".repeat(501)}), vec!["title"]),
        (json!({"title": "two\nlines"}), vec!["title"]),
        (json!({"title": "nul \u{0}"}), vec!["title"]),
        (json!({"title": 7}), vec!["title"]),
        (json!({"title": null}), vec!["title"]),
        (json!({"title": "x", "colour": "red"}), vec!["colour"]),
        (json!({"title": "x", "priority": "urgent"}), vec!["priority"]),
        (json!({"title": "x", "status": "started"}), vec!["status"]),
        (json!({"title": "x", "tags": ["ok", 7]}), vec!["tags[1]"]),
        (json!({"title": "x", "tags": ["ok", ""]}), vec!["tags[1]"]),
        (json!({"title": "x", "tags": "home"}), vec!["tags"]),
        (json!({"title": "x", "parent_id": "7"}), vec!["parent_id"]),
        (
            json!({"title": "x", "parent_id": "00000000-0000-7000-8000-000000000000"}),
            vec!["parent_id"],
        ),
        (json!({"title": "x", "due": "tomorrow"}), vec!["due"]),
        (json!({"title": "x", "due": {}}), vec!["due.local"]),
        (json!({"title": "x", "due": {"local": "2031-13-01"}}), vec!["due.local"]),
        (
            json!({"title": "x", "due": {"local": "2031-01-01", "time_zone": "Mars/Base"}}),
            vec!["due.time_zone"],
        ),
        (
            json!({"title": "x", "due": {"local": "2031-01-01", "zone": "UTC"}}),
            vec!["due.zone"],
        ),
        (json!({"title": "x", "recurrence": {"every": "1d"}}), vec!["recurrence"]),
        (
            json!({"title": "x", "reminders": [{"before": "1h"}]}),
            vec!["reminders[0].before"],
        ),
        (
            json!({"title": "", "category": "", "tags": [""]}),
            vec!["title", "category", "tags[0]"],
        ),
        (json!(["title"]), vec!["body"]),
        (json!("title"), vec!["body"]),
    ];
    for (body, fields) in cases {
        let refused = ada.post("/api/v1/tasks", &body).await.expect(422);
        assert_eq!((refused.problem(), refused.fields()), ("invalid", fields), "{body}");
        let errors = refused.body["errors"].as_array().unwrap();
        assert!(
            errors
                .iter()
                .all(|error| !error["message"].as_str().unwrap().is_empty()),
            "{errors:?}"
        );
    }
    assert_eq!(ada.get("/api/v1/tasks").await.body["items"], json!([]));
    let several = ada.post("/api/v1/tasks", &json!({"title": "", "tags": [""]})).await;
    assert_json_snapshot!("invalid_task", several.body, {".instance" => "[id]"});
}

#[tokio::test]
async fn a_patch_that_is_wrong_changes_nothing() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let task = ada.task(&json!({"title": "as it was"})).await;
    let path = format!("/api/v1/tasks/{}", task["id"].as_str().unwrap());
    let cases = [
        (json!({"title": null}), vec!["title"]),
        (json!({"title": ""}), vec!["title"]),
        (json!({"version": 7}), vec!["version"]),
        (json!({"id": "7"}), vec!["id"]),
        (json!({"user_id": "bob"}), vec!["user_id"]),
        (json!({"due": {"local": "never"}}), vec!["due.local"]),
        (json!({"parent_id": task["id"]}), vec!["parent_id"]),
        (json!([]), vec!["body"]),
        (json!(null), vec!["body"]),
    ];
    for (patch, fields) in cases {
        let refused = ada.patch(&path, &patch).await.expect(422);
        assert_eq!((refused.problem(), refused.fields()), ("invalid", fields), "{patch}");
    }
    assert_eq!(ada.get(&path).await.body, task);
}

#[tokio::test]
async fn a_schedule_that_is_wrong_is_refused_by_its_field() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let good = json!({
        "name": "weekly",
        "schedule": {"cron": "0 9 * * 1", "time_zone": "UTC"},
        "template": {"title": "again"},
    });
    let cases = [
        ("name", json!(""), "name"),
        (
            "schedule",
            json!({"cron": "0 0 30 2 *", "time_zone": "UTC"}),
            "schedule.cron",
        ),
        (
            "schedule",
            json!({"cron": "61 * * * *", "time_zone": "UTC"}),
            "schedule.cron",
        ),
        (
            "schedule",
            json!({"rrule": "FREQ=HOURLY", "time_zone": "UTC"}),
            "schedule.rrule",
        ),
        (
            "schedule",
            json!({"cron": "0 9 * * 1", "time_zone": "Mars/Base"}),
            "schedule.time_zone",
        ),
        ("template", json!({"title": ""}), "template.title"),
        (
            "template",
            json!({"title": "x", "reminders": [{"before": "1h"}]}),
            "template.reminders",
        ),
        ("catch_up", json!({"max": 0}), "catch_up.max"),
        ("overlap", json!("maybe"), "overlap"),
    ];
    for (field, value, named) in cases {
        let mut schedule = good.clone();
        schedule[field] = value;
        for path in ["/api/v1/schedules", "/api/v1/schedules/preview"] {
            let refused = ada.post(path, &schedule).await.expect(422);
            assert_eq!(
                (refused.problem(), refused.fields()),
                ("invalid", vec![named]),
                "{schedule}"
            );
        }
    }
}

#[tokio::test]
async fn a_query_that_is_wrong_is_named() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    for (query, field) in [
        ("colour=red", "colour"),
        ("status=started", "status"),
        ("status=open&status=completed", "status"),
        ("priority=1", "priority"),
        ("due_before=tomorrow", "due_before"),
        ("parent_id=7", "parent_id"),
        ("sort=title", "sort"),
        ("direction=up", "direction"),
        ("limit=many", "limit"),
    ] {
        let refused = ada.get(&format!("/api/v1/tasks?{query}")).await.expect(422);
        assert_eq!(
            (refused.problem(), refused.fields()),
            ("invalid", vec![field]),
            "{query}"
        );
    }
}

#[tokio::test]
async fn what_no_database_can_hold_is_the_callers_mistake() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    for query in ["q=%00", "category=%00", "tag=%00", "due_before=-009998-01-01T00:00:00Z"] {
        assert_eq!(
            ada.get(&format!("/api/v1/tasks?{query}")).await.expect(422).problem(),
            "invalid",
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_told_apart_from_a_wrong_one() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let post = |media_type: &'static str, body: &'static str| {
        Reply::to(
            ada.request(Method::POST, "/api/v1/tasks")
                .header("content-type", media_type)
                .body(body),
        )
    };
    for body in [
        "",
        "{",
        "{\"title\":\"x\"",
        "title=x",
        "{\"title\":\"x\"} more",
        "\u{feff}{}",
        "{\"title\":\"\\ud800\"}",
    ] {
        assert_eq!(
            post("application/json", body).await.expect(400).problem(),
            "malformed-body",
            "{body}"
        );
    }
    for media_type in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/merge-patch+json",
        "text/json",
    ] {
        let refused = post(media_type, "{\"title\":\"x\"}").await.expect(415);
        assert_eq!(refused.problem(), "unsupported-media-type", "{media_type}");
        assert_eq!(refused.header("accept"), "application/json");
    }
    post("Application/JSON; charset=utf-8", "{\"title\":\"x\"}")
        .await
        .expect(201);

    let zipped = ada
        .request(Method::POST, "/api/v1/tasks")
        .header("content-encoding", "gzip");
    assert_eq!(
        Reply::to(zipped.json(&json!({"title": "x"})))
            .await
            .expect(415)
            .problem(),
        "unsupported-media-type"
    );
    let patch = ada.request(Method::PATCH, "/api/v1/tasks/00000000-0000-7000-8000-000000000000");
    let patch = patch.header("content-type", "application/json-patch+json").body("[]");
    assert_eq!(
        Reply::to(patch).await.expect(415).header("accept"),
        "application/merge-patch+json"
    );
}

#[tokio::test]
async fn a_path_or_method_that_is_not_there_is_a_problem_too() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    for path in [
        "/nothing",
        "/api",
        "/api/v1",
        "/api/v1/nothing",
        "/api/v1/tasks/",
        "/api/v2/tasks/x/y/z",
        "/docs/nothing.js",
    ] {
        let missing = ada.get(path).await.expect(404);
        assert_eq!(missing.problem(), "not-found", "{path}");
    }
    let refused = ada.delete("/api/v1/tasks").await.expect(405);
    assert_eq!(refused.problem(), "method-not-allowed");
    assert!(refused.header("allow").contains("POST"), "{refused:?}");
    assert_eq!(
        Reply::to(ada.request(Method::PUT, "/healthz"))
            .await
            .expect(405)
            .problem(),
        "method-not-allowed"
    );
}

#[tokio::test]
async fn a_request_keeps_its_id_when_it_has_a_plain_one() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let with_id = |id: &str| Reply::to(ada.request(Method::GET, "/nothing").header("x-request-id", id));
    let kept = with_id("my-request_1.2~3").await;
    assert_eq!(
        (kept.header("x-request-id"), kept.problem()),
        ("my-request_1.2~3", "not-found")
    );
    for strange in ["", "two words", "<script>", "a/b", &"x".repeat(129)] {
        let replaced = with_id(strange).await;
        assert_eq!(replaced.header("x-request-id").len(), 36, "{strange}");
        assert_eq!(replaced.problem(), "not-found");
    }
    let (one, other) = (ada.get("/healthz").await, ada.get("/healthz").await);
    assert_ne!(one.header("x-request-id"), other.header("x-request-id"));
}

#[tokio::test]
async fn what_is_our_fault_is_not_shown() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    sqlx::query("ALTER TABLE tasks RENAME TO hidden")
        .execute(&app.db.pool)
        .await
        .unwrap();
    let failed = ada.get("/api/v1/tasks").await.expect(500);
    assert_eq!(failed.problem(), "internal");
    assert!(
        !failed.text.contains("tasks\\\"") && !failed.text.contains("relation"),
        "{}",
        failed.text
    );
    assert_json_snapshot!("internal", failed.body, {".instance" => "[id]"});
}
