//! One child made as it should be, and nothing sent when it is.
//!
//! Here: server-side apply by one field manager, only where the live object differs ([`compare`]) or was applied from
//! another body ([`hash`]); what is made once; whose an object is ([`owner`]), for what is someone else's is never
//! written; and the hand-over of `spec.replicas`. Not here: in which order children are applied, and what is deleted.
//!
//! Every write names what it found: an object that is not known is made only where there is none, and one that is known
//! is changed only while it is that one. So a cache that is behind costs a request, and overwrites nothing.

mod compare;
mod hash;
mod owner;

use std::sync::Arc;

use kube::api::{Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::capabilities::Capabilities;
use crate::child::{Child, Write};
use crate::error::{Call, Error, Result};
use crate::live::{Live, Observed};
use crate::names::{APPLIED, MANAGER};

pub use self::hash::hash;

/// Who holds `spec.replicas` of a Deployment between the operator and an autoscaler.
const HANDOVER: &str = "todo-operator-handover";
/// A version that no object has: etcd counts from 1, and its first revision holds nothing. An apply that asks for it
/// makes an object, and conflicts with one that is there.
const NO_OBJECT: &str = "1";

/// What became of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Applied {
    /// It was as it should be.
    Unchanged,
    /// It was not there.
    Created,
    /// It was otherwise.
    Changed,
}

/// Makes `child` as it should be. No request is sent when it is.
///
/// `live` is to know its kind ([`Live::is_ready`]); where it does not yet, a request more is sent, with the same end.
/// The answer goes into `live`.
pub async fn apply(client: &Client, capabilities: &Capabilities, live: &Live, child: &Child) -> Result<Applied> {
    debug_assert!(
        child.write == Write::Once || child.body["stringData"].is_null(),
        "{}: stringData is never read back, so it would differ for ever",
        child.key
    );
    let Some(resource) = child.key.kind.resource(capabilities) else {
        return Err(Error::NotServed(child.key.kind));
    };
    let writer = Writer {
        client,
        capabilities,
        api: Api::namespaced_with(client.clone(), &child.key.namespace, &resource),
        live,
        child,
    };
    match child.write {
        Write::Once => writer.make_once().await,
        Write::Always => writer.keep().await,
    }
}

/// Whether a process that begins now and applies `child` would send anything, and if so, the first field that differs,
/// or that the object is not there. No request is sent.
pub fn drift(live: &Live, child: &Child) -> Option<String> {
    let Some(seen) = live.get(&child.key) else {
        return Some("it is not there".to_owned());
    };
    match child.write {
        Write::Once => None,
        Write::Always => differs(child, &hash(&child.body), &seen),
    }
}

/// Takes the platform with this UID off an object's owners, so that it outlives it. An apply without an owner does not do
/// that where the object was made without an apply. Answers the object as it is then.
pub async fn let_go(
    client: &Client,
    capabilities: &Capabilities,
    live: &Live,
    seen: &Observed,
    platform: &str,
) -> Result<Observed> {
    let key = &*seen.key;
    let Some(resource) = key.kind.resource(capabilities) else {
        return Err(Error::NotServed(key.kind));
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &key.namespace, &resource);
    let now = seen.value();
    let owners = now["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let others: Vec<&Value> = owners.filter(|owner| owner["uid"] != platform).collect();
    let patch = json!({"metadata": {"uid": seen.uid, "resourceVersion": seen.version, "ownerReferences": others}});
    let parameters = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let ticket = live.ticket(key);
    let answer = api.patch(&key.name, &parameters, &Patch::Merge(&patch)).await;
    let answer = answer.map_err(|error| Call::on("patch", key).failed(error))?;
    live.answered(ticket, key.kind, answer.clone(), None);
    Observed::keep(key.kind, answer).ok_or_else(|| Error::Conflict {
        object: key.to_string(),
    })
}

struct Writer<'a> {
    client: &'a Client,
    capabilities: &'a Capabilities,
    api: Api<DynamicObject>,
    live: &'a Live,
    child: &'a Child,
}

