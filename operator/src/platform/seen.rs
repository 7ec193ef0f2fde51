//! What the cluster says about a platform's children, read out of the objects as they are stored.
//!
//! Data in, data out. Every reader takes a live object as JSON and answers what a condition or a gate asks for.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use todo_crds::platform::SecretKeyRef;

use super::Release;
use super::build::DATABASE_URL;
use crate::child::{ChildKey, Kind};
use crate::live::Observed;
use crate::names::{Component, Names};

/// The children of one platform as the cluster has them. Each is read when it is looked at, and once.
#[derive(Clone, Debug, Default)]
pub struct Seen(BTreeMap<ChildKey, Arc<Child>>);

#[derive(Debug)]
struct Child {
    /// As it is kept; `None` for one that was given as it is.
    kept: Option<Arc<Observed>>,
    value: OnceLock<Value>,
}

impl Child {
    fn value(&self) -> &Value {
        let read = || self.kept.as_ref().map(|kept| kept.value()).unwrap_or_default();
        self.value.get_or_init(read)
    }

    fn is(&self, kept: &Arc<Observed>) -> bool {
        self.kept.as_ref().is_some_and(|own| Arc::ptr_eq(own, kept))
    }
}

impl FromIterator<(ChildKey, Value)> for Seen {
    fn from_iter<T: IntoIterator<Item = (ChildKey, Value)>>(objects: T) -> Self {
        let child = |value| Child {
            kept: None,
            value: OnceLock::from(value),
        };
        let objects = objects.into_iter();
        Self(objects.map(|(key, value)| (key, Arc::new(child(value)))).collect())
    }
}

impl FromIterator<Arc<Observed>> for Seen {
    fn from_iter<T: IntoIterator<Item = Arc<Observed>>>(objects: T) -> Self {
        Self::default().now(objects)
    }
}

impl Seen {
    /// The same platform's children at a later time. What has not changed is not read again.
    #[must_use]
    pub fn now(&self, objects: impl IntoIterator<Item = Arc<Observed>>) -> Self {
        let child = |kept: Arc<Observed>| {
            let key = (*kept.key).clone();
            let known = self.0.get(&key).filter(|known| known.is(&kept)).cloned();
            let anew = || {
                Arc::new(Child {
                    kept: Some(kept),
                    value: OnceLock::new(),
                })
            };
            (key, known.unwrap_or_else(anew))
        };
        Self(objects.into_iter().map(child).collect())
    }

    /// The object with this key.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Value> {
        let key = ChildKey {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        self.0.get(&key).map(|child| child.value())
    }

    /// Every object of this kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = (&ChildKey, &Value)> {
        let objects = self.0.iter().filter(move |(key, _)| key.kind == kind);
        objects.map(|(key, child)| (key, child.value()))
    }

    /// A component's Deployment.
    pub fn deployment(&self, names: &Names, component: Component) -> Option<DeploymentFacts> {
        let name = names.component(component);
        self.get(Kind::Deployment, &names.namespace, &name)
            .map(DeploymentFacts::read)
    }

    /// The release that some component's pods are asked to run, the API's before the workers'.
    pub fn running(&self, names: &Names) -> Option<Release> {
        Component::every()
            .filter_map(|component| self.get(Kind::Deployment, &names.namespace, &names.component(component)))
            .find_map(release)
    }
}

fn release(deployment: &Value) -> Option<Release> {
    let template = deployment.pointer("/spec/template")?;
    let version = template
        .pointer("/metadata/labels/app.kubernetes.io~1version")?
        .as_str()?;
    let image = template.pointer("/spec/containers/0/image")?.as_str()?;
    Some(Release {
        version: version.to_owned(),
        image: image.to_owned(),
        database: database_url(template),
    })
}

/// Where pods find the database's URL.
fn database_url(template: &Value) -> Option<SecretKeyRef> {
    let volumes = template.pointer("/spec/volumes")?.as_array()?.iter();
    let sources = volumes.filter_map(|volume| volume.pointer("/projected/sources")?.as_array());
    sources.flatten().find_map(|source| {
        let item = source.pointer("/secret/items/0")?;
        (item["path"] == DATABASE_URL).then_some(())?;
        Some(SecretKeyRef {
            name: source.pointer("/secret/name")?.as_str()?.to_owned(),
            key: item["key"].as_str()?.to_owned(),
        })
    })
}

