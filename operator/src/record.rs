//! What the operator writes into a resource of its own kinds: the finalizer, and the status.
//!
//! Not here: what the status says, and when the finalizer is needed. Both are written only into the object that was
//! looked at, never into another of its name.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::error::{Call, Result};
use crate::names::{FINALIZER, MANAGER};

/// Whether the resource waits for the operator before it goes.
pub(crate) fn has_finalizer(object: &impl Resource) -> bool {
    object.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// What the API server answered to a write.
struct Written<K> {
    object: Arc<K>,
    /// Whether it is what was written, and nobody else has changed anything since the pass looked.
    is_own: bool,
}

type Ahead<K> = HashMap<ObjectRef<K>, Written<K>>;

/// What is written into resources of one kind. Clones share it.
///
/// The store learns of a write by the watch, some time later, and a pass that begins meanwhile must not take what was
/// before for what is: a status says which topics there are, and a pass that forgets them forgets them for good. So what
/// the API server answered is kept until the store has it, or what came after.
#[derive(Clone)]
pub struct Record<K: Resource<DynamicType = ()>> {
    client: Client,
    /// The newest of each resource that the store may not have.
    ahead: Arc<Mutex<Ahead<K>>>,
}

impl<K> Record<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    /// Nothing is written yet.
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            ahead: Arc::default(),
        }
    }

    /// The resource as it is in the store, or as it was written last when that is newer.
    pub(crate) fn newest(&self, stored: Arc<K>) -> Arc<K> {
        let mut ahead = self.ahead();
        let key = ObjectRef::from_obj(stored.as_ref());
        match ahead.get(&key) {
            Some(written) if is_newer(written.object.as_ref(), stored.as_ref()) => Arc::clone(&written.object),
            Some(_) => {
                ahead.remove(&key);
                stored
            }
            None => stored,
        }
    }

    /// Whether this change, which the store has, is what was written last and nothing else: whoever wrote it knows.
    pub(crate) fn is_own(&self, changed: &K) -> bool {
        let mut ahead = self.ahead();
        let key = ObjectRef::from_obj(changed);
        let Some(written) = ahead.get(&key) else {
            return false;
        };
        if is_newer(written.object.as_ref(), changed) {
            return false;
        }
        let version = |object: &K| (object.uid(), object.resource_version());
        let is_own = written.is_own && version(&written.object) == version(changed);
        ahead.remove(&key);
        is_own
    }

    /// Sets the finalizer or takes it away, where it is not so already, and leaves those of others.
    ///
    /// # Errors
    /// Those of the API server.
    pub(crate) async fn with_finalizer(&self, object: Arc<K>, wanted: bool) -> Result<Arc<K>> {
        if has_finalizer(object.as_ref()) == wanted {
            return Ok(object);
        }
        let others = object.finalizers().iter().map(String::as_str);
        let others = others.filter(|finalizer| *finalizer != FINALIZER);
        let finalizers: Vec<&str> = others.chain(wanted.then_some(FINALIZER)).collect();
        let patch = json!({"metadata": {
            "finalizers": finalizers,
            "uid": object.meta().uid,
            "resourceVersion": object.meta().resource_version,
        }});
        let parameters = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let (api, name) = self.api(object.as_ref());
        let answer = api.patch(&name, &parameters, &Patch::Merge(&patch)).await;
        let written = answer.map_err(|error| call(object.as_ref(), "").failed(error))?;
        // It would have been refused otherwise.
        Ok(self.keep(written, true))
    }

    /// Writes the status.
    ///
    /// # Errors
    /// Those of the API server.
    pub(crate) async fn write_status(&self, object: &K, status: &impl Serialize) -> Result<()> {
        let patch = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"uid": object.meta().uid},
            "status": status,
        });
        let parameters = PatchParams::apply(MANAGER).force();
        let (api, name) = self.api(object);
        let answer = api.patch_status(&name, &parameters, &Patch::Apply(&patch)).await;
        let written = answer.map_err(|error| call(object, "/status").failed(error))?;
        let is_own = is_same_but_for_status(object, &written);
        self.keep(written, is_own);
        Ok(())
    }

    fn keep(&self, mut written: K, is_own: bool) -> Arc<K> {
        written.managed_fields_mut().clear();
        let written = Arc::new(written);
        // Nothing waits for the operator any more: it is gone, and no pass will come to ask.
        if written.meta().deletion_timestamp.is_none() {
            let object = Arc::clone(&written);
            self.ahead()
                .insert(ObjectRef::from_obj(written.as_ref()), Written { object, is_own });
        }
        written
    }

    fn api(&self, object: &K) -> (Api<K>, String) {
        let namespace = object.namespace().unwrap_or_default();
        (Api::namespaced(self.client.clone(), &namespace), object.name_any())
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead<K>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `one` is a later version of the same object than `other`.
///
/// Versions are decimal numbers of any length that grow.
/// Source: Kubernetes, API concepts, "Resource versions".
fn is_newer(one: &impl Resource, other: &impl Resource) -> bool {
    let (one, other) = (one.meta(), other.meta());
    let number = |version: &Option<String>| {
        let digits = version
            .clone()
            .filter(|version| version.bytes().all(|byte| byte.is_ascii_digit()))?;
        Some((digits.len(), digits))
    };
    let versions = number(&one.resource_version).zip(number(&other.resource_version));
    one.uid == other.uid && versions.is_some_and(|(one, other)| one > other)
}

/// Whether two versions of an object ask for the same. A change of the spec is a new generation.
fn is_same_but_for_status(one: &impl Resource, other: &impl Resource) -> bool {
    let asks = |object: &ObjectMeta| ObjectMeta {
        managed_fields: None,
        resource_version: None,
        ..object.clone()
    };
    asks(one.meta()) == asks(other.meta())
}

fn call<K: Resource<DynamicType = ()>>(object: &K, part: &str) -> Call {
    let resource = format!("{}.{}{part}", K::plural(&()), K::group(&()));
    Call::new(
        "patch",
        resource,
        &object.namespace().unwrap_or_default(),
        &object.name_any(),
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn map(uid: &str, version: &str) -> ConfigMap {
        let object = json!({"metadata": {"name": "a", "namespace": "b", "uid": uid, "resourceVersion": version}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_newer(&map("x", "100"), &map("x", "99")));
        assert!(!is_newer(&map("x", "99"), &map("x", "100")));
        assert!(!is_newer(&map("x", "100"), &map("x", "100")));
        let long = "123456789012345678901234567890";
        assert!(is_newer(&map("x", long), &map("x", "99")));
    }

    #[test]
    fn a_change_of_the_status_asks_for_nothing_and_any_other_does() {
        let object = |generation: u64, more: serde_json::Value| -> ConfigMap {
            let mut metadata = json!({"name": "a", "uid": "x", "resourceVersion": "1", "generation": generation});
            metadata
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            serde_json::from_value(json!({ "metadata": metadata })).unwrap()
        };
        let before = object(1, json!({}));
        let status = object(
            1,
            json!({"resourceVersion": "2", "managedFields": [{"manager": "todo-operator"}]}),
        );
        assert!(is_same_but_for_status(&before, &status));
        for other in [
            object(2, json!({})),
            object(1, json!({"annotations": {"rotate": "now"}})),
            object(1, json!({"labels": {"a": "b"}})),
            object(1, json!({"finalizers": ["a"]})),
            object(1, json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})),
            object(1, json!({"uid": "y"})),
        ] {
            assert!(!is_same_but_for_status(&before, &other), "{:?}", other.metadata);
        }
    }

    #[tokio::test]
    async fn a_pass_knows_its_own_write_and_is_told_of_any_other() -> anyhow::Result<()> {
        let nowhere = kube::Config::new("http://127.0.0.1:1".parse()?);
        let record: Record<ConfigMap> = Record::new(Client::try_from(nowhere)?);
        assert!(!record.is_own(&map("x", "5")), "nothing was written");

        record.keep(map("x", "7"), true);
        assert!(!record.is_own(&map("x", "6")), "of another, before the write");
        assert_eq!(record.newest(Arc::new(map("x", "6"))).resource_version().unwrap(), "7");
        assert!(record.is_own(&map("x", "7")));
        assert!(!record.is_own(&map("x", "7")), "told again, by a new list");

        record.keep(map("x", "9"), false);
        assert!(!record.is_own(&map("x", "9")), "another changed it on the way");

        record.keep(map("x", "11"), true);
        assert!(!record.is_own(&map("x", "12")), "of another, after the write");
        assert!(record.ahead().is_empty(), "the store has it");

        record.keep(map("x", "13"), true);
        assert!(!record.is_own(&map("y", "13")), "another object of its name");
        Ok(())
    }

    #[test]
    fn what_cannot_be_compared_is_not_newer() {
        assert!(
            !is_newer(&map("x", "100"), &map("y", "99")),
            "another object of its name"
        );
        assert!(!is_newer(&map("x", "b"), &map("x", "a")), "no numbers");
    }
}
