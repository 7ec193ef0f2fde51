//! The end of a platform: what goes, what stays, and where it is then.
//!
//! What is in the platform's own namespace goes by owner references, also when the operator is away. Only what is
//! elsewhere needs the operator's hand, and the finalizer that waits for it: Strimzi's topics and users in Kafka's
//! namespace.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use serde_json::json;
use todo_crds::TodoPlatform;
use todo_crds::platform::{DeletionPolicy, ExternalKafka};

use super::context::Context;
use crate::announce;
use crate::child::{Children, Kind};
use crate::error::{Call, Result};
use crate::live::Observed;
use crate::names::{FINALIZER, MANAGER, Names};
use crate::prune::{Data, Pruning, prune};

/// How long what is elsewhere may take to go. Strimzi may be gone itself, and the platform must not hang on it.
const PATIENCE: SignedDuration = SignedDuration::from_mins(5);
/// How soon it is looked at again while something is on its way out.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Whether anything of this platform is, or is about to be, outside of its namespace.
pub(super) fn needs_finalizer(platform: &TodoPlatform, names: &Names, children: &[Arc<Observed>]) -> bool {
    let kafka = platform.spec.kafka.as_ref();
    let is_asked = kafka.and_then(|kafka| kafka.strimzi.as_ref()).is_some_and(|strimzi| {
        let namespace = strimzi.cluster.namespace.as_ref();
        namespace.is_some_and(|namespace| *namespace != names.namespace)
    });
    let is_elsewhere = topics_to_delete(platform).is_some();
    is_asked || is_elsewhere || children.iter().any(|child| child.key.namespace != names.namespace)
}

/// The Kafka that runs elsewhere, when its topics go with the platform.
fn topics_to_delete(platform: &TodoPlatform) -> Option<&ExternalKafka> {
    let external = platform.spec.kafka.as_ref()?.external.as_ref()?;
    let goes = external.manage_topics && platform.spec.deletion_policy == DeletionPolicy::Delete;
    goes.then_some(external)
}

/// Deletes what is elsewhere and does not stay, and then lets the platform go.
pub(super) async fn clean_up(context: &Context, platform: &Arc<TodoPlatform>, names: &Names) -> Result<Action> {
    if !platform.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        context.live.forget(names);
        return Ok(Action::await_change());
    }
    let deletes = platform.spec.deletion_policy == DeletionPolicy::Delete;
    let pruning = Pruning {
        names,
        uid: platform.metadata.uid.as_deref().unwrap_or_default(),
        built: &Children::default(),
        is_complete: true,
        data: if deletes { Data::Delete } else { Data::Keep },
    };
    let capabilities = context.capabilities();
    for key in prune(&context.client, &capabilities, &context.live, pruning).await? {
        tracing::info!(child = %key, "deleted with its platform");
    }
    let elsewhere: Vec<Arc<Observed>> = context
        .live
        .of(names)
        .into_iter()
        .filter(|child| child.key.namespace != names.namespace)
        .collect();
    let (kept, going): (Vec<_>, Vec<_>) = elsewhere
        .into_iter()
        .partition(|child| !deletes && child.key.kind == Kind::KafkaTopic);
    let left_at_brokers = match topics_to_delete(platform) {
        Some(external) => {
            // Those that a pass has made or found; there are no others.
            let status = platform.status.iter().flat_map(|status| &status.topics);
            let topics: Vec<&str> = status.map(|topic| topic.name.as_str()).collect();
            let left = context
                .brokers
                .delete(&context.client, external, &topics, names)
                .await?;
            left.err()
        }
        None => None,
    };
    let asked_at = platform.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let is_late = asked_at.is_some_and(|at| Timestamp::now().duration_since(at) > PATIENCE);
    if (!going.is_empty() || left_at_brokers.is_some()) && !is_late {
        return Ok(Action::requeue(LOOK_AGAIN));
    }
    if let Some(left) = left_at_brokers {
        let note = format!("topics were not deleted within 5 minutes, delete them yourself: {left}");
        announce::warning(&context.events, platform.as_ref(), "LeftBehind", note);
    }
    if !going.is_empty() {
        let note = format!("not gone after 5 minutes, delete them yourself: {}", listed(&going));
        announce::warning(&context.events, platform.as_ref(), "LeftBehind", note);
    }
    if !kept.is_empty() {
        let note = format!("deletionPolicy is Retain, kept: {}", listed(&kept));
        announce::note(&context.events, platform.as_ref(), "Retained", note);
    }
    let rest: Vec<&str> = platform
        .finalizers()
        .iter()
        .map(String::as_str)
        .filter(|finalizer| *finalizer != FINALIZER)
        .collect();
    match set_finalizers(context, platform, names, &rest).await {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    context.live.forget(names);
    context.brokers.forget(names);
    Ok(Action::await_change())
}

fn listed(children: &[Arc<Observed>]) -> String {
    let names = children.iter().map(|child| child.key.to_string());
    names.collect::<Vec<_>>().join(", ")
}

/// Sets the finalizers while the platform is the one that was looked at.
pub(super) async fn set_finalizers(
    context: &Context,
    platform: &TodoPlatform,
    names: &Names,
    finalizers: &[&str],
) -> Result<TodoPlatform> {
    let api: Api<TodoPlatform> = Api::namespaced(context.client.clone(), &names.namespace);
    let patch = json!({"metadata": {
        "finalizers": finalizers,
        "uid": platform.metadata.uid,
        "resourceVersion": platform.metadata.resource_version,
    }});
    let parameters = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let answer = api.patch(&names.platform, &parameters, &Patch::Merge(&patch)).await;
    answer.map_err(|error| {
        Call::new(
            "patch",
            "todoplatforms.todoplatform.dev",
            &names.namespace,
            &names.platform,
        )
        .failed(error)
    })
}
