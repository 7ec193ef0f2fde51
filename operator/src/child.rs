//! Children: the objects that a platform is made of, as data.
//!
//! Here: which kinds there are ([`Kind`]), one desired object ([`Child`]), and all of one pass in the order in which they
//! are applied ([`Children`]). Not here: what is in them (`platform::build`), and sending them anywhere (`apply`).

use std::collections::BTreeSet;
use std::fmt;

use kube::core::{ApiResource, GroupVersionKind};
use serde::Serialize;
use serde_json::Value;

use crate::capabilities::Capabilities;

/// A kind of object that a platform may have as a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An account of pods.
    ServiceAccount,
    /// Settings and dashboards.
    ConfigMap,
    /// Keys and passwords.
    Secret,
    /// A stable address of pods.
    Service,
    /// Who may talk to whom.
    NetworkPolicy,
    /// The database for evaluation.
    StatefulSet,
    /// The migration.
    Job,
    /// A component's pods.
    Deployment,
    /// Growth by CPU and memory.
    HorizontalPodAutoscaler,
    /// How many pods an eviction leaves.
    PodDisruptionBudget,
    /// A way in from outside, in the older API.
    Ingress,
    /// A way in from outside, in the Gateway API.
    HttpRoute,
    /// CloudNativePG's database.
    DatabaseCluster,
    /// Dapr's component.
    Component,
    /// Dapr's subscription.
    Subscription,
    /// Dapr's timeouts and retries.
    Resiliency,
    /// Dapr's settings of sidecars.
    Configuration,
    /// Strimzi's topic.
    KafkaTopic,
    /// Strimzi's user.
    KafkaUser,
    /// KEDA's growth by lag.
    ScaledObject,
    /// What KEDA logs in to Kafka with.
    TriggerAuthentication,
    /// The Prometheus operator's scrape.
    PodMonitor,
    /// The Prometheus operator's alerts.
    PrometheusRule,
}

/// Where a kind is found: group, version, kind, plural.
struct Api {
    group: &'static str,
    /// Those that the operator can write, the preferred first. One, for what Kubernetes itself serves.
    versions: &'static [&'static str],
    kind: &'static str,
    plural: &'static str,
    is_optional: bool,
}

const fn own(group: &'static str, kind: &'static str, plural: &'static str) -> Api {
    let versions: &[&str] = match group.as_bytes() {
        b"autoscaling" => &["v2"],
        _ => &["v1"],
    };
    Api {
        group,
        versions,
        kind,
        plural,
        is_optional: false,
    }
}

