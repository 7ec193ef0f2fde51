//! The platform's own manifests, as they are: the relay's sidecar, a consumer's, and the events between them.
//!
//! One test, because the manifests fix the app ids and the topics: two would take each other's events.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use todo_dapr::client::Message;
use todo_dapr::subscription::MAX_BULK_MESSAGES;
use todo_dapr::{BusSettings, DaprBus, Secret, StatusCode, SubscriptionHost, SubscriptionSettings};
use todo_events::host::Retry;
use todo_events::{BoxFuture, Bus, Consumer, Event, EventType, HandleError, Topic};
use todo_test_db::TestDb;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::{App, Called, serve_at, until};
use crate::broker::{event, options};
use crate::daprd::{Daprd, Options};
use crate::process::free_ports;
use crate::resources::{components, own_manifests, raw_subscription};
use crate::stack::kafka;

/// Writes each event into the table `recorded`, and says that its server is away when told so.
struct Recorder {
    away: Arc<AtomicBool>,
}

impl Consumer for Recorder {
    fn name(&self) -> &'static str {
        "audit"
    }

    fn topics(&self) -> &'static [Topic] {
        &[Topic::TaskEvents]
    }

    fn handle<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<(), HandleError>> {
        Box::pin(async move {
            if self.away.load(Ordering::Relaxed) {
                return Err(HandleError::transient("away"));
            }
            for event in events {
                sqlx::query("INSERT INTO recorded (event_id, subject) VALUES ($1, $2)")
                    .bind(event.id)
                    .bind(event.subject)
                    .execute(&mut *transaction)
                    .await?;
            }
            Ok(())
        })
    }
}

/// The ids of each task's events, in the order in which they were recorded.
async fn recorded(pool: &PgPool) -> HashMap<Uuid, Vec<Uuid>> {
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as("SELECT subject, event_id FROM recorded ORDER BY seq")
        .fetch_all(pool)
        .await
        .unwrap();
    by_task(rows)
}

fn by_task(events: impl IntoIterator<Item = (Uuid, Uuid)>) -> HashMap<Uuid, Vec<Uuid>> {
    let mut of_task: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
    for (subject, id) in events {
        of_task.entry(subject).or_default().push(id);
    }
    of_task
}

/// Versions of some users' tasks, reminders among them, task by task mixed.
fn history(versions: i64) -> Vec<Event> {
    history_of(&["ada", "zoë & co", "bob", "ada"].map(event), versions)
}

fn history_of_one_task(versions: i64) -> Vec<Event> {
    history_of(&[event("ada")], versions)
}

fn history_of(tasks: &[Event], versions: i64) -> Vec<Event> {
    (1..=versions)
        .flat_map(|version| {
            tasks.iter().map(move |task| Event {
                id: Uuid::now_v7(),
                event_type: match version {
                    1 => EventType::Created,
                    _ if version % 3 == 0 => EventType::Reminder,
                    _ => EventType::Updated,
                },
                version,
                previous: (version > 1).then(|| json!({"title": "before"})),
                ..task.clone()
            })
        })
        .collect()
}

/// A sidecar of the platform, with its own manifests.
async fn sidecar(app_id: &str) -> Options {
    own_manifests(app_id).variable("TODO_KAFKA_BROKERS", &kafka().await.address)
}

/// A consumer behind its sidecar.
async fn audit(pool: &PgPool, away: &Arc<AtomicBool>) -> Daprd {
    let [port] = free_ports();
    let daprd = sidecar("todo-audit")
        .await
        .app(port)
        .app_token("app-token")
        .start()
        .await;
    let recorder = Recorder { away: Arc::clone(away) };
    let settings = SubscriptionSettings {
        token: Some(Secret::new("app-token")),
        patience: Duration::from_secs(1),
        ..SubscriptionSettings::of("pubsub")
    };
    let retry = Retry::until(CancellationToken::new());
    let host = SubscriptionHost::new(pool.clone(), Arc::new(recorder), retry, daprd.client.clone(), settings);
    serve_at(port, host.router()).await;
    daprd
}

