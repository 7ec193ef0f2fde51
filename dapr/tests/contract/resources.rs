//! Dapr resources in YAML: the platform's own, and others for what those do not show.

use std::path::PathBuf;

use crate::daprd::Options;
use crate::process::folder;

/// What the file of secrets says.
pub(crate) const SECRETS: &str = r#"{"database": {"password": "hunter2", "user": "todo"}}"#;

/// A sidecar of the platform with its own manifests, as they are.
pub(crate) fn own_manifests(app_id: &str) -> Options {
    let secrets = folder().join("secrets.json");
    std::fs::write(&secrets, SECRETS).unwrap();
    Options::named(app_id)
        .folder(components().join("local"))
        .variable("TODO_SECRETS_FILE", secrets.display().to_string())
}

/// The folder `dapr/components`.
pub(crate) fn components() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/components").into()
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
