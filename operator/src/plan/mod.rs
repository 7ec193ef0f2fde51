//! A plan: what the operator would create, change or delete for a platform, as text for people and for reviews.
//!
//! It is the way of a pass with apply left out: dereference → validate → build, and then the API server's own dry run of
//! each apply ([`against`]), or, without a cluster, every child as new ([`from_nothing`]). It shows where the platform would
//! come to rest: as if the migration had succeeded and everything that is waited for were there. How a difference is shown
//! is [`Change`]'s.

mod change;

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use todo_crds::TodoPlatform;
use todo_crds::platform::DeletionPolicy;

pub use self::change::{Change, Step, masked};
use crate::capabilities::Capabilities;
use crate::child::{Child, Children, Kind, Write};
use crate::discovery;
use crate::error::{Call, Result};
use crate::live::Observed;
use crate::names::{MANAGER, NAMESPACE_LABEL, Names, PLATFORM_LABEL};
use crate::platform::build::build;
use crate::platform::dereference::{SecretsRead, assumed, dereference};
use crate::platform::seen::Seen;
use crate::platform::validate::validate;
use crate::platform::{Inputs, Problem, release};
use crate::prune::{Data, Pruning, superfluous};
use crate::settings::Settings;

/// What would be done for a platform.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every object that would not stay as it is, in the order in which they would be written, deletions last.
    pub changes: Vec<Change>,
    /// How many objects would stay.
    pub unchanged: usize,
    /// What stands in the way, or has no effect.
    pub problems: Vec<Problem>,
}

/// What would be done for `platform`, which has a namespace, on the cluster behind `client`.
///
/// # Errors
/// Those of the API server; it must allow what the operator does, dry.
pub async fn against(client: &Client, settings: &Settings, platform: TodoPlatform) -> Result<Plan> {
    let names = Names::of(&platform);
    let capabilities = Arc::new(discovery::read(client).await?);
    let platform = Arc::new(as_stored(client, platform, &names).await?);
    let observed = children(client, &capabilities, &names, &platform).await?;
    let seen: Seen = observed.iter().cloned().collect();
    let settings = Arc::new(settings.clone());
    let mut inputs = dereference(
        client,
        &settings,
        &capabilities,
        &seen,
        &SecretsRead::default(),
        0,
        Arc::clone(&platform),
    )
    .await?;
    inputs.release = Some(release::target(&platform, &settings));
    let built = build(&inputs);
    let mut plan = Plan {
        problems: validate(&inputs),
        ..Plan::default()
    };
    for child in built.iter() {
        let key = &child.key;
        let before = seen.get(key.kind, &key.namespace, &key.name);
        let after = match before {
            None => Some(child.body.clone()),
            Some(_) if child.write == Write::Once => before.cloned(),
            Some(_) => dry_run(client, &capabilities, child).await?,
        };
        plan.note(Change::between(key, before, after.as_ref()));
    }
    let pruning = Pruning {
        names: &names,
        uid: platform.metadata.uid.as_deref().unwrap_or_default(),
        built: &built,
        is_complete: built.is_complete(),
        data: Data::Keep,
        is_retained: platform.spec.deletion_policy == DeletionPolicy::Retain,
    };
    if pruning.is_complete {
        for object in superfluous(pruning, &observed) {
            plan.note(Change::between(&object.key, Some(&object.value()), None));
        }
    }
    Ok(plan)
}

/// What would be made for `platform` on a cluster that has nothing of it, and serves every API that the manifest needs.
pub fn from_nothing(settings: &Settings, platform: TodoPlatform) -> Plan {
    let mut capabilities = Capabilities::default();
    for kind in Kind::ALL {
        // A bare cluster has no database operator: what it makes by itself is shown.
        if kind != Kind::DatabaseCluster {
            capabilities.serve(kind, kind.optional().unwrap_or_default());
        }
    }
    let inputs: Inputs = assumed(settings, capabilities, platform);
    let built: Children = build(&inputs);
    let mut plan = Plan {
        problems: validate(&inputs),
        ..Plan::default()
    };
    for child in built.iter() {
        plan.note(Change::between(&child.key, None, Some(&child.body)));
    }
    plan
}

