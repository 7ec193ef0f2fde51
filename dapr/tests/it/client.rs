//! Health, metadata, publishing, invocation, secrets, and what holds for every call.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use todo_dapr::client::{BulkEntry, FailedEntry, Invocation, Message};
use todo_dapr::{Client, Error, Method, Secret, Settings, StatusCode};

use crate::sidecar::{Reply, Sidecar, client_at, hanging_up, nowhere};

fn message() -> Message {
    Message {
        content_type: "application/cloudevents+json",
        body: br#"{"id":"1"}"#.to_vec().into(),
        metadata: BTreeMap::from([("partitionKey".to_owned(), "ada & co".to_owned())]),
    }
}

fn entry(id: &str) -> BulkEntry {
    BulkEntry {
        id: id.to_owned(),
        payload: json!({"id": id}).to_string(),
        metadata: BTreeMap::from([("partitionKey", "ada".to_owned())]),
    }
}

fn invocation(method: Method, body: Option<&Value>) -> Invocation<'_> {
    Invocation {
        app: "todo-api",
        method,
        path: "/internal/tasks",
        query: &[("limit", "5")],
        body,
    }
}

#[tokio::test]
async fn a_sidecar_is_waited_for_until_it_is_ready() {
    let not_ready = Reply::error(500, "ERR_OUTBOUND_HEALTH_NOT_READY", "dapr outbound is not ready");
    let sidecar = Sidecar::answering([not_ready.clone(), not_ready, Reply::empty(204)]).await;
    sidecar.client().wait_until_ready(Duration::from_mins(1)).await.unwrap();
    assert_eq!(sidecar.targets(), ["GET /v1.0/healthz/outbound"; 3]);
}

