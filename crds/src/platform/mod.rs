//! `TodoPlatform`: one task-management platform, as its owner writes it down.
//!
//! Here are the fields, their defaults, their bounds and the CEL rules that tie fields together: all that ends up in
//! the CRD. What CEL cannot say is in `validate`; what the fields mean for a process is in `settings`.
//! Larger parts have a file each: `kafka` (events), `services` (Dapr, mail, push), `workload` (replicas and resources of
//! the API and the workers), `operations` (upgrades, metrics, logs), `status` (what the operator writes).

#![allow(clippy::duplicated_attributes, reason = "each printer column has a name and a type")]
#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a function, where nothing is reachable"
)]

mod kafka;
mod operations;
mod services;
mod status;
mod workload;

pub use kafka::{
    ClusterRef, ExternalKafka, KafkaSpec, KafkaUser, Sasl, SaslMechanism, StrimziKafka, Topic, TopicSpec, TopicsSpec,
};
pub use operations::{LogFormat, MaintenanceWindow, ObservabilitySpec, UpgradeSpec, UpgradeStrategy};
pub(crate) use services::ADDRESS_PATTERN;
pub use services::{
    DaprSpec, Email, NotificationsSpec, PostgresqlStore, RedisStore, Smtp, StateStore, Tracing, WebPush,
};
pub use status::{ComponentStatus, Endpoints, Phase, TodoPlatformStatus, TopicStatus, VersionStatus};
pub use workload::{
    ApiAutoscaling, ApiLimits, ApiSpec, GatewayRef, HttpRoute, Ingress, RateLimit, ResourceList, Resources,
    WorkerAutoscaling, WorkerSpec, WorkersSpec,
};

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::NAME_PATTERN;

/// A semantic version without build metadata, which an image's tag cannot hold.
pub(crate) const VERSION_PATTERN: &str =
    r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$";
/// An image repository; the registry may have a port.
pub(crate) const REPOSITORY_PATTERN: &str = "^[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*$";
/// An image digest.
pub(crate) const DIGEST_PATTERN: &str = "^sha256:[a-f0-9]{64}$";
/// A key of a Secret.
pub(crate) const KEY_PATTERN: &str = "^[-._a-zA-Z0-9]+$";
/// The beginning of an issuer.
pub(crate) const URL_PATTERN: &str = "^https?://";

/// A task-management platform: the task API, the workers behind it, the events between them, and where data lives.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "todoplatform.dev",
    version = "v1alpha1",
    kind = "TodoPlatform",
    plural = "todoplatforms",
    shortname = "todo",
    category = "todoplatform",
    namespaced,
    status = "TodoPlatformStatus",
    derive = "PartialEq",
    doc = "A task-management platform: the task API, the workers behind it, the events between them, and where data lives.",
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')")
        .message("metadata.name must be 1 to 40 lower-case letters, digits and hyphens, and begin with a letter: the names of everything that the platform is made of begin with it"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version.running", description = "The version that runs."),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.version", description = "The version asked for.", priority = 1),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Where the platform is on its way."),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether every component is available."),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", description = "Why, in words.", priority = 1),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.endpoints.external", description = "Where people reach it."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Since when it exists.")
)]
#[serde(rename_all = "camelCase")]
pub struct TodoPlatformSpec {
    /// The version to run, as semantic version without a leading "v", for example "1.4.0".
    /// It is also the image's tag, unless `image.digest` is given. On one machine the binary that was started is what runs.
    #[schemars(length(min = 1, max = 64), regex(pattern = VERSION_PATTERN))]
    pub version: String,

    /// The container image of all roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub image: Option<ImageSpec>,

    /// What happens to topics and data when this resource is deleted. `Retain` keeps them.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// While true the operator looks and reports, and changes nothing.
    #[serde(default)]
    pub paused: bool,

    /// Where tasks live. Without `urlSecretRef` the platform gets a PostgreSQL of its own.
    #[serde(default)]
    pub database: DatabaseSpec,

    /// Events over Kafka: exactly one of `strimzi` and `external`. Without `kafka` events stay within the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub kafka: Option<KafkaSpec>,

    /// The Dapr sidecar's building blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub dapr: Option<DaprSpec>,

    /// Who may call the API: at most one of `oidc` and `secretRef`. With neither, a secret is made for the platform.
    #[serde(default)]
    pub auth: AuthSpec,