const fn optional(
    group: &'static str,
    versions: &'static [&'static str],
    kind: &'static str,
    plural: &'static str,
) -> Api {
    Api {
        group,
        versions,
        kind,
        plural,
        is_optional: true,
    }
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 23] = [
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Secret,
        Self::Service,
        Self::NetworkPolicy,
        Self::StatefulSet,
        Self::Job,
        Self::Deployment,
        Self::HorizontalPodAutoscaler,
        Self::PodDisruptionBudget,
        Self::Ingress,
        Self::HttpRoute,
        Self::DatabaseCluster,
        Self::Component,
        Self::Subscription,
        Self::Resiliency,
        Self::Configuration,
        Self::KafkaTopic,
        Self::KafkaUser,
        Self::ScaledObject,
        Self::TriggerAuthentication,
        Self::PodMonitor,
        Self::PrometheusRule,
    ];

    const fn api(self) -> Api {
        match self {
            Self::ServiceAccount => own("", "ServiceAccount", "serviceaccounts"),
            Self::ConfigMap => own("", "ConfigMap", "configmaps"),
            Self::Secret => own("", "Secret", "secrets"),
            Self::Service => own("", "Service", "services"),
            Self::NetworkPolicy => own("networking.k8s.io", "NetworkPolicy", "networkpolicies"),
            Self::StatefulSet => own("apps", "StatefulSet", "statefulsets"),
            Self::Job => own("batch", "Job", "jobs"),
            Self::Deployment => own("apps", "Deployment", "deployments"),
            Self::HorizontalPodAutoscaler => own("autoscaling", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
            Self::PodDisruptionBudget => own("policy", "PodDisruptionBudget", "poddisruptionbudgets"),
            Self::Ingress => own("networking.k8s.io", "Ingress", "ingresses"),
            Self::HttpRoute => optional("gateway.networking.k8s.io", &["v1"], "HTTPRoute", "httproutes"),
            Self::DatabaseCluster => optional("postgresql.cnpg.io", &["v1"], "Cluster", "clusters"),
            Self::Component => optional("dapr.io", &["v1alpha1"], "Component", "components"),
            Self::Subscription => optional("dapr.io", &["v2alpha1"], "Subscription", "subscriptions"),
            Self::Resiliency => optional("dapr.io", &["v1alpha1"], "Resiliency", "resiliencies"),
            Self::Configuration => optional("dapr.io", &["v1alpha1"], "Configuration", "configurations"),
            Self::KafkaTopic => optional("kafka.strimzi.io", &["v1", "v1beta2"], "KafkaTopic", "kafkatopics"),
            Self::KafkaUser => optional("kafka.strimzi.io", &["v1", "v1beta2"], "KafkaUser", "kafkausers"),
            Self::ScaledObject => optional("keda.sh", &["v1alpha1"], "ScaledObject", "scaledobjects"),
            Self::TriggerAuthentication => optional(
                "keda.sh",
                &["v1alpha1"],
                "TriggerAuthentication",
                "triggerauthentications",
            ),
            Self::PodMonitor => optional("monitoring.coreos.com", &["v1"], "PodMonitor", "podmonitors"),
            Self::PrometheusRule => optional("monitoring.coreos.com", &["v1"], "PrometheusRule", "prometheusrules"),
        }
    }

    /// The API group; empty for the core.
    pub const fn group(self) -> &'static str {
        self.api().group
    }

    /// The version that is written when there is a choice.
    pub const fn version(self) -> &'static str {
        self.api().versions[0]
    }

    /// The kind, as in `kind:`.
    pub const fn name(self) -> &'static str {
        self.api().kind
    }

    /// The plural, as in URLs and roles.
    pub const fn plural(self) -> &'static str {
        self.api().plural
    }

    /// The plural with the group behind it, as errors and printers of Kubernetes say it: `deployments.apps`, `secrets`.
    pub fn resource_name(self) -> String {
        match self.group() {
            "" => self.plural().to_owned(),
            group => format!("{}.{group}", self.plural()),
        }
    }

    /// The versions that the operator can write, the preferred first; `None` for what every Kubernetes serves.
    pub const fn optional(self) -> Option<&'static [&'static str]> {
        let api = self.api();
        if api.is_optional { Some(api.versions) } else { None }
    }

    /// Where this cluster serves it; `None` where it does not.
    pub fn resource(self, capabilities: &Capabilities) -> Option<ApiResource> {
        let version = capabilities.version(self)?;
        let kind = GroupVersionKind::gvk(self.group(), version, self.name());
        Some(ApiResource::from_gvk_with_plural(&kind, self.plural()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What names one object in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ChildKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// When a child may be applied. Each waits for those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Stage {
    /// Nothing need be there: accounts, settings, secrets, policies, the database, topics, Dapr's manifests, addresses.
    Base,
    /// The database answers: the migration.
    Migrate,
    /// The migration has succeeded: pods, and what grows and guards them.
    Run,
}

/// One object as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// What names it.
    pub key: ChildKey,
    /// When it may be applied.
    pub stage: Stage,
    /// Whether it outlives the platform.
    pub tenure: Tenure,
    /// How it is written.
    pub write: Write,
    /// The UID of the platform that asks for it. What is kept says it nowhere else: it has no owner.
    pub platform: String,
    /// The whole object, with `apiVersion`, `kind` and `metadata`, and without `status`.
    pub body: Value,
}

/// What becomes of a child when its platform goes or no longer asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Tenure {
    /// It goes with the platform, by owner reference or, in another namespace, by the operator's hand.
    Owned,
    /// It holds data or the key to data: it goes only when the deletion policy says so.
    Kept,
}

/// How a child is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Write {
    /// It is made, and kept as it is built.
    Always,
    /// It is made when it is not there, and left alone when it is: a secret whose value was drawn once.
    Once,
}

/// Every child of a platform, in the order in which they are applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Children {
    built: Vec<Child>,
    kept: BTreeSet<ChildKey>,
    is_partial: bool,
}

impl Children {
    /// Adds one. Two with one key are a mistake in the build.
    pub fn add(&mut self, child: Child) {
        debug_assert!(
            self.built.iter().all(|other| other.key != child.key),
            "{} twice",
            child.key
        );
        let place = self.built.partition_point(|other| other.stage <= child.stage);
        self.built.insert(place, child);
    }

    /// Notes that more is asked for than is here: something that the rest is made of is not known yet.
    pub fn leave_rest(&mut self) {
        self.is_partial = true;
    }

    /// Whether this is all. When it is not, what is in the cluster and not here may be wanted still: nothing is pruned.
    pub fn is_complete(&self) -> bool {
        !self.is_partial
    }

    /// Notes that this object is asked for, whatever it is like: it is not deleted.
    pub fn keep(&mut self, key: ChildKey) {
        self.kept.insert(key);
    }

    /// Whether this object is asked for.
    pub fn asks_for(&self, key: &ChildKey) -> bool {
        self.kept.contains(key) || self.get(key).is_some()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Child> {
        self.built.iter()
    }

    /// The one with this key.
    pub fn get(&self, key: &ChildKey) -> Option<&Child> {
        self.built.iter().find(|child| child.key == *key)
    }
}
