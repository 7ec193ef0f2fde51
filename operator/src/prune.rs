//! What a platform had and no longer asks for, deleted.
//!
//! Here: which of a platform's children this pass did not build ([`superfluous`]), and their deletion, each only while it
//! is still the object that was looked at. Not here: what goes when the platform itself goes (`platform::deletion`).
//!
//! What holds data, or the key to data, is kept unless the caller says otherwise, and looked at afresh before it goes: a
//! cache that is behind must not cost anyone a database.

use std::sync::Arc;

use jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde_json::Value;

use crate::apply::let_go;
use crate::capabilities::Capabilities;
use crate::child::{ChildKey, Children, Kind};
use crate::error::{Call, Error, Result};
use crate::live::{Live, Observed};
use crate::names::Names;

/// Whose children are looked at, and by what.
#[derive(Clone, Copy, Debug)]
pub struct Pruning<'a> {
    /// The platform.
    pub names: &'a Names,
    /// Its UID. What another of that name left behind is the garbage collector's.
    pub uid: &'a str,
    /// What this pass built.
    pub built: &'a Children,
    /// Whether the pass came to its end: everything that may be applied by now was. Nothing is deleted otherwise.
    pub is_complete: bool,
    /// What becomes of what holds data.
    pub data: Data,
    /// Whether what holds data is to outlive the platform.
    pub is_retained: bool,
}

/// What becomes of what holds data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// It stays.
    Keep,
    /// It goes like the rest.
    Delete,
}