impl Writer<'_> {
    async fn make_once(&self) -> Result<Applied> {
        if let Some(seen) = self.live.get(&self.child.key) {
            self.check(&seen)?;
            return Ok(Applied::Unchanged);
        }
        let body: DynamicObject = serde_json::from_value(self.child.body.clone())
            .map_err(|error| Call::on("create", &self.child.key).failed(kube::Error::SerdeError(error)))?;
        let parameters = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let ticket = self.live.ticket(&self.child.key);
        match self.api.create(&parameters, &body).await {
            Ok(answer) => {
                self.live.answered(ticket, self.child.key.kind, answer, None);
                Ok(Applied::Created)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.look_up().await?;
                Ok(Applied::Unchanged)
            }
            Err(error) => Err(Call::on("create", &self.child.key).failed(error)),
        }
    }

    async fn keep(&self) -> Result<Applied> {
        let hash = hash(&self.child.body);
        let seen = match self.live.get(&self.child.key) {
            Some(seen) => seen,
            None => match self.create(&hash).await {
                // There is one, and the cache does not know it.
                Err(Error::Conflict { .. }) => Arc::new(self.look_up().await?),
                created => return created.map(|()| Applied::Created),
            },
        };
        self.check(&seen)?;
        let is_let_go = owner::is_to_be_let_go(self.child, &seen);
        let seen = if is_let_go {
            Arc::new(let_go(self.client, self.capabilities, self.live, &seen, &self.child.platform).await?)
        } else {
            seen
        };
        // Whatever differs from what was asked for when this was the answer, will when it is asked for again.
        let differs = if seen.answers(&hash) {
            None
        } else {
            differs(self.child, &hash, &seen)
        };
        let Some(field) = differs else {
            return Ok(if is_let_go {
                Applied::Changed
            } else {
                Applied::Unchanged
            });
        };
        tracing::debug!(object = %self.child.key, field, "applying");
        let version = if seen.owns_replicas && self.child.body["spec"]["replicas"].is_null() {
            self.hand_replicas_over(&seen).await?
        } else {
            seen.version.clone()
        };
        if self.patch(MANAGER, &hash, &json!({"uid": seen.uid})).await? == version {
            // It was written down differently, and is the same to the API server.
            tracing::debug!(object = %self.child.key, field, "applied, and nothing changed");
            return Ok(Applied::Unchanged);
        }
        Ok(Applied::Changed)
    }

    async fn create(&self, hash: &str) -> Result<()> {
        let precondition = json!({"resourceVersion": NO_OBJECT});
        self.patch(MANAGER, hash, &precondition).await.map(drop)
    }

    /// Applies the body, with `precondition` in its metadata. Answers the object's version after that.
    async fn patch(&self, manager: &str, hash: &str, precondition: &Value) -> Result<String> {
        let mut body = self.child.body.clone();
        let metadata = &mut body["metadata"];
        metadata["annotations"][APPLIED] = Value::from(hash);
        for (name, value) in precondition.as_object().into_iter().flatten() {
            metadata[name] = value.clone();
        }
        drop_nulls(&mut body);
        self.send(manager, &body, Some(hash)).await
    }

    async fn send(&self, manager: &str, body: &Value, hash: Option<&str>) -> Result<String> {
        let key = &self.child.key;
        let ticket = self.live.ticket(key);
        let parameters = PatchParams::apply(manager).force();
        let answer = self.api.patch(&key.name, &parameters, &Patch::Apply(body)).await;
        let answer = answer.map_err(|error| Call::on("patch", key).failed(error))?;
        let version = answer.metadata.resource_version.clone();
        self.live.answered(ticket, key.kind, answer, hash);
        Ok(version.unwrap_or_default())
    }

    /// Lets go of `spec.replicas` without a change of it: an apply that leaves out a field that only its manager owns
    /// puts it back to its default, one pod, in the middle of the day. So another manager takes it first, at the value
    /// that it has. Answers the object's version after that.
    async fn hand_replicas_over(&self, seen: &Observed) -> Result<String> {
        let now = seen.value();
        let body = json!({
            "apiVersion": self.child.body["apiVersion"],
            "kind": self.child.body["kind"],
            "metadata": {
                "name": self.child.key.name,
                "namespace": self.child.key.namespace,
                "uid": seen.uid,
                "resourceVersion": seen.version,
            },
            "spec": {"replicas": now["spec"]["replicas"]},
        });
        self.send(HANDOVER, &body, None).await
    }

    /// Reads what has the child's name, and checks whose it is.
    async fn look_up(&self) -> Result<Observed> {
        let key = &self.child.key;
        let ticket = self.live.ticket(key);
        let found = self.api.get(&key.name).await;
        let found = found.map_err(|error| match error {
            // Gone between the two requests.
            kube::Error::Api(status) if status.code == 404 => Error::Conflict {
                object: key.to_string(),
            },
            error => Call::on("get", key).failed(error),
        })?;
        let value = serde_json::to_value(&found)
            .map_err(|error| Call::on("get", key).failed(kube::Error::SerdeError(error)))?;
        owner::check(self.child, &value)?;
        let seen = Observed::keep(key.kind, found.clone());
        self.live.answered(ticket, key.kind, found, None);
        // Its owner is known, so it has the labels.
        seen.ok_or_else(|| Error::Conflict {
            object: key.to_string(),
        })
    }

    fn check(&self, seen: &Observed) -> Result<()> {
        if !owner::is_plainly_ours(self.child, seen) {
            owner::check(self.child, &seen.value())?;
        }
        if seen.is_deleting {
            return Err(Error::Terminating {
                object: self.child.key.to_string(),
            });
        }
        Ok(())
    }
}

/// An apply takes a field that is `null` for one that it is to own.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The first field in which `seen` is not as `child` says; `None` when there is nothing to apply.
fn differs(child: &Child, hash: &str, seen: &Observed) -> Option<String> {
    if owner::is_to_be_let_go(child, seen) {
        return Some("metadata.ownerReferences".to_owned());
    }
    if seen.applied.as_deref() != Some(hash) {
        return Some(format!("metadata.annotations.{APPLIED}"));
    }
    let is_built_in = child.key.kind.optional().is_none();
    compare::difference(&child.body, &seen.value(), is_built_in).map(|path| path.to_string())
}
