//! What every part of the build begins with: what is known, and what follows from it for more than one part.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use todo_crds::platform::{DeletionPolicy, StrimziKafka};
use todo_crds::{Role, TodoPlatformSpec};

use crate::child::{Child, ChildKey, Kind, Stage, Tenure, Write};
use crate::names::{Component, Names};
use crate::platform::Inputs;

/// The roles that a process can be told to run. The manifest knows more: those that are to come.
pub(crate) const ROLES: [Role; 4] = [Role::Relay, Role::Recurring, Role::Reminders, Role::Audit];

/// The roles that take events from the broker.
pub(crate) const CONSUMERS: [Role; 2] = [Role::Recurring, Role::Audit];

/// The one topic that consumers take: all that happens to a task is in it, in order.
pub(crate) const CONSUMED_TOPIC: &str = "task-events";

/// What is known, and what follows from it.
pub(crate) struct Draft<'a> {
    pub(crate) inputs: &'a Inputs,
    pub(crate) names: Names,
    pub(crate) spec: &'a TodoPlatformSpec,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(inputs: &'a Inputs) -> Self {
        Self {
            inputs,
            names: Names::of(&inputs.platform),
            spec: &inputs.platform.spec,
        }
    }

    /// Whether the API and each role run as pods of their own, with events on Kafka between them.
    pub(crate) fn is_spread(&self) -> bool {
        self.spec.kafka.is_some()
    }

    /// Whether pods have a sidecar, where Dapr is there to put one in.
    pub(crate) fn wants_sidecars(&self) -> bool {
        let store = self.spec.dapr.as_ref().and_then(|dapr| dapr.state_store.as_ref());
        self.is_spread() || store.is_some()
    }

    /// Whether pods have a sidecar. When Dapr comes later, this changes their template, so that they get theirs.
    pub(crate) fn has_sidecars(&self) -> bool {
        self.wants_sidecars() && self.inputs.capabilities.has(Kind::Component)
    }

    /// The components of this platform, suspended ones included.
    pub(crate) fn components(&self) -> Vec<Component> {
        if self.is_spread() {
            let workers = ROLES.into_iter().map(Component::Worker);
            [Component::Api].into_iter().chain(workers).collect()
        } else {
            vec![Component::All]
        }
    }

    /// The component that answers requests.
    pub(crate) fn api(&self) -> Component {
        if self.is_spread() {
            Component::Api
        } else {
            Component::All
        }
    }

    /// The roles that run in a pod of this component.
    pub(crate) fn roles(&self, component: Component) -> Vec<Role> {
        match component {
            Component::Api => vec![],
            Component::Worker(role) => vec![role],
            Component::All => ROLES.into_iter().filter(|role| !self.is_suspended(*role)).collect(),
        }
    }

    pub(crate) fn is_suspended(&self, role: Role) -> bool {
        role.of(&self.spec.workers).suspend
    }

    /// Whether a pod of this component answers requests.
    pub(crate) fn serves(&self, component: Component) -> bool {
        component == self.api() && !self.spec.api.suspend
    }

    /// Whether there are any pods of this component.
    pub(crate) fn runs(&self, component: Component) -> bool {
        self.serves(component) || self.roles(component).into_iter().any(|role| !self.is_suspended(role))
    }

    /// The app ids of those that take events from the broker.
    pub(crate) fn consumers(&self) -> impl Iterator<Item = (Role, String)> + '_ {
        CONSUMERS
            .into_iter()
            .map(|role| (role, self.names.component(Component::Worker(role))))
    }

    pub(crate) fn strimzi(&self) -> Option<&'a StrimziKafka> {
        self.spec.kafka.as_ref()?.strimzi.as_ref()
    }

    /// The namespace of Strimzi's `Kafka`, its topics and users.
    pub(crate) fn kafka_namespace(&self) -> Option<&str> {
        let cluster = &self.strimzi()?.cluster;
        Some(cluster.namespace.as_deref().unwrap_or(&self.names.namespace))
    }

    /// What becomes of something that holds data.
    pub(crate) fn tenure_of_data(&self) -> Tenure {
        match self.spec.deletion_policy {
            DeletionPolicy::Retain => Tenure::Kept,
            DeletionPolicy::Delete => Tenure::Owned,
        }
    }

    /// An object in the platform's namespace, to be filled.
    pub(crate) fn object(&self, kind: Kind, name: impl Into<String>) -> Object<'_> {
        Object {
            draft: self,
            key: ChildKey {
                kind,
                namespace: self.names.namespace.clone(),
                name: name.into(),
            },
            component: None,
            labels: BTreeMap::new(),
            metadata: Map::new(),
            annotations: BTreeMap::new(),
            stage: Stage::Base,
            tenure: Tenure::Owned,
            write: Write::Always,
        }
    }

    /// The labels of what belongs to a component, or to another part of this name.
    pub(crate) fn labels(&self, component: &str) -> BTreeMap<String, String> {
        let mut labels = self.names.labels();
        labels.insert("app.kubernetes.io/component".to_owned(), component.to_owned());
        labels
    }
}

