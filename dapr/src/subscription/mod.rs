//! The host of a consumer behind a broker: serves what the sidecar delivers.
//!
//! What lives here: the routes that the sidecar calls, and what each message is answered with. What does not:
//! the effect of an event and its deduplication ([`todo_events::host`]), and the manifests that subscribe.
//!
//! The path of a delivery, single or bulk:
//!
//! 1. It waits for its turn: only so many are worked on at once.
//! 2. Its events are settled in their order, each applied or among the consumer's dead letters in the
//!    database. So an event that the consumer cannot apply does not stop its partition.
//! 3. What is not an event at all goes to the dead-letter topic, with the reason, which the sidecar would
//!    not keep.
//! 4. The answer: `SUCCESS` for what is settled. `RETRY` for what could not be settled in time: the database
//!    is away, the process stops, there is too much to do. `DROP` for a malformed message that may not be
//!    published with its reason: the sidecar moves it to the same topic without.
//!
//! The sidecar needs a resiliency policy of unlimited retries for inbound messages of this component. With a
//! dead-letter topic and no policy it moves a message there after the first `RETRY`, and a short absence of
//! the database would cost events their order.

mod delivery;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};
use sqlx::PgPool;
use todo_events::cloud_event::MEDIA_TYPE;
use todo_events::host::{self, Retry};
use todo_events::{Consumer, Event, Topic};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use self::delivery::{Delivery, Malformed, Status};
use crate::app_token::only_the_sidecar;
use crate::client::Message;
use crate::{Client, Secret, TopicPrefix};

/// The most that a broker takes as one message, as brokers come.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// The most messages that a subscription may ask to be delivered together. A delivery that is too large to be read
/// would come again for ever, so the largest that there may be is read: the bound is for strangers.
pub const MAX_BULK_MESSAGES: u16 = 500;

/// How a consumer is served.
#[derive(Debug, Clone)]
pub struct SubscriptionSettings {
    /// The name of the pub/sub component.
    pub pubsub: String,
    /// What the topics' names begin with on the broker.
    pub topic_prefix: TopicPrefix,
    /// What the sidecar shows as `dapr-api-token` (`APP_API_TOKEN`); without it, anyone who reaches the port
    /// can deliver.
    pub token: Option<Secret>,
    /// How many deliveries are worked on at once. Each takes a connection of the pool.
    pub concurrency: usize,
    /// The longest that a delivery waits for its turn (half of it) and is worked on.
    pub patience: Duration,
    /// Whether to tell the sidecar of the subscriptions. Off where manifests declare them.
    pub announce: bool,
    /// The most messages of a bulk.
    pub bulk_messages: u16,
    /// The longest that a bulk waits to be full.
    pub bulk_wait: Duration,
}

impl SubscriptionSettings {
    /// The defaults for a component of this name.
    pub fn of(pubsub: impl Into<String>) -> Self {
        Self {
            pubsub: pubsub.into(),
            topic_prefix: TopicPrefix::default(),
            token: None,
            concurrency: 8,
            patience: Duration::from_secs(20),
            announce: false,
            bulk_messages: 100,
            bulk_wait: Duration::from_millis(10),
        }
    }
}

/// The path that the sidecar delivers this topic to, whatever its prefix.
pub fn route(topic: Topic) -> String {
    format!("/events/{topic}")
}

/// Serves one consumer. One for each process: the sidecar knows a single route for a topic of an app.
pub struct SubscriptionHost {
    pool: PgPool,
    consumer: Arc<dyn Consumer>,
    retry: Retry,
    client: Client,
    settings: SubscriptionSettings,
    turns: Semaphore,
}

impl SubscriptionHost {
    /// A host of this consumer. `client` publishes what is malformed.
    pub fn new(
        pool: PgPool,
        consumer: Arc<dyn Consumer>,
        retry: Retry,
        client: Client,
        settings: SubscriptionSettings,
    ) -> Self {
        Self {
            pool,
            consumer,
            retry,
            client,
            turns: Semaphore::new(settings.concurrency),
            settings,
        }
    }

    /// The routes that the sidecar calls. Serve them where only it can reach them, or with a token.
    pub fn router(self) -> Router {
        metrics::describe_counter!(
            "todo_delivered_messages_total",
            "Messages that the sidecar has delivered, by what it was answered."
        );
        let largest = usize::from(self.settings.bulk_messages.max(MAX_BULK_MESSAGES)) * MAX_MESSAGE_BYTES;
        let token = self.settings.token.clone();
        let routes = Router::new()
            .route("/events/{topic}", post(deliver))
            .route("/dapr/subscribe", get(subscriptions))
            .layer(DefaultBodyLimit::max(largest))
            .with_state(Arc::new(self));
        only_the_sidecar(routes, token)
    }

    fn topic(&self, name: &str) -> Option<Topic> {
        let topics = self.consumer.topics();
        topics.iter().copied().find(|topic| topic.as_str() == name)
    }