/// Publishes bytes that are no event of ours to the consumers' topic.
async fn publish_noise(relay: &Daprd, noise: &'static str) {
    let message = Message {
        content_type: "application/octet-stream",
        body: noise.into(),
        metadata: [("rawPayload", "true"), ("partitionKey", "ada")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    };
    relay.client.publish("pubsub", "task-events", &message).await.unwrap();
}

/// The dead letters that an app was given, whatever is in them.
fn letters(reader: &App) -> Vec<String> {
    let bytes = |called: &Called| BASE64.decode(called.body["data_base64"].as_str().unwrap()).unwrap();
    let text = |called: &Called| String::from_utf8(bytes(called)).unwrap();
    reader.called().iter().map(text).collect()
}

#[tokio::test]
async fn what_is_published_is_applied_once_and_in_order_whatever_else_is_on_the_topic() {
    let db = TestDb::new().await;
    sqlx::query("CREATE TABLE recorded (seq bigserial, event_id uuid, subject uuid)")
        .execute(&db.pool)
        .await
        .unwrap();
    let away = Arc::new(AtomicBool::new(false));
    let relay = sidecar("todo-relay").await.start().await;
    let audit = audit(&db.pool, &away).await;
    let reader = App::answering(|_| (200, Value::Null)).await;
    let reading = options("contract-reader")
        .await
        .resource(raw_subscription("audit-dead-letters", "/letters"))
        .app(reader.port);
    let _reading = reading.start().await;
    let bus = DaprBus::new(relay.client.clone(), BusSettings::of("pubsub"));

    // Twice, as a relay does that died before it could say how far it was.
    let history = history(6);
    let (first, second) = history.split_at(15);
    for batch in [first, first, second] {
        until("the batch is published", async || bus.publish(batch).await.is_ok()).await;
    }
    let all = by_task(history.iter().map(|event| (event.subject, event.id)));
    until("the history", async || recorded(&db.pool).await == all).await;

    // Noise goes to the dead letters with the reason, and blocks nothing.
    publish_noise(&relay, r#"{"specversion":"1.0","type":"noise"}"#).await;
    publish_noise(&relay, "not json").await;
    let after = [event("ada"), event("bob")];
    bus.publish(&after).await.unwrap();
    let count = async || recorded(&db.pool).await.values().map(Vec::len).sum::<usize>();
    until("what follows the noise", async || count().await == history.len() + 2).await;
    until("two dead letters", async || letters(&reader).len() == 2).await;
    for letter in letters(&reader) {
        let letter: Value = serde_json::from_str(&letter).unwrap();
        assert_eq!(letter["data"]["consumer"], "audit");
        let reason = match letter["data"]["received"].as_str().unwrap() {
            "not json" => "expected ident at line 1 column 2",
            _ => "missing field `id` at line 1 column 36",
        };
        assert_eq!(letter["data"]["reason"], reason);
    }

    // A database that is away holds events up for longer than a delivery may take, and costs none.
    away.store(true, Ordering::Relaxed);
    let held_up = history_of_one_task(4);
    bus.publish(&held_up).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(count().await, history.len() + 2);
    away.store(false, Ordering::Relaxed);
    until("what was held up", async || count().await == history.len() + 6).await;
    let order = recorded(&db.pool).await.remove(&held_up[0].subject).unwrap();
    assert_eq!(order, held_up.iter().map(|event| event.id).collect::<Vec<_>>());
    assert_eq!(letters(&reader).len(), 2);

    // Each may only what it needs.
    let metadata = audit.client.metadata().await.unwrap();
    let subscriptions: Vec<_> = metadata
        .subscriptions
        .iter()
        .map(|subscription| (subscription.topic.as_str(), subscription.dead_letter_topic.as_str()))
        .collect();
    assert_eq!(subscriptions, [("task-events", "audit-dead-letters")]);
    for (client, topic) in [(&relay.client, "audit-dead-letters"), (&audit.client, "task-events")] {
        let message = Message {
            content_type: "application/json",
            body: "{}".into(),
            metadata: [].into(),
        };
        let error = client.publish("pubsub", topic, &message).await.unwrap_err();
        assert_eq!(
            error.refusal().unwrap().status,
            StatusCode::FORBIDDEN,
            "{topic}: {error}"
        );
    }
}

#[test]
fn no_subscription_asks_for_more_at_once_than_the_host_reads() {
    let manifest = std::fs::read_to_string(components().join("local/subscriptions.yaml")).unwrap();
    let asked: Vec<u16> = manifest
        .lines()
        .filter_map(|line| line.trim().strip_prefix("maxMessagesCount: "))
        .map(|count| count.parse().unwrap())
        .collect();
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|count| *count <= MAX_BULK_MESSAGES), "{asked:?}");
}