/// An object that has its metadata and lacks its content.
pub(crate) struct Object<'a> {
    draft: &'a Draft<'a>,
    key: ChildKey,
    component: Option<String>,
    labels: BTreeMap<String, String>,
    metadata: Map<String, Value>,
    annotations: BTreeMap<String, String>,
    stage: Stage,
    tenure: Tenure,
    write: Write,
}

impl Object<'_> {
    pub(crate) fn component(mut self, component: impl Into<String>) -> Self {
        self.component = Some(component.into());
        self
    }

    pub(crate) fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.key.namespace);
        self
    }

    pub(crate) fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The version that the object must still have when this is written.
    pub(crate) fn only_over(mut self, resource_version: &str) -> Self {
        self.metadata
            .insert("resourceVersion".to_owned(), resource_version.into());
        self
    }

    /// Which object this is about: it is not made when that one is gone.
    pub(crate) fn only_of(mut self, uid: &str) -> Self {
        self.metadata.insert("uid".to_owned(), uid.into());
        self
    }

    pub(crate) fn stage(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    pub(crate) fn tenure(mut self, tenure: Tenure) -> Self {
        self.tenure = tenure;
        self
    }

    pub(crate) fn write(mut self, write: Write) -> Self {
        self.write = write;
        self
    }

    /// The object with this content: a whole object of its type, of which the metadata is left out.
    pub(crate) fn content(self, content: &impl Serialize) -> Child {
        let Self {
            draft,
            key,
            component,
            labels: more_labels,
            mut metadata,
            annotations,
            stage,
            tenure,
            write,
        } = self;
        let mut labels = draft.names.labels();
        labels.extend(component.map(|component| ("app.kubernetes.io/component".to_owned(), component)));
        labels.extend(more_labels);
        metadata.insert("name".to_owned(), key.name.as_str().into());
        metadata.insert("namespace".to_owned(), key.namespace.as_str().into());
        metadata.insert("labels".to_owned(), json!(labels));
        if !annotations.is_empty() {
            metadata.insert("annotations".to_owned(), json!(annotations));
        }
        // An owner in another namespace would have the object collected at once.
        if tenure == Tenure::Owned && key.namespace == draft.names.namespace {
            metadata.insert("ownerReferences".to_owned(), json!([draft.owner()]));
        }
        let mut body = match serde_json::to_value(content).expect("an object's content is plain data") {
            Value::Object(body) => body,
            other => unreachable!("an object's content is an object, not {other}"),
        };
        body.remove("status");
        let version = draft.inputs.capabilities.version(key.kind);
        let version = version.unwrap_or_else(|| key.kind.version());
        let api_version = match key.kind.group() {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        };
        body.insert("apiVersion".to_owned(), api_version.into());
        body.insert("kind".to_owned(), key.kind.name().into());
        body.insert("metadata".to_owned(), metadata.into());
        Child {
            key,
            stage,
            tenure,
            write,
            platform: draft.inputs.platform.metadata.uid.clone().unwrap_or_default(),
            body: body.into(),
        }
    }
}

impl Draft<'_> {
    fn owner(&self) -> Value {
        json!({
            "apiVersion": format!("{}/{}", todo_crds::GROUP, todo_crds::VERSION),
            "kind": "TodoPlatform",
            "name": self.names.platform,
            "uid": self.inputs.platform.metadata.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }
}

/// What stands in an annotation for `value`: it changes when the value does, and tells nothing of it.
pub(crate) fn fingerprint(value: &impl Serialize) -> String {
    let text = serde_json::to_vec(value).expect("what is fingerprinted is plain data");
    let digest = Sha256::digest(text);
    hex::encode(&digest[..8])
}