#[tokio::test]
async fn a_sidecar_that_is_not_there_is_not_waited_for_for_ever() {
    let client = client_at(nowhere().await);
    let error = client.wait_until_ready(Duration::from_millis(250)).await.unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn metadata_tells_what_is_loaded() {
    let body = json!({
        "id": "todo-worker",
        "runtimeVersion": "1.16.0",
        "enabledFeatures": ["SchedulerReminders"],
        "components": [{"name": "pubsub", "type": "pubsub.kafka", "version": "v1", "capabilities": ["BULK_PUBSUB"]}],
        "subscriptions": [{
            "pubsubname": "pubsub", "topic": "task-events", "rules": [{"path": "/events"}],
            "deadLetterTopic": "task-events-dead", "type": "DECLARATIVE",
        }],
        "scheduler": {"connected_addresses": ["127.0.0.1:50006"]},
    });
    let sidecar = Sidecar::answering([Reply::text(200, &body.to_string())]).await;
    let metadata = sidecar.client().metadata().await.unwrap();
    assert_eq!(metadata.runtime_version, "1.16.0");
    assert_eq!(metadata.components[0].kind, "pubsub.kafka");
    assert_eq!(metadata.components[0].capabilities, ["BULK_PUBSUB"]);
    assert_eq!(metadata.subscriptions[0].dead_letter_topic, "task-events-dead");
}

#[tokio::test]
async fn a_message_is_published_with_its_envelope_and_metadata() {
    let sidecar = Sidecar::answering([Reply::empty(204)]).await;
    sidecar
        .client()
        .publish("pubsub", "task-events", &message())
        .await
        .unwrap();
    let asked = sidecar.only();
    assert_eq!(
        asked.target,
        "/v1.0/publish/pubsub/task-events?metadata.partitionKey=ada+%26+co"
    );
    assert_eq!(asked.header("content-type"), Some("application/cloudevents+json"));
    assert_eq!(asked.body, br#"{"id":"1"}"#);
}

#[tokio::test]
async fn an_unknown_pubsub_is_an_error_with_daprs_words_that_no_retry_mends() {
    let sidecar = Sidecar::answering([Reply::error(404, "ERR_PUBSUB_NOT_FOUND", "pubsub nowhere is not found")]).await;
    let client = sidecar.client();
    for error in [
        client.publish("nowhere", "task-events", &message()).await.unwrap_err(),
        client
            .publish_bulk("nowhere", "task-events", &[entry("a")])
            .await
            .unwrap_err(),
    ] {
        let refusal = error.refusal().unwrap();
        assert_eq!(refusal.status, StatusCode::NOT_FOUND);
        assert_eq!(refusal.code.as_deref(), Some("ERR_PUBSUB_NOT_FOUND"));
        assert_eq!(refusal.message, "pubsub nowhere is not found");
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn a_bulk_that_fails_in_part_says_which() {
    let body = json!({
        "failedEntries": [{"entryId": "b", "error": "kafka: client has run out of available brokers"}],
        "errorCode": "ERR_PUBSUB_PUBLISH_MESSAGE",
    });
    let sidecar = Sidecar::answering([Reply::text(500, &body.to_string())]).await;
    let failed = sidecar
        .client()
        .publish_bulk("pubsub", "task-events", &[entry("a"), entry("b")])
        .await
        .unwrap();
    assert_eq!(
        failed,
        [FailedEntry {
            id: "b".to_owned(),
            error: "kafka: client has run out of available brokers".to_owned()
        }]
    );
    let asked = sidecar.only();
    assert_eq!(
        asked.target,
        "/v1.0-alpha1/publish/bulk/pubsub/task-events?metadata.rawPayload=true"
    );
    assert_eq!(
        asked.json()[0],
        json!({
            "entryId": "a", "event": "{\"id\":\"a\"}", "contentType": "text/plain",
            "metadata": {"partitionKey": "ada"},
        })
    );
}

#[tokio::test]
async fn a_bulk_whose_failures_name_no_entry_of_ours_is_not_taken_for_a_success() {
    for body in [
        json!({"failedEntries": [{"entryId": "z"}], "errorCode": "ERR_PUBSUB_PUBLISH_MESSAGE"}),
        json!({"failedEntries": [], "errorCode": "ERR_PUBSUB_PUBLISH_MESSAGE"}),
        json!({"errorCode": "ERR_PUBSUB_PUBLISH_MESSAGE", "message": "broker is away"}),
    ] {
        let sidecar = Sidecar::answering([Reply::text(500, &body.to_string())]).await;
        let result = sidecar
            .client()
            .publish_bulk("pubsub", "task-events", &[entry("a")])
            .await;
        assert!(result.is_err(), "{body}: {result:?}");
    }
}

#[tokio::test]
async fn a_call_that_changes_nothing_is_made_again_and_not_without_end() {
    let fault = Reply::error(500, "ERR_SECRET_GET", "store is away");
    let recovering = Sidecar::answering([fault.clone(), Reply::text(200, r#"{"password":"hunter2"}"#)]).await;
    let secret = recovering.client().secret("vault", "db").await.unwrap().unwrap();
    assert_eq!(secret["password"].expose(), "hunter2");
    assert!(!format!("{secret:?}").contains("hunter2"));

    let broken = Sidecar::answering([fault]).await;
    let error = broken.client().secret("vault", "db").await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(broken.targets(), ["GET /v1.0/secrets/vault/db"; 3]);
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_none() {
    let missing = "failed getting secret with key db from secret store vault: secret db not found";
    for reply in [Reply::empty(204), Reply::error(500, "ERR_SECRET_GET", missing)] {
        let sidecar = Sidecar::answering([reply]).await;
        assert_eq!(sidecar.client().secret("vault", "db").await.unwrap(), None);
        assert_eq!(sidecar.asked().len(), 1);
    }
}

#[tokio::test]
async fn what_is_forbidden_is_not_asked_again() {
    let sidecar = Sidecar::answering([Reply::error(403, "ERR_PERMISSION_DENIED", "access denied")]).await;
    let error = sidecar.client().secret("vault", "db").await.unwrap_err();
    assert!(!error.is_retryable());
    assert_eq!(sidecar.asked().len(), 1);
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_is_not_published_again_behind_the_callers_back() {
    let (address, calls) = hanging_up().await;
    let client = client_at(address);
    let error = client.publish("pubsub", "task-events", &message()).await.unwrap_err();
    assert!(matches!(error, Error::Broken(_)), "{error:?}");
    assert!(error.is_retryable());
    assert_eq!(*calls.lock().unwrap(), 1);

    client.metadata().await.unwrap_err();
    assert_eq!(*calls.lock().unwrap(), 4, "a question may be asked three times");
}

#[tokio::test]
async fn a_sidecar_that_is_away_is_an_error_that_time_may_mend() {
    let client = client_at(nowhere().await);
    let error = client.publish("pubsub", "task-events", &message()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
    assert!(error.is_retryable());
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_slow_answer_is_not_waited_for_beyond_the_timeout() {
    let sidecar = Sidecar::answering([Reply::empty(204).after(Duration::from_secs(30))]).await;
    let client = Client::new(Settings {
        timeout: Duration::from_millis(50),
        publish_timeout: Duration::from_millis(50),
        attempts: 2,
        ..sidecar.settings()
    })
    .unwrap();
    let started = Instant::now();
    let published = client.publish("pubsub", "task-events", &message()).await.unwrap_err();
    assert!(matches!(published, Error::TimedOut(_)), "{published:?}");
    let read = client.metadata().await.unwrap_err();
    assert!(matches!(read, Error::TimedOut(_)), "{read:?}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn each_call_carries_the_token_and_the_trace() {
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let sidecar = Sidecar::answering([Reply::empty(204)]).await;
    let client = Client::new(Settings {
        token: Some(Secret::new("hunter2")),
        ..sidecar.settings()
    })
    .unwrap();
    client.traced(traceparent).ready().await.unwrap();
    client.traced("not\na header").ready().await.unwrap();
    let [traced, untraced] = <[_; 2]>::try_from(sidecar.asked()).unwrap();
    assert_eq!(traced.header("dapr-api-token"), Some("hunter2"));
    assert_eq!(traced.header("traceparent"), Some(traceparent));
    assert_eq!(untraced.header("traceparent"), None);
    assert!(!format!("{client:?}").contains("hunter2"));
}

#[tokio::test]
async fn another_apps_answer_is_the_callers_to_judge() {
    let sidecar = Sidecar::answering([Reply::text(503, r#"{"title":"draining"}"#)]).await;
    let body = json!({"title": "buy milk"});
    let answer = sidecar
        .client()
        .invoke(&invocation(Method::PUT, Some(&body)))
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json::<Value>().unwrap(), json!({"title": "draining"}));
    let asked = sidecar.only();
    assert_eq!(asked.method, Method::PUT);
    assert_eq!(asked.target, "/v1.0/invoke/todo-api/method/internal/tasks?limit=5");
    assert_eq!(asked.json(), body);
}

#[tokio::test]
async fn an_app_that_is_not_reached_is_called_again_only_if_that_is_safe() {
    let fault = Reply::error(
        500,
        "ERR_DIRECT_INVOKE",
        "failed to invoke, id: todo-api, err: no route",
    );
    for (method, calls) in [(Method::GET, 3), (Method::POST, 1)] {
        let sidecar = Sidecar::answering([fault.clone()]).await;
        let error = sidecar.client().invoke(&invocation(method, None)).await.unwrap_err();
        assert_eq!(error.refusal().unwrap().code.as_deref(), Some("ERR_DIRECT_INVOKE"));
        assert_eq!(sidecar.asked().len(), calls);
    }
}
