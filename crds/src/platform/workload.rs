//! The API and the workers as workloads: how many, how big, how they grow, and the API's own limits.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The HTTP API.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.replicas) && has(self.autoscaling))")
        .message("give either replicas or autoscaling: the autoscaler owns the number"),
    validation = Rule::new("!(has(self.ingress) && has(self.httpRoute))")
        .message("give at most one of ingress, httpRoute")
)]
pub struct ApiSpec {
    /// How many pods. 1 when neither this nor `autoscaling` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: Option<u32>,

    /// Grow and shrink by load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub autoscaling: Option<ApiAutoscaling>,

    /// CPU and memory of each pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub resources: Option<Resources>,

    /// How the API is reached from outside, by an `Ingress`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub ingress: Option<Ingress>,

    /// How the API is reached from outside, by an `HTTPRoute` of the Gateway API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub http_route: Option<HttpRoute>,

    /// While true there is no API; data and schedules stay.
    #[serde(default)]
    pub suspend: bool,

    /// How large requests and answers may be.
    #[serde(default)]
    pub limits: ApiLimits,

    /// How often one user may call.
    #[serde(default)]
    pub rate_limit: RateLimit,
}

/// How the API grows and shrinks.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.min <= self.max").message("min must not be above max"),
    validation = Rule::new("has(self.targetCPU) || has(self.targetMemory)")
        .message("give at least one of targetCPU, targetMemory")
)]
pub struct ApiAutoscaling {
    /// The fewest pods.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub min: u32,

    /// The most pods.
    #[schemars(range(min = 1, max = 1000))]
    pub max: u32,

    /// The CPU use to aim for, in per cent of the request.
    #[serde(default, rename = "targetCPU", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub target_cpu: Option<u32>,

    /// The memory use to aim for, in per cent of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub target_memory: Option<u32>,
}

/// How a worker grows and shrinks.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.min <= self.max").message("min must not be above max"),
    validation = Rule::new("has(self.targetCPU) || has(self.targetMemory) || has(self.targetLag)")
        .message("give at least one of targetCPU, targetMemory, targetLag")
)]
pub struct WorkerAutoscaling {
    /// The fewest pods.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub min: u32,

    /// The most pods.
    #[schemars(range(min = 1, max = 1000))]
    pub max: u32,

    /// The CPU use to aim for, in per cent of the request.
    #[serde(default, rename = "targetCPU", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub target_cpu: Option<u32>,

    /// The memory use to aim for, in per cent of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub target_memory: Option<u32>,

    /// How many events may wait for each pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub target_lag: Option<u32>,
}

fn one() -> u32 {
    1
}

/// CPU and memory of each pod.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the pod is scheduled with.
    #[serde(default)]
    pub requests: ResourceList,

    /// What the pod may use at most.
    #[serde(default)]
    pub limits: ResourceList,
}

/// Amounts as Kubernetes quantities.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ResourceList {
    /// CPU, for example "100m" or 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,

    /// Memory, for example "64Mi".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// How the API is reached from outside, by an `Ingress`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// The host name that people use.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,

    /// The ingress class. Without it: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,

    /// The Secret with the certificate. Without it: plain HTTP up to the ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_secret_name: Option<String>,
}

/// How the API is reached from outside, by an `HTTPRoute` of the Gateway API.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    /// The host name that people use.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,

    /// The gateways that take requests for it.
    #[schemars(length(min = 1, max = 8))]
    pub parent_refs: Vec<GatewayRef>,
}

/// A `Gateway` resource.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Its namespace. Without it: the platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,

    /// The listener in it. Without it: every one that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

/// How large requests and answers may be.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ApiLimits {
    /// The most items on one page of a list.
    #[serde(default = "ApiLimits::default_max_page_size")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_page_size: u32,

    /// The largest request body, in bytes.
    #[serde(default = "ApiLimits::default_max_body_bytes")]
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub max_body_bytes: u32,
}

impl ApiLimits {
    fn default_max_page_size() -> u32 {
        200
    }

    fn default_max_body_bytes() -> u32 {
        256 * 1024
    }
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            max_page_size: Self::default_max_page_size(),
            max_body_bytes: Self::default_max_body_bytes(),
        }
    }
}

/// How often one user may call. Above it the answer is 429 with `Retry-After`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Requests per second and user, over time.
    #[serde(default = "RateLimit::default_per_second")]
    #[schemars(range(min = 1, max = 100_000))]
    pub per_second: u32,

    /// Requests that one user may make at once after a pause.
    #[serde(default = "RateLimit::default_burst")]
    #[schemars(range(min = 1, max = 100_000))]
    pub burst: u32,
}

impl RateLimit {
    fn default_per_second() -> u32 {
        50
    }

    fn default_burst() -> u32 {
        100
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            per_second: Self::default_per_second(),
            burst: Self::default_burst(),
        }
    }
}

/// The background workers, by role.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WorkersSpec {
    /// Carries events from the outbox to the bus.
    #[serde(default)]
    pub relay: WorkerSpec,

    /// Makes the tasks of schedules and the next task of recurring ones.
    #[serde(default)]
    pub recurring: WorkerSpec,

    /// Sends reminders when they are due.
    #[serde(default)]
    pub reminders: WorkerSpec,

    /// Brings notifications to people.
    #[serde(default)]
    pub notifications: WorkerSpec,

    /// Writes down who changed what.
    #[serde(default)]
    pub audit: WorkerSpec,

    /// Counts and sums.
    #[serde(default)]
    pub analytics: WorkerSpec,
}

/// One role's worker.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.replicas) && has(self.autoscaling))")
    .message("give either replicas or autoscaling: the autoscaler owns the number"))]
pub struct WorkerSpec {
    /// How many pods. 1 when neither this nor `autoscaling` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: Option<u32>,

    /// Grow and shrink by load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub autoscaling: Option<WorkerAutoscaling>,

    /// CPU and memory of each pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub resources: Option<Resources>,

    /// While true the role does not run; what it would do waits, nothing is lost.
    #[serde(default)]
    pub suspend: bool,
}
