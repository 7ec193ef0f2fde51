//! Platforms that share a broker, each with a prefix, over sidecars that their consumers tell what to deliver.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use todo_dapr::client::Message;
use todo_dapr::{BusSettings, DaprBus, SubscriptionHost, SubscriptionSettings, TopicPrefix};
use todo_events::host::Retry;
use todo_events::{BoxFuture, Bus, Consumer, Event, HandleError, Topic};
use todo_test_db::TestDb;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::{App, serve_at, until};
use crate::broker::event;
use crate::daprd::{Daprd, Options, unique};
use crate::process::free_ports;
use crate::resources::{PUBSUB, RETRIES, raw_subscription};
use crate::stack::kafka;

/// Remembers each event.
#[derive(Default)]
struct Memory(Mutex<Vec<Uuid>>);

impl Consumer for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn topics(&self) -> &'static [Topic] {
        &[Topic::TaskEvents]
    }

    fn handle<'a>(
        &'a self,
        _transaction: &'a mut sqlx::PgConnection,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<(), HandleError>> {
        Box::pin(async move {
            self.0.lock().unwrap().extend(events.iter().map(|event| event.id));
            Ok(())
        })
    }
}

impl Memory {
    fn ids(&self) -> Vec<Uuid> {
        let mut ids = self.0.lock().unwrap().clone();
        ids.sort();
        ids
    }
}

/// A platform with one consumer.
struct Platform {
    bus: DaprBus,
    memory: Arc<Memory>,
    daprd: Daprd,
    prefix: TopicPrefix,
    _db: TestDb,
}

impl Platform {
    async fn start(name: &str) -> Self {
        let prefix: TopicPrefix = format!("{name}-{}-", unique()).parse().unwrap();
        let db = TestDb::new().await;
        let [port] = free_ports();
        let daprd = sidecar(name).await.app(port).start().await;
        let memory = Arc::new(Memory::default());
        let settings = SubscriptionSettings {
            announce: true,
            topic_prefix: prefix.clone(),
            ..SubscriptionSettings::of("pubsub")
        };
        let retry = Retry::until(CancellationToken::new());
        let consumer = Arc::clone(&memory) as Arc<dyn Consumer>;
        let host = SubscriptionHost::new(db.pool.clone(), consumer, retry, daprd.client.clone(), settings);
        serve_at(port, host.router()).await;
        let settings = BusSettings {
            topic_prefix: prefix.clone(),
            ..BusSettings::of("pubsub")
        };
        Self {
            bus: DaprBus::new(daprd.client.clone(), settings),
            memory,
            daprd,
            prefix,
            _db: db,
        }
    }
}

async fn sidecar(name: &str) -> Options {
    Options::of(name)
        .resource(PUBSUB)
        .resource(RETRIES)
        .variable("TODO_KAFKA_BROKERS", &kafka().await.address)
}

#[tokio::test]
async fn platforms_that_share_a_broker_hear_nothing_of_each_other() {
    let (home, work) = (Platform::start("home").await, Platform::start("work").await);
    let mut sent = Vec::new();
    for (platform, user) in [(&home, "ada"), (&work, "bob")] {
        let events: Vec<Event> = (0..5).map(|_| event(user)).collect();
        // A broker that is slow at its first messages is tried again, as a relay does.
        until("the events are published", async || {
            platform.bus.publish(&events).await.is_ok()
        })
        .await;
        let mut ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
        ids.sort();
        sent.push(ids);
    }
    until("each has its own", async || {
        home.memory.ids().len() >= 5 && work.memory.ids().len() >= 5
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        [home.memory.ids(), work.memory.ids()],
        [sent[0].clone(), sent[1].clone()]
    );

    // Nor of what could not be delivered.
    let reader = App::answering(|_| (200, serde_json::Value::Null)).await;
    let reading = sidecar("reader")
        .await
        .resource(raw_subscription(&home.prefix.dead_letters("memory"), "/letters"))
        .app(reader.port);
    let _reading = reading.start().await;
    let noise = Message {
        content_type: "application/octet-stream",
        body: "noise".into(),
        metadata: [("rawPayload", "true"), ("partitionKey", "ada")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    };
    let topic = home.prefix.topic(Topic::TaskEvents);
    home.daprd.client.publish("pubsub", &topic, &noise).await.unwrap();
    until("the dead letter", async || reader.called().len() == 1).await;
}
