//! `Idempotency-Key` on every POST.

use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{App, Reply, User, id};

async fn post(user: &User, path: &str, key: &str, body: &Value) -> Reply {
    let request = user.request(Method::POST, path).header("idempotency-key", key);
    Reply::to(if body.is_null() { request } else { request.json(body) }).await
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let task = ada
        .task(&json!({"title": "base", "due": {"at": "2031-01-01T12:00:00Z"}}))
        .await;
    let at = json!({"at": {"at": "2026-01-01T08:00:00Z"}});
    ada.post(&format!("/api/v1/tasks/{}/reminders", id(&task)), &at)
        .await
        .expect(201);
    app.send_reminders().await;
    let notification = ada.get("/api/v1/notifications").await.body["items"][0].clone();
    let weekly = json!({
        "name": "weekly",
        "schedule": {"cron": "0 9 * * 1", "time_zone": "UTC"},
        "template": {"title": "again"},
    });
    let schedule = ada.schedule(&weekly).await;

    let posts = [
        ("/api/v1/tasks".to_owned(), json!({"title": "once"})),
        (format!("/api/v1/tasks/{}/complete", id(&task)), Value::Null),
        (format!("/api/v1/tasks/{}/reopen", id(&task)), Value::Null),
        (
            format!("/api/v1/tasks/{}/reminders", id(&task)),
            json!({"before": "2h"}),
        ),
        ("/api/v1/schedules".to_owned(), weekly),
        (format!("/api/v1/schedules/{}/pause", id(&schedule)), Value::Null),
        (format!("/api/v1/schedules/{}/resume", id(&schedule)), Value::Null),
        (format!("/api/v1/notifications/{}/read", id(&notification)), Value::Null),
    ];
    for (number, (path, body)) in posts.iter().enumerate() {
        let key = format!("key-{number}");
        let first = post(&ada, path, &key, body).await;
        assert!(first.status.is_success(), "{path}: {first:?}");
        assert_eq!(first.header("idempotency-replayed"), "", "{path}");
        let again = post(&ada, path, &key, body).await;
        assert_eq!(again.header("idempotency-replayed"), "true", "{path}");
        assert_eq!((again.status, &again.text), (first.status, &first.text), "{path}");
        for header in ["etag", "location", "content-type"] {
            assert_eq!(again.header(header), first.header(header), "{path}");
        }
    }
    let titles = ada.get("/api/v1/tasks?q=once").await;
    assert_eq!(titles.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        ada.get("/api/v1/schedules").await.body["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn of_many_requests_with_one_key_at_once_one_takes_effect() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let ada = ada.clone();
        requests.spawn(async move {
            post(&ada, "/api/v1/tasks", "same", &json!({"title": "once"}))
                .await
                .expect(201)
        });
    }
    let replies = requests.join_all().await;
    assert!(replies.iter().all(|reply| reply.text == replies[0].text));
    assert_eq!(
        replies
            .iter()
            .filter(|reply| reply.header("idempotency-replayed").is_empty())
            .count(),
        1
    );
    assert_eq!(
        ada.get("/api/v1/tasks").await.body["items"].as_array().unwrap().len(),
        1
    );
    assert_eq!(app.events().await.len(), 1);
}

#[tokio::test]
async fn a_key_belongs_to_one_request_of_one_user() {
    let app = App::spawn().await;
    let (ada, bob) = (app.user("ada"), app.user("bob"));
    let body = json!({"title": "mine"});
    let first = post(&ada, "/api/v1/tasks", "key", &body).await.expect(201);
    let other_body = post(&ada, "/api/v1/tasks", "key", &json!({"title": "other"}))
        .await
        .expect(422);
    assert_eq!(other_body.problem(), "idempotency-key-reused");
    assert_eq!(other_body.fields(), ["Idempotency-Key"]);
    let other_path = format!("/api/v1/tasks/{}/complete", id(&first.body));
    assert_eq!(
        post(&ada, &other_path, "key", &Value::Null).await.expect(422).problem(),
        "idempotency-key-reused"
    );
    let of_bob = post(&bob, "/api/v1/tasks", "key", &body).await.expect(201);
    assert_ne!(id(&of_bob.body), id(&first.body));
    for key in ["", "two words", &"x".repeat(256)] {
        let refused = post(&ada, "/api/v1/tasks", key, &body).await.expect(422);
        assert_eq!(refused.fields(), ["Idempotency-Key"], "{key:?}");
    }
}

#[tokio::test]
async fn a_refused_request_may_be_sent_again_with_its_key() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let task = ada.task(&json!({"title": "no due date"})).await;
    let reminders = format!("/api/v1/tasks/{}/reminders", id(&task));
    let body = json!({"before": "1h"});
    post(&ada, &reminders, "key", &body).await.expect(422);
    let due = json!({"due": {"at": "2031-01-01T12:00:00Z"}});
    ada.patch(&format!("/api/v1/tasks/{}", id(&task)), &due)
        .await
        .expect(200);
    post(&ada, &reminders, "key", &body).await.expect(201);
}

#[tokio::test]
async fn an_answer_outlives_its_task() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let task = ada.task(&json!({"title": "short-lived"})).await;
    let complete = format!("/api/v1/tasks/{}/complete", id(&task));
    let first = post(&ada, &complete, "key", &Value::Null).await.expect(200);
    ada.delete(&format!("/api/v1/tasks/{}", id(&task))).await.expect(204);
    assert_eq!(
        post(&ada, &complete, "key", &Value::Null).await.expect(200).text,
        first.text
    );
    post(&ada, &complete, "another", &Value::Null).await.expect(404);
}
