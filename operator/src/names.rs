//! The names and labels of everything that a platform is made of, in one place.
//!
//! A name is made of the platform's name and what the object is for, so that it can be told before the object is there,
//! and is the same after a crash.

use std::collections::BTreeMap;
use std::fmt;

use kube::ResourceExt as _;
use todo_crds::{Role, TodoPlatform};

/// Who writes: the field manager of every apply, and what stands in `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "todo-operator";
/// On an applied object: the hash of what was applied.
pub const APPLIED: &str = "todoplatform.dev/applied";
/// On a platform: the finalizer while it has something outside its namespace.
pub const FINALIZER: &str = "todoplatform.dev/cleanup";
/// On a platform: any new value asks for a new internal key. On the key's Secret: the value that was answered last.
pub const ROTATE_INTERNAL_KEY: &str = "todoplatform.dev/rotate-internal-key";
/// On every child: the platform's name.
pub const PLATFORM_LABEL: &str = "todoplatform.dev/platform";
/// On every child: the platform's namespace, which is not the child's for some.
pub const NAMESPACE_LABEL: &str = "todoplatform.dev/namespace";
/// On pods: `api` when they answer for the API's Service, whichever component they are of.
pub const SERVES_LABEL: &str = "todoplatform.dev/serves";

/// What runs as pods of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// Without Kafka: the API and every worker role in each pod.
    All,
    /// The API.
    Api,
    /// A worker.
    Worker(Role),
}

impl Component {
    /// Every component that a platform may have, in the order of the status.
    pub fn every() -> impl Iterator<Item = Self> {
        [Self::All, Self::Api]
            .into_iter()
            .chain(Role::ALL.into_iter().map(Self::Worker))
    }

    /// The name, as in labels, in the status, and after the platform's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Api => "api",
            Self::Worker(role) => role.as_str(),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The names of one platform's children.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names {
    /// The platform's namespace.
    pub namespace: String,
    /// The platform's name.
    pub platform: String,
}

impl Names {
    /// Those of `platform`, which comes from a cluster and so has a namespace.
    pub fn of(platform: &TodoPlatform) -> Self {
        Self {
            namespace: platform.namespace().unwrap_or_default(),
            platform: platform.name_any(),
        }
    }

    fn with(&self, rest: impl fmt::Display) -> String {
        format!("{}-{rest}", self.platform)
    }

    /// A component's Deployment, account, autoscaler and budget; over Dapr also its app id.
    pub fn component(&self, component: Component) -> String {
        self.with(component)
    }

    /// The Service that people's requests and those of the operator go to.
    pub fn api_service(&self) -> String {
        self.with("api")
    }

    /// The ConfigMap of the settings that every process reads.
    pub fn settings(&self) -> String {
        self.with("settings")
    }

    /// The Secret of the internal API's key.
    pub fn internal_key(&self) -> String {
        self.with("internal-key")
    }

    /// The Secret of tokens, when the manifest names neither one nor an issuer.
    pub fn token(&self) -> String {
        self.with("token")
    }

    /// The Secret of what a sidecar shows its app.
    pub fn app_token(&self) -> String {
        self.with("app-token")
    }

    /// The Secret of what an app shows its sidecar.
    pub fn dapr_token(&self) -> String {
        self.with("dapr-token")
    }

    /// The migration's Job of a release; `hash` is of all that tells releases apart.
    pub fn migration(&self, hash: &str) -> String {
        self.with(format_args!("migrate-{hash}"))
    }

    /// The migration's account.
    pub fn migration_account(&self) -> String {
        self.with("migrate")
    }

    /// The platform's own database: Cluster or StatefulSet, Service, Secret, account.
    pub fn database(&self) -> String {
        self.with("db")
    }

    /// The Secret with what sidecars log in to Kafka with: a copy of what Strimzi made in its own namespace.
    pub fn kafka(&self) -> String {
        self.with("kafka")
    }

    /// Dapr's component of events.
    pub fn pubsub(&self) -> String {
        self.with("pubsub")
    }

    /// Dapr's component of state.
    pub fn state(&self) -> String {
        self.with("state")
    }

    /// Dapr's resiliency and configuration.
    pub fn dapr(&self) -> String {
        self.platform.clone()
    }

    /// Dapr's subscription of a consumer to a topic.
    pub fn subscription(&self, consumer: Role, topic: &str) -> String {
        self.with(format_args!("{consumer}-{topic}"))
    }

    /// A topic, by its name in the events' own words: on the brokers, and as `KafkaTopic`.
    pub fn topic(&self, topic: &str) -> String {
        self.with(topic)
    }

    /// What stands before every topic's name on the brokers.
    pub fn topic_prefix(&self) -> String {
        self.with("")
    }

    /// The topic of what a consumer could not take.
    pub fn dead_letters(&self, consumer: Role) -> String {
        self.with(format_args!("{consumer}-dead-letters"))
    }

    /// The user at the brokers. Its namespace is shared, so the platform's stands before its name.
    pub fn kafka_user(&self) -> String {
        format!("{}-{}", self.namespace, self.platform)
    }

    /// A network policy, by what it is for.
    pub fn policy(&self, of: impl fmt::Display) -> String {
        self.with(of)
    }

    /// What scrapes and warns.
    pub fn monitoring(&self) -> String {
        self.platform.clone()
    }

    /// The ConfigMap of dashboards.
    pub fn dashboards(&self) -> String {
        self.with("dashboards")
    }

    /// The labels of every child.
    pub fn labels(&self) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/name", "todo-platform"),
            ("app.kubernetes.io/instance", &self.platform),
            ("app.kubernetes.io/managed-by", MANAGER),
            (PLATFORM_LABEL, &self.platform),
            (NAMESPACE_LABEL, &self.namespace),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// What selects a component's pods. It never changes in a platform's life.
    pub fn selector(&self, component: Component) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/instance", self.platform.as_str()),
            ("app.kubernetes.io/component", component.as_str()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}
