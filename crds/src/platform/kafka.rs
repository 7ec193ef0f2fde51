//! Events over Kafka: whose cluster it is, and the topics in it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use todo_recurrence::span::Span;

use super::{SecretKeyRef, SecretRef};
use crate::schema::optional_span_schema;

/// Events over Kafka.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.strimzi) != has(self.external)")
    .message("give exactly one of strimzi, external"))]
pub struct KafkaSpec {
    /// A Kafka cluster that Strimzi runs in this Kubernetes cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub strimzi: Option<StrimziKafka>,

    /// A Kafka that runs elsewhere: a managed service, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub external: Option<ExternalKafka>,

    /// The platform's topics.
    #[serde(default)]
    pub topics: TopicsSpec,
}

/// A Kafka cluster that Strimzi runs in this Kubernetes cluster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StrimziKafka {
    /// The `Kafka` resource.
    pub cluster: ClusterRef,

    /// The user that the sidecars log in as.
    #[serde(default)]
    pub user: KafkaUser,
}

/// A `Kafka` resource.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Its namespace. Without it: the platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// The user that the sidecars log in as.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(self.create && has(self.secretRef))")
    .message("a user that is created gets its own Secret: set create to false to use secretRef"))]
pub struct KafkaUser {
    /// Whether to make a `KafkaUser` with SCRAM-SHA-512.
    #[serde(default = "KafkaUser::default_create")]
    pub create: bool,

    /// The Secret with `username` and `password` of a user that exists, when `create` is false.
    /// With neither, the sidecars do not log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub secret_ref: Option<SecretRef>,
}

impl KafkaUser {
    fn default_create() -> bool {
        true
    }
}

impl Default for KafkaUser {
    fn default() -> Self {
        Self {
            create: Self::default_create(),
            secret_ref: None,
        }
    }
}

/// A Kafka that runs elsewhere.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.caSecretRef) || self.tls").message("caSecretRef needs tls: true"),
    validation = Rule::new("!has(self.sasl) || self.sasl.mechanism != 'PLAIN' || self.tls")
        .message("PLAIN sends the password in the clear: it needs tls: true")
)]
pub struct ExternalKafka {
    /// The brokers to begin with, each "host:port".
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 253)))]
    pub brokers: Vec<String>,

    /// Whether connections use TLS.
    #[serde(default = "ExternalKafka::default_tls")]
    pub tls: bool,

    /// The Secret's key that holds the certificate authority in PEM. Without it: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub ca_secret_ref: Option<SecretKeyRef>,

    /// How to log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub sasl: Option<Sasl>,

    /// Whether the operator makes and changes the topics. Otherwise they must exist.
    #[serde(default)]
    pub manage_topics: bool,
}

impl ExternalKafka {
    fn default_tls() -> bool {
        true
    }
}

/// How to log in.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Sasl {
    /// The mechanism.
    pub mechanism: SaslMechanism,

    /// The Secret with `username` and `password`.
    pub secret_ref: SecretRef,
}

/// A SASL mechanism that the sidecar speaks.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// Name and password as they are: only over TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Salted challenge and response with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Salted challenge and response with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// The platform's topics.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.taskEvents.partitions) ? self.taskEvents.partitions : 12) >= (has(oldSelf.taskEvents.partitions) ? oldSelf.taskEvents.partitions : 12)")
        .message("taskEvents: kafka cannot take partitions away: keep the number (default 12) or raise it"),
    validation = Rule::new("(has(self.taskUpdates.partitions) ? self.taskUpdates.partitions : 12) >= (has(oldSelf.taskUpdates.partitions) ? oldSelf.taskUpdates.partitions : 12)")
        .message("taskUpdates: kafka cannot take partitions away: keep the number (default 12) or raise it"),
    validation = Rule::new("(has(self.reminders.partitions) ? self.reminders.partitions : 6) >= (has(oldSelf.reminders.partitions) ? oldSelf.reminders.partitions : 6)")
        .message("reminders: kafka cannot take partitions away: keep the number (default 6) or raise it")
)]
pub struct TopicsSpec {
    /// What happened to tasks. Default: 12 partitions, 3 replicas, 30d.
    #[serde(default)]
    pub task_events: TopicSpec,

    /// Changes for live clients. Default: 12 partitions, 3 replicas, 1d.
    #[serde(default)]
    pub task_updates: TopicSpec,

    /// Reminders that are due. Default: 6 partitions, 3 replicas, 7d.
    #[serde(default)]
    pub reminders: TopicSpec,
}

impl TopicsSpec {
    /// The three topics, in the order of the fields, with defaults filled in.
    pub fn resolved(&self) -> [Topic; 3] {
        [
            self.task_events.or("task-events", 12, Span::days(30)),
            self.task_updates.or("task-updates", 12, Span::days(1)),
            self.reminders.or("reminders", 6, Span::days(7)),
        ]
    }
}

/// One topic. What is absent has the topic's default.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TopicSpec {
    /// How many partitions. They can be added, never taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub partitions: Option<u32>,

    /// On how many brokers each message is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 7))]
    pub replicas: Option<u32>,

    /// How long messages are kept, for example "30d".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_span_schema")]
    pub retention: Option<Span>,
}

impl TopicSpec {
    fn or(&self, name: &'static str, partitions: u32, retention: Span) -> Topic {
        Topic {
            name,
            partitions: self.partitions.unwrap_or(partitions),
            replicas: self.replicas.unwrap_or(3),
            retention: self.retention.unwrap_or(retention),
        }
    }
}

/// A topic with its defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Topic {
    /// The name without the platform's prefix.
    pub name: &'static str,
    /// How many partitions.
    pub partitions: u32,
    /// On how many brokers each message is kept.
    pub replicas: u32,
    /// How long messages are kept.
    pub retention: Span,
}
