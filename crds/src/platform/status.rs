//! What the operator writes about a platform, for people to read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator saw and did.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TodoPlatformStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Where the platform is on its way, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub phase: Option<Phase>,

    /// The versions that run, are asked for, and ran before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub version: Option<VersionStatus>,

    /// The details, by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,

    /// The API and the workers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub components: Vec<ComponentStatus>,

    /// The topics, when events go over Kafka.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub topics: Vec<TopicStatus>,

    /// Where the API answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub endpoints: Option<Endpoints>,
}

/// Where a platform is on its way.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is there yet.
    Pending,
    /// Parts are being made.
    Progressing,
    /// Everything is as asked for.
    Ready,
    /// A new version is rolling out.
    Upgrading,
    /// The version before is rolling back in.
    RollingBack,
    /// Something does not work; the conditions say what.
    Degraded,
    /// `spec.paused` is true.
    Paused,
    /// It is being taken down.
    Deleting,
}

/// The versions that run, are asked for, and ran before.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VersionStatus {
    /// What runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<String>,

    /// What is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,

    /// What ran before, and would run again after a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

/// The API or one worker.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ComponentStatus {
    /// "api", or the worker's role.
    pub name: String,

    /// How many pods there should be.
    pub desired: u32,

    /// How many are ready.
    pub ready: u32,

    /// The version that they run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// One topic.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TopicStatus {
    /// Its name on the brokers.
    pub name: String,

    /// How many partitions it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,

    /// Whether it is as asked for.
    pub ready: bool,
}

/// Where the API answers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// Within the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,

    /// From outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
}