/// Where a Deployment is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeploymentFacts {
    /// How many pods are asked for.
    pub desired: u32,
    /// How many of the newest template there are.
    pub updated: u32,
    /// How many are ready, of any template.
    pub ready: u32,
    /// How many there are, of any template.
    pub total: u32,
    /// What the newest template runs.
    pub release: Option<Release>,
    /// Whether the counts are about the newest spec.
    pub is_current: bool,
    /// Why it does not go on, when Kubernetes has given up waiting.
    pub stuck: Option<String>,
}

impl DeploymentFacts {
    fn read(deployment: &Value) -> Self {
        let count = |path: &str| {
            let count = deployment.pointer(path).and_then(Value::as_u64);
            count.and_then(|count| u32::try_from(count).ok())
        };
        let generation = deployment.pointer("/metadata/generation").and_then(Value::as_i64);
        let observed = deployment.pointer("/status/observedGeneration").and_then(Value::as_i64);
        let progressing = condition(deployment, "Progressing");
        Self {
            desired: count("/spec/replicas").unwrap_or(1),
            updated: count("/status/updatedReplicas").unwrap_or(0),
            ready: count("/status/readyReplicas").unwrap_or(0),
            total: count("/status/replicas").unwrap_or(0),
            release: release(deployment),
            is_current: observed.is_some() && observed >= generation,
            stuck: progressing
                .filter(ConditionFacts::is_false)
                .map(|condition| condition.message.to_owned()),
        }
    }

    /// Whether every pod that is asked for is of the newest template and ready, and no other is left.
    pub fn is_settled(&self) -> bool {
        self.is_current && self.updated == self.desired && self.ready >= self.desired && self.total == self.desired
    }
}

/// A condition of any object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConditionFacts<'a> {
    /// `True`, `False` or `Unknown`.
    pub status: &'a str,
    /// The reason, one word.
    pub reason: &'a str,
    /// The message.
    pub message: &'a str,
}

impl ConditionFacts<'_> {
    /// Whether it is true.
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }

    /// Whether it is false, and not only unknown.
    pub fn is_false(&self) -> bool {
        self.status == "False"
    }
}

/// The condition of this type in `status.conditions`.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<ConditionFacts<'a>> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default();
    Some(ConditionFacts {
        status: text("status"),
        reason: text("reason"),
        message: text("message"),
    })
}

/// Where a Job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobFacts {
    /// It has not ended.
    Running {
        /// How many of its pods have failed so far.
        failed: u64,
        /// Whether a pod of it runs: its image is there, and what it mounts.
        runs: bool,
    },
    /// It succeeded.
    Succeeded,
    /// It will not be tried again.
    Failed(String),
}

impl JobFacts {
    /// Reads a Job.
    pub fn read(job: &Value) -> Self {
        let is_true = |kind: &str| condition(job, kind).filter(ConditionFacts::is_true);
        if is_true("Complete").is_some() {
            return Self::Succeeded;
        }
        if let Some(failed) = is_true("Failed") {
            return Self::Failed(format!("{}: {}", failed.reason, failed.message));
        }
        let count = |path: &str| job.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        Self::Running {
            failed: count("/status/failed"),
            runs: count("/status/ready") > 0,
        }
    }
}

/// Where a `KafkaTopic` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicFacts {
    /// It is as asked for.
    Ready,
    /// Strimzi has not looked at the newest spec yet.
    Waiting,
    /// Strimzi cannot or will not.
    NotReady(String),
}

impl TopicFacts {
    /// Reads a `KafkaTopic`. A `Ready` that is about an older spec says nothing.
    pub fn read(topic: &Value) -> Self {
        let generation = topic.pointer("/metadata/generation").and_then(Value::as_i64);
        let observed = topic.pointer("/status/observedGeneration").and_then(Value::as_i64);
        if observed != generation {
            return Self::Waiting;
        }
        match condition(topic, "Ready") {
            Some(ready) if ready.is_true() => Self::Ready,
            Some(ready) => Self::NotReady(format!("{}: {}", ready.reason, ready.message)),
            None => Self::Waiting,
        }
    }
}

/// Whether the platform's own database takes connections, by what its StatefulSet or its `Cluster` says.
pub fn database_is_ready(object: &Value) -> bool {
    let ready = |path: &str| object.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    ready("/status/readyReplicas") > 0 || ready("/status/readyInstances") > 0
}