    /// The status of each message, in their order.
    async fn settle(&self, topic: Topic, delivery: &Delivery) -> Vec<Status> {
        if self.retry.shutdown.is_cancelled() {
            // What came before is brought to its end; this is for another copy.
            return vec![Status::Retry; delivery.messages.len()];
        }
        let deadline = Instant::now() + self.settings.patience;
        // A turn that comes at the last moment is of no use.
        let turn = timeout(self.settings.patience / 2, self.turns.acquire()).await;
        if !matches!(turn, Ok(Ok(_))) {
            tracing::warn!(consumer = self.consumer.name(), %topic, "too many deliveries at once");
            return vec![Status::Retry; delivery.messages.len()];
        }
        let of_events = self.apply(&delivery.events, deadline).await;
        let mut statuses = Vec::with_capacity(delivery.messages.len());
        for (place, message) in delivery.messages.iter().enumerate() {
            let status = match &message.malformed {
                None => of_events,
                Some(malformed) => timeout_at(deadline, self.bury(topic, malformed))
                    .await
                    .unwrap_or(Status::Retry),
            };
            let status = match status {
                Status::Drop if !delivery.can_drop(place) => Status::Retry,
                status => status,
            };
            statuses.push(status);
        }
        statuses
    }

    async fn apply(&self, events: &[Event], deadline: Instant) -> Status {
        // One for all: what of a batch was settled before it was given up comes again and is a duplicate.
        let applying = host::apply(&self.pool, self.consumer.as_ref(), events, &self.retry);
        match timeout_at(deadline, applying).await {
            Ok(Ok(_)) => Status::Success,
            Ok(Err(host::Stopped)) => Status::Retry,
            Err(_) => {
                tracing::warn!(consumer = self.consumer.name(), "a delivery was not settled in time");
                Status::Retry
            }
        }
    }

    /// Publishes a message that is not an event to the dead-letter topic, with the reason.
    async fn bury(&self, topic: Topic, malformed: &Malformed) -> Status {
        let consumer = self.consumer.name();
        tracing::warn!(consumer, %topic, reason = malformed.reason, "malformed message");
        // The same message is the same dead letter each time that it comes.
        let name = format!("{consumer}\n{topic}\n{}", malformed.hash);
        let letter = json!({
            "specversion": "1.0",
            "id": Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()),
            "source": format!("/todoplatform.dev/consumers/{consumer}"),
            "type": "dev.todoplatform.undeliverable.v1",
            "datacontenttype": "application/json",
            "data": {
                "consumer": consumer,
                "topic": topic.as_str(),
                "reason": malformed.reason,
                "received": malformed.received,
                "bytes": malformed.bytes,
            },
        });
        let message = Message {
            content_type: MEDIA_TYPE,
            body: letter.to_string().into(),
            metadata: BTreeMap::new(),
        };
        let to = self.settings.topic_prefix.dead_letters(consumer);
        match self.client.publish(&self.settings.pubsub, &to, &message).await {
            Ok(()) => Status::Success,
            Err(error) if error.is_retryable() => {
                tracing::warn!(consumer, %error, "the dead-letter topic cannot be reached");
                Status::Retry
            }
            Err(error) => {
                tracing::error!(consumer, %error, "a dead letter goes without its reason");
                Status::Drop
            }
        }
    }

    fn subscriptions(&self) -> Vec<Value> {
        if !self.settings.announce {
            return vec![];
        }
        let prefix = &self.settings.topic_prefix;
        self.consumer
            .topics()
            .iter()
            .map(|&topic| {
                json!({
                    "pubsubname": self.settings.pubsub,
                    "topic": prefix.topic(topic),
                    "routes": {"default": route(topic)},
                    "metadata": {"rawPayload": "true"},
                    "deadLetterTopic": prefix.dead_letters(self.consumer.name()),
                    "bulkSubscribe": {
                        "enabled": true,
                        "maxMessagesCount": self.settings.bulk_messages,
                        "maxAwaitDurationMs": self.settings.bulk_wait.as_millis(),
                    },
                })
            })
            .collect()
    }
}

async fn deliver(State(host): State<Arc<SubscriptionHost>>, Path(topic): Path<String>, body: Bytes) -> Response {
    let Some(topic) = host.topic(&topic) else {
        // A 404 would tell the sidecar to drop the message for somebody's wrong manifest.
        tracing::error!(
            consumer = host.consumer.name(),
            topic,
            "delivered a topic that nobody subscribes to"
        );
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let Some(delivery) = Delivery::read(&body) else {
        tracing::error!(consumer = host.consumer.name(), %topic, "a bulk that this version cannot read");
        return StatusCode::BAD_REQUEST.into_response();
    };
    drop(body);
    let statuses = host.settle(topic, &delivery).await;
    for status in &statuses {
        metrics::counter!(
            "todo_delivered_messages_total",
            "consumer" => host.consumer.name(), "topic" => topic.as_str(), "status" => status.as_str()
        )
        .increment(1);
    }
    Json(delivery.answer(&statuses)).into_response()
}

async fn subscriptions(State(host): State<Arc<SubscriptionHost>>) -> Json<Vec<Value>> {
    Json(host.subscriptions())
}
