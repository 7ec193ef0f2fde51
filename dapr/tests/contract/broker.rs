//! A sidecar between a topic of its own on Kafka and an app that a test plays.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};
use todo_dapr::client::{BulkEntry, FailedEntry, Message};
use todo_events::{CloudEvent, Event, EventType};
use uuid::Uuid;

use crate::app::{App, Called, until};
use crate::daprd::{Daprd, Options, unique};
use crate::resources::{Delivery, PUBSUB, RETRIES, raw_subscription, subscription};
use crate::stack::kafka;

const PATH: &str = "/here";
const DEAD_PATH: &str = "/dead";

/// What a test has at hand.
pub(crate) struct Broker {
    kafka: String,
    retries: bool,
    delivery: Delivery,
    pub(crate) daprd: Daprd,
    pub(crate) app: App,
    /// What the app subscribes to at [`PATH`]. Its dead letters come to [`DEAD_PATH`].
    pub(crate) topic: String,
}

impl Broker {
    /// An app with this answer to deliveries. Dead letters are always taken.
    pub(crate) async fn new(
        delivery: Delivery,
        retries: bool,
        answer: impl Fn(&Called) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        Self::at(&kafka().await.address, delivery, retries, answer).await
    }

    /// The same on a Kafka of the test's own.
    pub(crate) async fn at(
        kafka: &str,
        delivery: Delivery,
        retries: bool,
        answer: impl Fn(&Called) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        let app = App::answering(move |called| match called.path.as_str() {
            DEAD_PATH => (200, Value::Null),
            _ => answer(called),
        })
        .await;
        let topic = format!("t-{}", unique());
        let app_id = format!("broker-{}", unique());
        let daprd = sidecar(kafka, &app_id, &topic, app.port, delivery, retries).await;
        Self {
            kafka: kafka.to_owned(),
            retries,
            delivery,
            daprd,
            app,
            topic,
        }
    }

    /// Another sidecar of the same app: it takes over some of the partitions.
    pub(crate) async fn copy(&self) -> Daprd {
        let app_id = &self.daprd.app_id;
        sidecar(
            &self.kafka,
            app_id,
            &self.topic,
            self.app.port,
            self.delivery,
            self.retries,
        )
        .await
    }

    /// Publishes events in one request.
    pub(crate) async fn publish(&self, events: &[Event]) {
        let failed = self.try_publish(&self.topic, events.iter().map(entry).collect()).await;
        assert_eq!(failed.unwrap(), []);
    }

    pub(crate) async fn try_publish(
        &self,
        topic: &str,
        entries: Vec<BulkEntry>,
    ) -> Result<Vec<FailedEntry>, todo_dapr::Error> {
        self.daprd.client.publish_bulk("pubsub", topic, &entries).await
    }

    /// Publishes these bytes as they are.
    pub(crate) async fn publish_raw(&self, bytes: &'static [u8]) {
        let message = Message {
            content_type: "application/octet-stream",
            body: bytes.into(),
            metadata: [("rawPayload", "true"), ("partitionKey", "ada")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        };
        self.daprd
            .client
            .publish("pubsub", &self.topic, &message)
            .await
            .unwrap();
    }

    /// What the app was called with at this path so far.
    fn called_at(&self, path: &str) -> Vec<Called> {
        let mut called = self.app.called();
        called.retain(|called| called.path == path);
        called
    }

    /// The calls with events so far.
    pub(crate) fn called(&self) -> Vec<Called> {
        self.called_at(PATH)
    }

    /// The ids of the events that were delivered so far, call by call.
    pub(crate) fn ids(&self) -> Vec<Vec<String>> {
        self.called().iter().map(|called| ids(&called.body)).collect()
    }

    /// Waits until so many events were delivered, those that came twice counted twice.
    pub(crate) async fn until(&self, events: usize) {
        until(&format!("{events} events"), async || {
            self.ids().concat().len() >= events
        })
        .await;
    }

    /// The dead letters so far, byte by byte.
    pub(crate) fn dead(&self) -> Vec<String> {
        let bytes = |called: &Called| BASE64.decode(called.body["data_base64"].as_str().unwrap()).unwrap();
        self.called_at(DEAD_PATH)
            .iter()
            .map(|called| String::from_utf8(bytes(called)).unwrap())
            .collect()
    }

    /// Waits until there are so many dead letters.
    pub(crate) async fn until_dead(&self, letters: usize) {
        until(&format!("{letters} dead letters"), async || {
            self.dead().len() >= letters
        })
        .await;
    }
}

async fn sidecar(kafka: &str, app_id: &str, topic: &str, port: u16, delivery: Delivery, retries: bool) -> Daprd {
    let dead_topic = format!("{topic}-dead");
    let mut options = options_at(kafka, app_id)
        .resource(subscription(topic, PATH, delivery, &dead_topic))
        .resource(raw_subscription(&dead_topic, DEAD_PATH))
        .app(port);
    if retries {
        options = options.resource(RETRIES);
    }
    options.start().await
}

/// A sidecar with Kafka.
pub(crate) async fn options(app_id: &str) -> Options {
    options_at(&kafka().await.address, app_id)
}

fn options_at(kafka: &str, app_id: &str) -> Options {
    Options::named(app_id)
        .resource(PUBSUB)
        .variable("TODO_KAFKA_BROKERS", kafka)
}

/// The ids of a delivery, single or bulk; the text where there is none.
pub(crate) fn ids(body: &Value) -> Vec<String> {
    let id = |event: &Value| event["id"].as_str().map_or_else(|| event.to_string(), str::to_owned);
    match body["entries"].as_array() {
        Some(entries) => entries.iter().map(|entry| id(&entry["event"])).collect(),
        None => vec![id(body)],
    }
}

/// The answer that gives each event of a delivery a status.
pub(crate) fn statuses(called: &Called, status: impl Fn(&str) -> &'static str) -> (u16, Value) {
    let answer = match called.body["entries"].as_array() {
        Some(entries) => {
            let statuses: Vec<_> = entries
                .iter()
                .map(|entry| json!({"entryId": entry["entryId"], "status": status(&ids(&entry["event"])[0])}))
                .collect();
            json!({"statuses": statuses})
        }
        None => json!({"status": status(&ids(&called.body)[0])}),
    };
    (200, answer)
}

pub(crate) fn entry(event: &Event) -> BulkEntry {
    BulkEntry {
        id: event.id.to_string(),
        payload: serde_json::to_string(&CloudEvent::from(event)).unwrap(),
        metadata: [("partitionKey", event.user_id.clone())].into(),
    }
}

/// An event of a new task of this user.
pub(crate) fn event(user: &str) -> Event {
    Event {
        id: Uuid::now_v7(),
        event_type: EventType::Created,
        subject: Uuid::now_v7(),
        user_id: user.to_owned(),
        version: 1,
        actor: user.to_owned(),
        data: json!({"title": "<b>Grüße</b> & \u{1f600}\u{2028}"}),
        previous: None,
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        time: "2026-11-21T08:30:00.123456Z".parse().unwrap(),
    }
}