/// Deletes what this pass did not build, and answers what was deleted. What has changed or gone in the meantime is left
/// for the next pass.
pub async fn prune(
    client: &Client,
    capabilities: &Capabilities,
    live: &Live,
    pruning: Pruning<'_>,
) -> Result<Vec<ChildKey>> {
    let mut deleted = vec![];
    if !pruning.is_complete {
        return Ok(deleted);
    }
    let children = live.of(pruning.names);
    for object in children.iter().filter(|object| is_to_be_let_go(pruning, object)) {
        let_go(client, capabilities, live, object, pruning.uid).await?;
    }
    for object in superfluous(pruning, &children) {
        if !live.is_listed(&object.key) {
            continue;
        }
        match delete(client, capabilities, &object).await {
            Ok(true) => deleted.push((*object.key).clone()),
            Ok(false) | Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// Those of `children` that go.
pub fn superfluous(pruning: Pruning<'_>, children: &[Arc<Observed>]) -> Vec<Arc<Observed>> {
    let migrations = children.iter().filter(|object| object.key.kind == Kind::Job);
    let latest = migrations.max_by_key(|job| (created(job), job.key.name.clone()));
    let goes = |object: &&Arc<Observed>| {
        let is_built = pruning.built.asks_for(&object.key);
        let is_latest = latest.is_some_and(|latest| latest.key == object.key);
        let is_anothers = object.controller.as_deref().is_some_and(|uid| uid != pruning.uid);
        // A copy of an object that someone made elsewhere has its labels too.
        let is_at_home = object.key.namespace == pruning.names.namespace || is_shared(object.key.kind);
        let stays = pruning.data == Data::Keep && holds_data(object);
        !is_built && !is_latest && !is_anothers && is_at_home && !stays && !object.is_deleting
    };
    children.iter().filter(goes).cloned().collect()
}

/// Whether this is data that are not asked for any more and are to stay, and would go with the platform.
fn is_to_be_let_go(pruning: Pruning<'_>, object: &Observed) -> bool {
    pruning.is_retained
        && pruning.data == Data::Keep
        && holds_data(object)
        && object.controller.as_deref() == Some(pruning.uid)
        && !pruning.built.asks_for(&object.key)
        && !object.is_deleting
}

/// Whether a platform may have this kind in another namespace than its own.
fn is_shared(kind: Kind) -> bool {
    matches!(kind, Kind::KafkaTopic | Kind::KafkaUser)
}

/// Whether data, or the key to data, goes with this object. A Secret without a controller is one that outlives its
/// platform.
fn holds_data(object: &Observed) -> bool {
    match object.key.kind {
        Kind::StatefulSet | Kind::DatabaseCluster | Kind::KafkaTopic => true,
        Kind::Secret => object.controller.is_none(),
        _ => false,
    }
}

fn created(object: &Observed) -> Option<Timestamp> {
    let value: Value = object.value();
    value["metadata"]["creationTimestamp"].as_str()?.parse().ok()
}

/// Deletes one object while it is what was seen. `false` when it was gone.
async fn delete(client: &Client, capabilities: &Capabilities, seen: &Observed) -> Result<bool> {
    let key = &*seen.key;
    let Some(resource) = key.kind.resource(capabilities) else {
        return Ok(false);
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &key.namespace, &resource);
    let version = if holds_data(seen) {
        match api
            .get_opt(&key.name)
            .await
            .map_err(|error| Call::on("get", key).failed(error))?
        {
            None => return Ok(false),
            Some(now) => match Observed::keep(key.kind, now) {
                Some(now) if now.uid == seen.uid && now.platform == seen.platform => now.version,
                _ => return Ok(false),
            },
        }
    } else {
        seen.version.clone()
    };
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            resource_version: Some(version),
            uid: Some(seen.uid.clone()),
        }),
        ..DeleteParams::background()
    };
    match api.delete(&key.name, &parameters).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(Call::on("delete", key).failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::child::{Child, Stage, Tenure, Write};
    use crate::names::{NAMESPACE_LABEL, PLATFORM_LABEL};

    fn names() -> Names {
        Names {
            namespace: "shop".into(),
            platform: "todo".into(),
        }
    }

    fn live(kind: Kind, namespace: &str, name: &str, owner: Option<&str>, created: &str) -> Arc<Observed> {
        let owners: Vec<_> = owner
            .iter()
            .map(|uid| json!({"uid": uid, "controller": true, "apiVersion": "v1", "kind": "X", "name": "x"}))
            .collect();
        let object = json!({"metadata": {
            "name": name, "namespace": namespace, "uid": name, "resourceVersion": "1", "ownerReferences": owners,
            "creationTimestamp": created, "labels": {PLATFORM_LABEL: "todo", NAMESPACE_LABEL: "shop"},
        }});
        Arc::new(Observed::keep(kind, serde_json::from_value(object).unwrap()).unwrap())
    }

    fn going(data: Data, built: &[(Kind, &str)], children: &[Arc<Observed>]) -> Vec<String> {
        let mut all = Children::default();
        for (kind, name) in built {
            all.add(Child {
                key: ChildKey {
                    kind: *kind,
                    namespace: "shop".into(),
                    name: (*name).into(),
                },
                stage: Stage::Base,
                tenure: Tenure::Owned,
                write: Write::Always,
                platform: "1".into(),
                body: json!({}),
            });
        }
        let names = names();
        let pruning = Pruning {
            names: &names,
            uid: "1",
            built: &all,
            is_complete: true,
            data,
            is_retained: false,
        };
        let gone = superfluous(pruning, children);
        gone.iter().map(|object| object.key.name.clone()).collect()
    }

    const DAY: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn what_is_not_built_goes_and_what_is_stays() {
        let children = [
            live(Kind::ConfigMap, "shop", "a", Some("1"), DAY),
            live(Kind::ConfigMap, "shop", "b", Some("1"), DAY),
            live(Kind::Service, "shop", "a", Some("1"), DAY),
        ];
        assert_eq!(going(Data::Keep, &[(Kind::ConfigMap, "a")], &children), ["b", "a"]);
    }

    #[test]
    fn data_goes_only_when_it_is_said() {
        let children = [
            live(Kind::StatefulSet, "shop", "db", Some("1"), DAY),
            live(Kind::DatabaseCluster, "shop", "cluster", None, DAY),
            live(Kind::KafkaTopic, "kafka", "topic", None, DAY),
            live(Kind::Secret, "shop", "kept", None, DAY),
            live(Kind::Secret, "shop", "owned", Some("1"), DAY),
        ];
        assert_eq!(going(Data::Keep, &[], &children), ["owned"]);
        assert_eq!(going(Data::Delete, &[], &children).len(), 5);
    }

    #[test]
    fn data_that_are_not_asked_for_any_more_are_let_go_only_where_they_are_to_stay() {
        let names = names();
        let let_go = |object: &Observed, is_retained: bool, data: Data| {
            let pruning = Pruning {
                names: &names,
                uid: "1",
                built: &Children::default(),
                is_complete: true,
                data,
                is_retained,
            };
            is_to_be_let_go(pruning, object)
        };
        let topic = live(Kind::KafkaTopic, "shop", "topic", Some("1"), DAY);
        assert!(let_go(&topic, true, Data::Keep));
        assert!(!let_go(&topic, false, Data::Keep));
        assert!(!let_go(&topic, true, Data::Delete));
        for other in [
            live(Kind::KafkaTopic, "shop", "another's", Some("2"), DAY),
            live(Kind::KafkaTopic, "shop", "free", None, DAY),
            live(Kind::ConfigMap, "shop", "no data", Some("1"), DAY),
        ] {
            assert!(!let_go(&other, true, Data::Keep), "{:?}", other.key);
        }
    }

    #[test]
    fn the_latest_migration_stays_also_when_it_is_of_a_release_before() {
        let children = [
            live(Kind::Job, "shop", "old", Some("1"), "2026-01-01T00:00:00Z"),
            live(Kind::Job, "shop", "new", Some("1"), "2026-01-02T00:00:00Z"),
            live(Kind::Job, "shop", "older", Some("1"), "2025-12-31T00:00:00Z"),
        ];
        assert_eq!(going(Data::Keep, &[], &children), ["old", "older"]);
        assert_eq!(going(Data::Keep, &[(Kind::Job, "old")], &children), ["older"]);
    }

    #[test]
    fn what_others_have_is_left_alone() {
        let children = [
            live(Kind::ConfigMap, "shop", "of the former", Some("2"), DAY),
            live(Kind::ConfigMap, "elsewhere", "a copy", None, DAY),
        ];
        assert!(going(Data::Delete, &[], &children).is_empty());
    }
}
