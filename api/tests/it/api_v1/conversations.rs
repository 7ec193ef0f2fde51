//! `/api/v1/conversations`

use std::sync::Arc;
use std::time::Duration;

use insta::assert_json_snapshot;
use reqwest::Method;
use serde_json::{Value, json};
use todo_events::BoxFuture;
use todo_tasks::state::{Condition, Etag, StateError, StateStore, Stored};

use crate::app::{App, Reply, User, config, id};

/// Begins a conversation and returns the path of its messages.
async fn begin(user: &User) -> String {
    let begun = user.call("/api/v1/conversations").await.expect(201);
    let own = format!("/api/v1/conversations/{}", id(&begun.body));
    assert_eq!(begun.header("location"), own);
    format!("{own}/messages")
}

async fn say(user: &User, path: &str, content: &str) -> Reply {
    user.post(path, &json!({"role": "user", "content": content})).await
}

async fn heard(user: &User, path: &str) -> Vec<String> {
    let history = user.get(path).await.expect(200);
    let items = history.body["items"].as_array().unwrap();
    let contents = items.iter().map(|item| item["content"].as_str().unwrap().to_owned());
    contents.collect()
}

#[tokio::test]
async fn what_was_said_is_read_back_in_its_order_until_it_is_deleted() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let path = begin(&ada).await;
    assert_eq!(
        ada.get(&path).await.expect(200).body,
        json!({"items": [], "degraded": false})
    );
    let first = say(&ada, &path, "what is due today?").await.expect(201);
    assert_eq!(first.body["degraded"], false);
    for (role, content) in [
        ("tool", "[]"),
        ("assistant", "nothing"),
        ("system", "be brief"),
        ("user", "thanks"),
    ] {
        ada.post(&path, &json!({"role": role, "content": content}))
            .await
            .expect(201);
    }
    let history = ada.get(&path).await.expect(200);
    assert_json_snapshot!("conversation", history.body, {".items[].id" => "[id]", ".items[].at" => "[time]"});
    assert_eq!(history.body["items"][0]["id"], first.body["id"]);

    let own = path.trim_end_matches("/messages");
    ada.delete(own).await.expect(204);
    for gone in [
        ada.get(&path).await,
        say(&ada, &path, "more").await,
        ada.delete(own).await,
    ] {
        assert_eq!(gone.expect(404).problem(), "not-found");
    }
}

#[tokio::test]
async fn a_conversation_is_its_users_alone() {
    let app = App::spawn().await;
    let (ada, bob) = (app.user("ada"), app.user("bob"));
    let path = begin(&ada).await;
    say(&ada, &path, "secret").await.expect(201);
    let own = path.trim_end_matches("/messages");
    for refused in [
        bob.get(&path).await,
        say(&bob, &path, "mine").await,
        bob.delete(own).await,
    ] {
        assert_eq!(refused.expect(404).problem(), "not-found");
    }
    assert_eq!(heard(&ada, &path).await, ["secret"]);
}

#[tokio::test]
async fn a_message_that_is_sent_again_is_there_once() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let path = begin(&ada).await;
    let message = json!({"id": "0198c2f0-0000-7000-8000-000000000001", "role": "user", "content": "by its id"});
    let first = ada.post(&path, &message).await.expect(201);
    assert_eq!(ada.post(&path, &message).await.expect(201).text, first.text);
    let other = json!({"id": message["id"], "role": "user", "content": "another"});
    assert_eq!(ada.post(&path, &other).await.expect(409).problem(), "conflict");

    let keyed = |key: &'static str, path: String, body: Value| {
        let request = ada.request(Method::POST, &path).header("idempotency-key", key);
        Reply::to(if body.is_null() { request } else { request.json(&body) })
    };
    let by_key = json!({"role": "user", "content": "by its key"});
    let sending = (0..8).map(|_| keyed("k", path.clone(), by_key.clone()));
    let replies = futures::future::join_all(sending).await;
    let texts: std::collections::BTreeSet<String> = replies.into_iter().map(|reply| reply.expect(201).text).collect();
    assert_eq!(texts.len(), 1, "{texts:?}");
    let again = keyed("k", path.clone(), by_key.clone()).await.expect(201);
    assert_eq!(again.header("idempotency-replayed"), "true");
    let reused = keyed("k", path.clone(), other).await.expect(422);
    assert_eq!(reused.problem(), "idempotency-key-reused");
    assert_eq!(heard(&ada, &path).await, ["by its id", "by its key"]);

    // As after a crash between the message and the answer.
    sqlx::query("DELETE FROM idempotency_keys")
        .execute(&app.db.pool)
        .await
        .unwrap();
    keyed("k", path.clone(), by_key).await.expect(201);
    assert_eq!(heard(&ada, &path).await.len(), 2);

    let conversations = "/api/v1/conversations".to_owned();
    let begun = keyed("begin", conversations.clone(), Value::Null).await.expect(201);
    let again = keyed("begin", conversations, Value::Null).await.expect(201);
    assert_eq!(again.text, begun.text);
}

#[tokio::test]
async fn a_message_that_is_wrong_is_refused_by_its_field() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let path = begin(&ada).await;
    for (body, field) in [
        (json!({"role": "user"}), "content"),
        (json!({"content": "x"}), "role"),
        (json!({"role": "robot", "content": "x"}), "role"),
        (json!({"role": "user", "content": ""}), "content"),
        (json!({"role": "user", "content": "x".repeat(16_001)}), "content"),
        (json!({"role": "user", "content": "nul \u{0}"}), "content"),
        (json!({"role": "user", "content": "x", "id": "7"}), "id"),
        (json!({"role": "user", "content": "x", "at": "now"}), "at"),
    ] {
        let refused = ada.post(&path, &body).await.expect(422);
        assert_eq!(
            (refused.problem(), refused.fields()),
            ("invalid", vec![field]),
            "{body}"
        );
    }
    assert_eq!(heard(&ada, &path).await.len(), 0);
}

/// A store that is away.
#[derive(Debug)]
struct Away;

impl StateStore for Away {
    fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StateError>> {
        Box::pin(async { Err(StateError::Unavailable("it is away".into())) })
    }

    fn put<'a>(
        &'a self,
        _: &'a str,
        _: Value,
        _: Condition,
        _: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), StateError>> {
        Box::pin(async { Err(StateError::Unavailable("it is away".into())) })
    }

    fn delete<'a>(&'a self, _: &'a str, _: Option<&'a Etag>) -> BoxFuture<'a, Result<(), StateError>> {
        Box::pin(async { Err(StateError::Unavailable("it is away".into())) })
    }
}

#[tokio::test]
async fn while_the_store_is_away_the_caller_is_served_and_told() {
    let app = App::spawn_state(config(), |state| state.with_state_store(Arc::new(Away))).await;
    let ada = app.user("ada");
    let begun = ada.call("/api/v1/conversations").await.expect(201).body;
    assert_eq!(begun["degraded"], true);
    let path = format!("/api/v1/conversations/{}/messages", id(&begun));
    assert_eq!(say(&ada, &path, "meanwhile").await.expect(201).body["degraded"], true);
    let history = ada.get(&path).await.expect(200).body;
    assert_eq!(
        (&history["degraded"], history["items"].as_array().unwrap().len()),
        (&json!(true), 1)
    );
    ada.delete(path.trim_end_matches("/messages")).await.expect(204);
    ada.get(&path).await.expect(404);
    let metrics = app.nobody().get("/metrics").await.expect(200).text;
    assert!(
        metrics.contains(r#"todo_state_fallback_total{operation="begin"}"#),
        "{metrics}"
    );
}
