//! The operator's own children as the cluster has them, and what happens to them.
//!
//! Here: one watch per kind that the cluster serves, by the operator's label, started when the kind appears and ended
//! when it goes; what they tell, kept small ([`Observed`]) and found by platform; which platform each piece of news
//! concerns ([`Live::triggers`]), deletions too (kube-rs/kube#1768 is how they get lost). Also a watch of the metadata of
//! all Secrets, which keeps nothing and tells only those who asked ([`Live::interest`]). Not here: what is done about it.
//!
//! The path of news: a watch ([`watch`]) hands an object to the index, which says whom it concerns; their names wait
//! for whoever listens. The answers of `apply` take the same path from the other side ([`Live::answered`]), so that a
//! pass sees its own writes at once, and is not woken by them.

mod index;
mod interest;
mod observed;
mod triggers;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kube::Client;
use kube::core::DynamicObject;
use kube::runtime::reflector::ObjectRef;
use todo_crds::TodoPlatform;
use tokio::sync::{Notify, watch as channel};
use tokio_util::sync::CancellationToken;

use self::index::{Index, Source};
use self::interest::Interests;
use self::triggers::Triggers;
use crate::capabilities::Capabilities;
use crate::child::{ChildKey, Kind};
use crate::names::Names;

pub use self::index::Ticket;
pub use self::interest::SecretName;
pub use self::observed::Observed;

/// Where the operator looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The namespaces of platforms; `None` for all.
    pub namespaces: Option<BTreeSet<String>>,
    /// The namespaces of Kafka clusters, looked at besides where `namespaces` narrows.
    pub kafka_namespaces: BTreeSet<String>,
}

impl Scope {
    /// The namespaces in which this kind is watched, `None` for all at once.
    fn of(&self, kind: Kind) -> Vec<Option<String>> {
        let Some(namespaces) = &self.namespaces else {
            return vec![None];
        };
        let is_kafkas = matches!(kind, Kind::KafkaTopic | Kind::KafkaUser);
        let besides = self.kafka_namespaces.iter().filter(|_| is_kafkas);
        let all: BTreeSet<_> = namespaces.iter().chain(besides).cloned().collect();
        all.into_iter().map(Some).collect()
    }

    /// The namespaces in which Secrets are watched: also Kafka's, for those of its users.
    fn of_secrets(&self) -> Vec<Option<String>> {
        let Some(namespaces) = &self.namespaces else {
            return vec![None];
        };
        let all: BTreeSet<_> = namespaces.union(&self.kafka_namespaces).cloned().collect();
        all.into_iter().map(Some).collect()
    }

    /// Every watch that this cluster asks for.
    fn sources(&self, capabilities: &Capabilities) -> BTreeSet<Source> {
        let served = Kind::ALL.into_iter().filter(|kind| capabilities.has(*kind));
        served
            .flat_map(|kind| {
                let namespaces = self.of(kind).into_iter();
                namespaces.map(move |namespace| Source { kind, namespace })
            })
            .collect()
    }
}

/// The children as the cluster has them. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub struct Live(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    index: Mutex<Index>,
    interests: Mutex<Interests>,
    triggers: Triggers,
    /// Watches that do not work, with what they say.
    problems: Mutex<BTreeMap<String, String>>,
    is_ready: channel::Sender<bool>,
    /// A first list is in, or will not come.
    progress: Notify,
}

impl Live {
    /// Watches until `stop`, and lists everything anew each `every` or so. What is watched follows `capabilities`. It ends
    /// before that only by a mistake of the operator, and nothing that is known can be trusted then.
    pub async fn run(
        &self,
        client: Client,
        capabilities: channel::Receiver<Capabilities>,
        scope: Scope,
        every: Duration,
        stop: CancellationToken,
    ) {
        watch::run(self, client, capabilities, scope, every, stop).await;
    }

    /// Every child of a platform, those on their way out too.
    pub fn of(&self, names: &Names) -> Vec<Arc<Observed>> {
        self.index().of(names)
    }

    /// One child.
    pub fn get(&self, key: &ChildKey) -> Option<Arc<Observed>> {
        self.index().get(key)
    }

