//! What the operator writes into a resource of its own kinds: the finalizer, and the status.
//!
//! Not here: what the status says, and when the finalizer is needed. Both are written only into the object that was
//! looked at, never into another of its name.

use std::fmt::Debug;
use std::sync::Arc;

use kube::api::{Api, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
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

/// Sets the finalizer or takes it away, where it is not so already, and leaves those of others.
pub(crate) async fn with_finalizer<K>(client: &Client, object: Arc<K>, wanted: bool) -> Result<Arc<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
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
    let (api, name) = api(client, object.as_ref());
    let answer = api.patch(&name, &parameters, &Patch::Merge(&patch)).await;
    answer
        .map(Arc::new)
        .map_err(|error| call(object.as_ref(), "").failed(error))
}

/// Writes the status.
pub(crate) async fn write_status<K>(client: &Client, object: &K, status: &impl Serialize) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"uid": object.meta().uid},
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGER).force();
    let (api, name) = api(client, object);
    let answer = api.patch_status(&name, &parameters, &Patch::Apply(&patch)).await;
    answer
        .map(|_| ())
        .map_err(|error| call(object, "/status").failed(error))
}

fn api<K>(client: &Client, object: &K) -> (Api<K>, String)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let namespace = object.namespace().unwrap_or_default();
    (Api::namespaced(client.clone(), &namespace), object.name_any())
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
