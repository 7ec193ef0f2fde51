//! The end of a platform: what goes, what stays, and where it is then.
//!
//! What is in the platform's own namespace goes by owner references, also when the operator is away. Only what is
//! elsewhere needs the operator's hand, and the finalizer that waits for it: Strimzi's topics and users in Kafka's
//! namespace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::runtime::controller::Action;
use todo_crds::TodoPlatform;
use todo_crds::platform::{DeletionPolicy, ExternalKafka};

use super::context::Context;
use crate::announce;
use crate::child::{Children, Kind};
use crate::error::{Class, Result};
use crate::live::Observed;
use crate::names::Names;
use crate::prune::{Data, Pruning, prune};
use crate::record::has_finalizer;

/// Since when platforms are on their way out, as far as this process has seen it: one that comes late, because none ran,
/// has the whole time still. Clones share it.
#[derive(Clone, Default)]
pub struct Departures(Arc<Mutex<HashMap<Names, Instant>>>);

impl Departures {
    /// For how long this platform has been.
    fn waited(&self, names: &Names) -> Duration {
        self.all().entry(names.clone()).or_insert_with(Instant::now).elapsed()
    }

    pub(super) fn forget(&self, names: &Names) {
        self.all().remove(names);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Names, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
    if !has_finalizer(platform.as_ref()) {
        context.forget(names);
        return Ok(Action::await_change());
    }
    let deletes = platform.spec.deletion_policy == DeletionPolicy::Delete;
    let pruning = Pruning {
        names,
        uid: platform.metadata.uid.as_deref().unwrap_or_default(),
        built: &Children::default(),
        is_complete: true,
        data: if deletes { Data::Delete } else { Data::Keep },
        is_retained: !deletes,
    };
    let waited = context.departures.waited(names);
    let is_late = waited > context.pace.let_go;
    let capabilities = context.capabilities();
    let mut left = vec![];
    match prune(&context.client, &capabilities, &context.live, pruning).await {
        Ok(keys) => {
            for key in keys {
                tracing::info!(child = %key, "deleted with its platform");
            }
        }
        // One that a role or a policy does not allow never will be.
        Err(error) if is_late && error.class() != Class::Unavailable => left.push(error.to_string()),
        Err(error) => return Err(error),
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
    if let Some(external) = topics_to_delete(platform) {
        // Those that a pass has made or found; there are no others.
        let status = platform.status.iter().flat_map(|status| &status.topics);
        let topics: Vec<&str> = status.map(|topic| topic.name.as_str()).collect();
        let asked = context
            .brokers
            .delete(&context.client, external, &topics, names)
            .await?;
        left.extend(
            asked
                .err()
                .map(|error| format!("topics {}: {error}", topics.join(", "))),
        );
    }
    if !going.is_empty() {
        left.push(listed(&going));
    }
    if !left.is_empty() && !is_late {
        return Ok(Action::requeue(context.pace.look_again));
    }
    if !left.is_empty() {
        let note = format!(
            "not gone within {} s, delete it yourself: {}",
            waited.as_secs(),
            left.join("; ")
        );
        announce::warning(&context.events, platform.as_ref(), "LeftBehind", note);
    }
    if !kept.is_empty() {
        let note = format!("deletionPolicy is Retain, kept: {}", listed(&kept));
        announce::note(&context.events, platform.as_ref(), "Retained", note);
    }
    match context.record.with_finalizer(Arc::clone(platform), false).await {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    context.forget(names);
    Ok(Action::await_change())
}

fn listed(children: &[Arc<Observed>]) -> String {
    let names = children.iter().map(|child| child.key.to_string());
    names.collect::<Vec<_>>().join(", ")
}