    /// How many children are known.
    pub fn len(&self) -> usize {
        self.index().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all children of this one's kind and namespace are known, so that one that is not known is not there.
    pub fn is_listed(&self, key: &ChildKey) -> bool {
        self.index().is_listed(key)
    }

    /// Whether every watch that was wanted at the start has told what there is. One that may not, does not hold it up.
    pub fn is_ready(&self) -> bool {
        *self.0.is_ready.borrow()
    }

    /// Waits until [`Self::is_ready`].
    pub async fn ready(&self) {
        let mut is_ready = self.0.is_ready.subscribe();
        // The sender lives as long as `self`.
        let _ = is_ready.wait_for(|is_ready| *is_ready).await;
    }

    /// The platforms that something has happened to since, in the form of
    /// [`Controller::reconcile_on`](kube::runtime::Controller::reconcile_on). Never ends. A platform that waits to be
    /// taken waits once.
    pub fn triggers(&self) -> impl Stream<Item = ObjectRef<TodoPlatform>> + Send + use<> {
        let names = self.0.triggers.listen();
        names.map(|names| ObjectRef::new(&names.platform).within(&names.namespace))
    }

    /// From now on a change of one of these Secrets is a trigger for this platform, and a change of no other.
    /// Register first and read then: what changes between is not lost so.
    pub fn interest(&self, names: &Names, secrets: BTreeSet<SecretName>) {
        self.interests().register(names, secrets);
    }

    /// A number that is another one after each change of the Secrets that this platform asked for, and after each time
    /// that the watch may have missed one.
    pub fn news_of_secrets(&self, names: &Names) -> u64 {
        self.interests().news(names)
    }

    /// The platform is gone: it is told of nothing any more.
    pub fn forget(&self, names: &Names) {
        self.interests().forget(names);
    }

    /// The watches that do not work at present: what they are of, and what the API server says.
    pub fn problems(&self) -> BTreeMap<String, String> {
        lock(&self.0.problems).clone()
    }

    /// To be taken before a write, for [`Self::answered`].
    pub fn ticket(&self, key: &ChildKey) -> Ticket {
        self.index().ticket(key)
    }

    /// What a write was answered with. `hash` is of what was applied.
    pub fn answered(&self, ticket: Ticket, kind: Kind, object: DynamicObject, hash: Option<&str>) {
        let Some(mut object) = Observed::keep(kind, object) else {
            return;
        };
        object.answers = hash.map(ToOwned::to_owned);
        self.index().answered(ticket, object);
    }

    /// Waits until this child is gone, or `patience` is over; whether it is gone.
    pub async fn gone(&self, key: &ChildKey, patience: Duration) -> bool {
        let mut triggers = std::pin::pin!(self.0.triggers.listen());
        let watching = async {
            while self.get(key).is_some() {
                triggers.next().await;
            }
        };
        tokio::time::timeout(patience, watching).await.is_ok()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.0.index)
    }

    fn interests(&self) -> MutexGuard<'_, Interests> {
        lock(&self.0.interests)
    }
}

/// Every lock here is held for a few lines that cannot leave things half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_scope_looks_into_kafkas_namespace_for_kafkas_kinds_only() {
        let scope = Scope {
            namespaces: Some(["shop".to_owned()].into()),
            kafka_namespaces: ["kafka".to_owned()].into(),
        };
        assert_eq!(scope.of(Kind::Deployment), [Some("shop".to_owned())]);
        let both = [Some("kafka".to_owned()), Some("shop".to_owned())];
        assert_eq!(scope.of(Kind::KafkaTopic), both);
        assert_eq!(scope.of_secrets(), both);
        assert_eq!(Scope::default().of(Kind::KafkaTopic), [None]);
    }

    #[test]
    fn only_what_is_served_is_watched() {
        let mut capabilities = Capabilities::default();
        let scope = Scope::default();
        let kinds = |capabilities: &Capabilities| scope.sources(capabilities).len();
        assert_eq!(kinds(&capabilities), 11);
        capabilities.serve(Kind::Component, &["v1alpha1"]);
        assert_eq!(kinds(&capabilities), 12);
    }
}