impl Plan {
    fn note(&mut self, change: Option<Change>) {
        match change {
            Some(change) => self.changes.push(change),
            None => self.unchanged += 1,
        }
    }

    /// How many of each step.
    pub fn counts(&self) -> BTreeMap<Step, usize> {
        self.changes.iter().fold(BTreeMap::new(), |mut counts, change| {
            *counts.entry(change.step).or_default() += 1;
            counts
        })
    }
}

/// The platform with the identity and the status that the cluster has of it; its spec is the file's.
async fn as_stored(client: &Client, mut platform: TodoPlatform, names: &Names) -> Result<TodoPlatform> {
    let api: Api<TodoPlatform> = Api::namespaced(client.clone(), &names.namespace);
    let found = api.get_opt(&names.platform).await.map_err(|error| {
        Call::new(
            "get",
            "todoplatforms.todoplatform.dev",
            &names.namespace,
            &names.platform,
        )
        .failed(error)
    })?;
    if let Some(found) = found {
        platform.metadata.uid = found.metadata.uid;
        platform.metadata.annotations = platform.metadata.annotations.or(found.metadata.annotations);
        platform.status = found.status;
    }
    Ok(platform)
}

/// The platform's children as the cluster has them, in its namespace and in Kafka's.
async fn children(
    client: &Client,
    capabilities: &Capabilities,
    names: &Names,
    platform: &TodoPlatform,
) -> Result<Vec<Arc<Observed>>> {
    let own = format!(
        "{PLATFORM_LABEL}={},{NAMESPACE_LABEL}={}",
        names.platform, names.namespace
    );
    let kafka = platform.spec.kafka.as_ref().and_then(|kafka| kafka.strimzi.as_ref());
    let kafka = kafka.and_then(|strimzi| strimzi.cluster.namespace.as_deref());
    let mut children = vec![];
    for kind in Kind::ALL {
        let Some(resource) = kind.resource(capabilities) else {
            continue;
        };
        let elsewhere = kafka
            .filter(|namespace| matches!(kind, Kind::KafkaTopic | Kind::KafkaUser) && *namespace != names.namespace);
        for namespace in [Some(names.namespace.as_str()), elsewhere].into_iter().flatten() {
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
            let found = api.list(&ListParams::default().labels(&own)).await;
            let found = found.map_err(|error| Call::new("list", kind.resource_name(), namespace, "").failed(error))?;
            let observed = found.items.into_iter().filter_map(|mut object| {
                object.types.get_or_insert_with(|| kube::core::TypeMeta {
                    api_version: resource.api_version.clone(),
                    kind: resource.kind.clone(),
                });
                Observed::keep(kind, object)
            });
            children.extend(observed.map(Arc::new));
        }
    }
    Ok(children)
}

/// What the API server would make of an apply.
async fn dry_run(client: &Client, capabilities: &Capabilities, child: &Child) -> Result<Option<Value>> {
    let key = &child.key;
    let Some(resource) = key.kind.resource(capabilities) else {
        return Ok(Some(child.body.clone()));
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &key.namespace, &resource);
    let parameters = PatchParams::apply(MANAGER).force().dry_run();
    let answer = api.patch(&key.name, &parameters, &Patch::Apply(&child.body)).await;
    let answer = answer.map_err(|error| Call::on("patch", key).failed(error))?;
    Ok(serde_json::to_value(answer).ok())
}

/// The namespace of a platform that names none.
pub fn in_namespace(mut platform: TodoPlatform, default: &str) -> TodoPlatform {
    if platform.namespace().is_none() {
        platform.metadata.namespace = Some(default.to_owned());
    }
    platform
}