    /// The HTTP API.
    #[serde(default)]
    pub api: ApiSpec,

    /// The background workers, by role.
    #[serde(default)]
    pub workers: WorkersSpec,

    /// How people are reached beyond the feed inside the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub notifications: Option<NotificationsSpec>,

    /// How a new version is rolled out.
    #[serde(default)]
    pub upgrade: UpgradeSpec,

    /// Metrics, alerts, dashboards and logs.
    #[serde(default)]
    pub observability: ObservabilitySpec,

    /// Whether the platform's pods accept only the traffic that the platform is made of.
    #[serde(default)]
    pub network_policy: bool,
}

impl TodoPlatformSpec {
    /// A platform of this version with every default.
    pub fn of_version(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            image: None,
            deletion_policy: DeletionPolicy::default(),
            paused: false,
            database: DatabaseSpec::default(),
            kafka: None,
            dapr: None,
            auth: AuthSpec::default(),
            api: ApiSpec::default(),
            workers: WorkersSpec::default(),
            notifications: None,
            upgrade: UpgradeSpec::default(),
            observability: ObservabilitySpec::default(),
            network_policy: false,
        }
    }
}

/// The container image of all roles.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ImageSpec {
    /// The repository without tag and digest. Without it: the repository of the operator's own image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = REPOSITORY_PATTERN))]
    pub repository: Option<String>,

    /// The image's digest ("sha256:" and 64 hexadecimal digits). It wins over `version` as the reference to pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = DIGEST_PATTERN))]
    pub digest: Option<String>,

    /// When nodes pull the image.
    #[serde(default)]
    pub pull_policy: PullPolicy,

    /// Secrets in the same namespace that open the registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub pull_secrets: Vec<SecretRef>,
}

/// When nodes pull the image.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// When the node does not have it.
    #[default]
    IfNotPresent,
    /// At each start of a pod.
    Always,
    /// Never: the node must have it.
    Never,
}

/// What happens to topics and data when the platform is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// They stay.
    #[default]
    Retain,
    /// They go too.
    Delete,
}

/// Where tasks live.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.urlSecretRef) && has(self.storage))")
    .message("storage is for the PostgreSQL that the platform makes itself: give either urlSecretRef or storage"))]
pub struct DatabaseSpec {
    /// The Secret's key that holds the connection URL (`postgres://…`) of a PostgreSQL that exists, version 15 or newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub url_secret_ref: Option<SecretKeyRef>,

    /// The volume of the PostgreSQL that the platform makes when `urlSecretRef` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub storage: Option<StorageSpec>,

    /// The connection pool of each process.
    #[serde(default)]
    pub pool: PoolSpec,
}

/// The volume of the platform's own PostgreSQL.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// Its size as a Kubernetes quantity, for example "10Gi".
    #[schemars(length(min = 1, max = 32))]
    pub size: String,

    /// The storage class. Without it: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
}

/// The connection pool of each process.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PoolSpec {
    /// The most connections that one process opens. All roles of a process share them.
    #[serde(default = "PoolSpec::default_max")]
    #[schemars(range(min = 4, max = 500))]
    pub max: u32,
}

impl PoolSpec {
    fn default_max() -> u32 {
        20
    }
}

impl Default for PoolSpec {
    fn default() -> Self {
        Self {
            max: Self::default_max(),
        }
    }
}

/// Who may call the API.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.oidc) && has(self.secretRef))")
    .message("give at most one of oidc, secretRef"))]
pub struct AuthSpec {
    /// Tokens of an OIDC provider, checked with the keys that it publishes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub oidc: Option<Oidc>,

    /// The Secret's key that holds the shared secret of HS256 tokens, 32 bytes or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub secret_ref: Option<SecretKeyRef>,
}

/// Tokens of an OIDC provider.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Oidc {
    /// The provider's issuer URL, exactly as it stands in the tokens' `iss`.
    #[schemars(length(min = 1, max = 2048), regex(pattern = URL_PATTERN))]
    pub issuer: String,

    /// What the tokens' `aud` must contain.
    #[schemars(length(min = 1, max = 255))]
    pub audience: String,
}

/// A Secret in the resource's own namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,
}

/// One key of a Secret in the resource's own namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,

    /// The key within it.
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY_PATTERN))]
    pub key: String,
}
