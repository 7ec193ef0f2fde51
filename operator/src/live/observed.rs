//! One child as the cluster has it, kept small.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kube::ResourceExt as _;
use kube::core::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::child::{ChildKey, Kind};
use crate::names::{APPLIED, MANAGER, NAMESPACE_LABEL, Names, PLATFORM_LABEL};

/// One child as the cluster has it.
///
/// It is kept as text, which is a fraction of what the same object takes in memory as a tree, and without
/// `managedFields`, which are half of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Observed {
    /// What names it.
    pub key: Arc<ChildKey>,
    /// Whose it is, by its labels.
    pub platform: Names,
    /// Its UID.
    pub uid: String,
    /// Its `resourceVersion`.
    pub version: String,
    /// The UID of its controller, when it has one.
    pub controller: Option<String>,
    /// Whether it is on its way out.
    pub is_deleting: bool,
    /// Whether the operator's last apply gave `spec.replicas` its value.
    pub owns_replicas: bool,
    /// The hash in its annotation [`APPLIED`].
    pub applied: Option<String>,
    /// The hash of what was applied to get this very version, when this process did it. Whatever is different from what
    /// was asked for has then been asked for, and the API server has decided so.
    pub(super) answers: Option<String>,
    json: Box<[u8]>,
}

impl fmt::Debug for Observed {
    /// Without its content, which may be a secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Observed")
            .field("key", &self.key)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Observed {
    /// Keeps `object`. `None` when it lacks a name, or the labels of a platform's child.
    pub fn keep(kind: Kind, mut object: DynamicObject) -> Option<Self> {
        let label = |name: &str| object.labels().get(name).cloned();
        let platform = Names {
            namespace: label(NAMESPACE_LABEL)?,
            platform: label(PLATFORM_LABEL)?,
        };
        let key = ChildKey {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.metadata.name.clone()?,
        };
        let owns_replicas = kind == Kind::Deployment && owns_replicas(&object);
        object.metadata.managed_fields = None;
        let owners = object.metadata.owner_references.as_deref().unwrap_or_default();
        let controller = owners.iter().find(|owner| owner.controller == Some(true));
        Some(Self {
            key: Arc::new(key),
            platform,
            uid: object.metadata.uid.clone().unwrap_or_default(),
            version: object.metadata.resource_version.clone().unwrap_or_default(),
            controller: controller.map(|owner| owner.uid.clone()),
            is_deleting: object.metadata.deletion_timestamp.is_some(),
            owns_replicas,
            applied: object.annotations().get(APPLIED).cloned(),
            answers: None,
            json: serde_json::to_vec(&object).ok()?.into_boxed_slice(),
        })
    }

    /// The whole object but `managedFields`.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// The same as a type of its own. `None` when it is not of that type's shape.
    pub fn parse<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.json).ok()
    }

    /// Its labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        #[derive(serde::Deserialize)]
        struct Object {
            metadata: Metadata,
        }
        #[derive(serde::Deserialize)]
        struct Metadata {
            #[serde(default)]
            labels: BTreeMap<String, String>,
        }
        self.parse::<Object>()
            .map(|object| object.metadata.labels)
            .unwrap_or_default()
    }

    /// Whether it is what the API server made of an apply with this hash by this process.
    pub fn answers(&self, hash: &str) -> bool {
        self.answers.as_deref() == Some(hash)
    }

    /// Whether this is later than `other`, which is of the same kind. Versions that are no numbers are not compared:
    /// what is looked at last counts.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        match (number(&self.version), number(&other.version)) {
            (Some(this), Some(other)) => this > other,
            _ => self.version != other.version,
        }
    }
}

/// A `resourceVersion` as a number. Within one kind they rise (Kubernetes 1.35 promises it, and every one before does it).
pub(super) fn number(version: &str) -> Option<u128> {
    version.parse().ok()
}

fn owns_replicas(object: &DynamicObject) -> bool {
    object.managed_fields().iter().any(|entry| {
        entry.manager.as_deref() == Some(MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry
                .fields_v1
                .as_ref()
                .is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
    })
}
