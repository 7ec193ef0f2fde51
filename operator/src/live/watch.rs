//! The watches: which there are, and what each does with its events.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch as channel;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::index::Source;
use super::observed::Observed;
use super::{Live, Scope, lock};
use crate::capabilities::Capabilities;
use crate::child::{ChildKey, Kind};
use crate::error::Class;
use crate::names::MANAGER;
use crate::relist::{broken, relisted};

/// How many objects one answer of a list holds: what is in memory at once beside what is kept.
const PAGE: u32 = 100;

/// What [`Live::run`] does.
pub(super) async fn run(
    live: &Live,
    client: Client,
    mut capabilities: channel::Receiver<Capabilities>,
    scope: Scope,
    every: Duration,
    stop: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    for namespace in scope.of_secrets() {
        let (live, client) = (live.clone(), client.clone());
        let watching = async move { follow_secrets(&live, client, namespace).await };
        tasks.spawn(stop.clone().run_until_cancelled_owned(watching));
    }
    let mut running: BTreeMap<Source, (String, CancellationToken)> = BTreeMap::new();
    let mut at_start: Option<BTreeSet<Source>> = None;
    let mut is_current = false;
    loop {
        if !is_current {
            let known = capabilities.borrow_and_update().clone();
            let wanted = scope.sources(&known);
            running.retain(|source, (version, watch)| {
                let stays = wanted.contains(source) && known.version(source.kind) == Some(version);
                if !stays {
                    end(live, source, watch);
                }
                stays
            });
            for source in &wanted {
                if !running.contains_key(source)
                    && let Some(resource) = source.kind.resource(&known)
                {
                    let watch = stop.child_token();
                    running.insert(source.clone(), (resource.version.clone(), watch.clone()));
                    live.index().begin(source);
                    let api = match &source.namespace {
                        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                        None => Api::all_with(client.clone(), &resource),
                    };
                    let (live, source, ended) = (live.clone(), source.clone(), watch.clone());
                    let watching = async move { follow(&live, api, &source, every, &ended).await };
                    tasks.spawn(watch.run_until_cancelled_owned(watching));
                }
            }
            at_start.get_or_insert(wanted);
            is_current = true;
        }
        let mut at_start = at_start.iter().flatten().filter(|source| running.contains_key(source));
        if !live.is_ready() && at_start.all(|source| is_settled(live, source)) {
            live.0.is_ready.send_replace(true);
        }
        tokio::select! {
            () = stop.cancelled() => break,
            // Where nobody looks any more, what is known stays true as far as anyone knows.
            Ok(()) = capabilities.changed() => is_current = false,
            () = live.0.progress.notified(), if !live.is_ready() => {}
            Some(Err(error)) = tasks.join_next() => {
                tracing::error!(%error, "a watch has ended by a mistake of the operator");
                break;
            }
        }
    }
    tasks.shutdown().await;
}

fn end(live: &Live, source: &Source, watch: &CancellationToken) {
    watch.cancel();
    let concerned = live.index().end(source);
    live.0.triggers.send(&concerned);
    lock(&live.0.problems).remove(&described(source));
}

fn is_settled(live: &Live, source: &Source) -> bool {
    live.index().is_source_listed(source) || lock(&live.0.problems).contains_key(&described(source))
}

fn described(source: &Source) -> String {
    let resource = source.kind.resource_name();
    match &source.namespace {
        Some(namespace) => format!("{resource} in {namespace}"),
        None => resource,
    }
}

/// Keeps the children of one kind.
async fn follow(live: &Live, api: Api<DynamicObject>, source: &Source, every: Duration, ended: &CancellationToken) {
    let selector = format!("app.kubernetes.io/managed-by={MANAGER}");
    let config = Config::default().labels(&selector).page_size(PAGE);
    let mut events = pin!(relisted(api, config, every).default_backoff());
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                complain(live, described(source), source.kind.resource_name(), error);
                continue;
            }
        };
        lock(&live.0.problems).remove(&described(source));
        // Under the lock of the index, so that nothing is told after the end of the source.
        let mut index = live.index();
        if ended.is_cancelled() {
            return;
        }
        let concerned = match event {
            Event::Init => {
                index.list_begins(source);
                vec![]
            }
            Event::InitDone => {
                live.0.progress.notify_one();
                index.list_ends(source)
            }
            Event::InitApply(object) | Event::Apply(object) => match kept(source.kind, object) {
                Ok(object) => index.applied(source, object),
                Err(key) => index.lost(&key),
            },
            Event::Delete(object) => match kept(source.kind, object) {
                Ok(object) => index.deleted(source, &object),
                Err(key) => index.lost(&key),
            },
        };
        drop(index);
        live.0.triggers.send(&concerned);
    }
}

/// The object as it is kept; its key when it lacks the labels of a platform's child.
fn kept(kind: Kind, object: DynamicObject) -> Result<Observed, ChildKey> {
    let key = ChildKey {
        kind,
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    };
    Observed::keep(kind, object).ok_or(key)
}

/// Tells those who want to know of a Secret that something happened to it. What it misses is found by the next look at
/// each platform: nothing is kept of a Secret, so a list would show nothing.
async fn follow_secrets(live: &Live, client: Client, namespace: Option<String>) {
    let api: Api<PartialObjectMeta<Secret>> = match &namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let events = watcher::watcher(api, Config::default().page_size(PAGE)).default_backoff();
    follow_metadata(live, namespace.as_deref(), events).await;
}

async fn follow_metadata(
    live: &Live,
    namespace: Option<&str>,
    events: impl Stream<Item = watcher::Result<Event<PartialObjectMeta<Secret>>>>,
) {
    let mut events = pin!(events);
    let described = || {
        format!(
            "secrets{}",
            namespace.map(|name| format!(" in {name}")).unwrap_or_default()
        )
    };
    while let Some(event) = events.next().await {
        if event.is_ok() {
            lock(&live.0.problems).remove(&described());
        }
        let concerned = match event {
            Ok(Event::Apply(secret) | Event::Delete(secret)) => {
                let namespace = secret.namespace().unwrap_or_default();
                live.interests().told_of(&namespace, &secret.name_any())
            }
            // What went while the watch was away shows nowhere.
            Ok(Event::InitDone) => live.interests().told_of_any(namespace),
            Ok(Event::Init | Event::InitApply(_)) => vec![],
            Err(error) => {
                complain(live, described(), "secrets".to_owned(), error);
                continue;
            }
        };
        live.0.triggers.send(&concerned);
    }
}

/// A watch broke off. That is nothing unusual: the server ends each now and then. It is shown when it may not watch.
fn complain(live: &Live, watch: String, resource: String, error: watcher::Error) {
    let Some(error) = broken(resource, error) else {
        return;
    };
    if matches!(error.class(), Class::Conflict | Class::Unavailable) || error.is_not_found() {
        tracing::debug!(%error, "a watch broke off");
    } else {
        tracing::warn!(%error, "cannot watch");
        lock(&live.0.problems).insert(watch, error.to_string());
        live.0.progress.notify_one();
    }
}
