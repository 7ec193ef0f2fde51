//! Dapr resources in YAML: the platform's own, and others for what those do not show.

use std::path::PathBuf;

/// The folder `dapr/components`.
pub(crate) fn components() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/components").into()
}

/// One of the platform's own resources, such as `local/pubsub.yaml`, as it is.
pub(crate) fn own(file: &str) -> String {
    std::fs::read_to_string(components().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Kafka as the component `pubsub`, for any app and topic. It wants `TODO_KAFKA_BROKERS`, as the platform's own.
pub(crate) const PUBSUB: &str = "apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: pubsub}
spec:
  type: pubsub.kafka
  version: v1
  metadata:
    - {name: brokers, envRef: TODO_KAFKA_BROKERS}
    - {name: authType, value: none}
    - {name: version, value: 3.9.0}
    - {name: initialOffset, value: oldest}
    - {name: consumeRetryInterval, value: 200ms}
    - {name: maxMessageBytes, value: '1000000'}";

/// Deliveries are made again for ever, four times a second.
pub(crate) const RETRIES: &str = "apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: retries}
spec:
  policies:
    retries:
      for-ever: {policy: constant, duration: 250ms, maxRetries: -1}
  targets:
    components:
      pubsub:
        inbound: {retry: for-ever}";

/// Whether messages come one by one or together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Single,
    Bulk,
}

/// A subscription of `topic`, delivered at this path.
pub(crate) fn subscription(topic: &str, path: &str, delivery: Delivery, dead_letter_topic: &str) -> String {
    let bulk = match delivery {
        Delivery::Single => "",
        // Long, so that what is published together is delivered together.
        Delivery::Bulk => "\n  bulkSubscribe: {enabled: true, maxMessagesCount: 100, maxAwaitDurationMs: 400}",
    };
    format!(
        "apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {{name: {topic}}}
spec:
  pubsubname: pubsub
  topic: {topic}
  routes: {{default: {path}}}
  deadLetterTopic: {dead_letter_topic}{bulk}"
    )
}

/// A subscription of a topic that may have anything in it, delivered at this path one by one: the bytes are in
/// `data_base64`.
pub(crate) fn raw_subscription(topic: &str, path: &str) -> String {
    format!(
        "apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {{name: {topic}}}
spec:
  pubsubname: pubsub
  topic: {topic}
  routes: {{default: {path}}}
  metadata: {{rawPayload: 'true'}}"
    )
}
