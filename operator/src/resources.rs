//! The resources of a kind as the cluster has them, and who of them has changed.
//!
//! Here: a store that a watch fills, and the stream of what changes in it, in this order: whoever is told of a change
//! finds it in the store. Not here: what is done about it, and the children of platforms ([`live`](crate::live)).
//!
//! After the first, a list is told as the changes that it shows: what it lacks has gone, and what is as it was is no
//! news. So that everything is listed anew costs no passes, and no second copy of everything.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::sync::watch::error::RecvError;

use crate::error::Class;
use crate::relist::{broken, relisted};

/// How many objects one answer of a list holds at the most: what is read at once is in memory at once.
const PAGE: u32 = 250;

/// One that has changed, in its last state when it is gone. Never an error: a watch begins again by itself.
pub(crate) type Change<K> = Result<DeserializeGuard<K>, watcher::Error>;

/// Those that change. It never ends.
pub(crate) type Changes<K> = BoxStream<'static, Change<K>>;

/// The objects of a kind as the cluster has them, without what nobody reads. One that cannot be read is among them, as
/// such. Clones share them.
#[derive(Clone)]
pub struct Resources<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<DeserializeGuard<K>>,
    filled: watch::Receiver<bool>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Resources<K> {
    /// Waits until the first list has told of everything, so that what is not here is not there. Any number may wait: of
    /// those who wait for the store itself only the last is woken.
    ///
    /// # Errors
    /// When nobody fills it any more.
    pub(crate) async fn filled(&self) -> Result<(), RecvError> {
        self.filled.clone().wait_for(|filled| *filled).await.map(|_| ())
    }

    /// The object of this name.
    pub(crate) fn get(&self, reference: &ObjectRef<DeserializeGuard<K>>) -> Option<Arc<DeserializeGuard<K>>> {
        self.store.get(reference)
    }

    /// Every object.
    pub(crate) fn all(&self) -> Vec<Arc<DeserializeGuard<K>>> {
        self.store.state()
    }

    /// What a controller looks into.
    pub(crate) fn store(&self) -> Store<DeserializeGuard<K>> {
        self.store.clone()
    }
}

/// The objects of a kind, and a stream of those that change, which must be polled for either.
pub(crate) fn watched<K>(api: Api<DeserializeGuard<K>>, every: Duration) -> (Resources<K>, Changes<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let mut keeper = Keeper::new();
    let resources = keeper.resources();
    let events = relisted(api, watcher::Config::default().page_size(PAGE), every);
    let changes = events
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .flat_map(move |event| match event {
            Ok(event) => stream::iter(keeper.keep(event)),
            Err(error) => {
                complain::<K>(error);
                stream::iter(vec![])
            }
        })
        .map(Ok);
    (resources, changes.boxed())
}

/// What fills a store.
struct Keeper<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<DeserializeGuard<K>>,
    writer: Writer<DeserializeGuard<K>>,
    /// Whether the first list has come to its end.
    filled: watch::Sender<bool>,
    /// What the list under way has told of so far, when it is not the first.
    listed: Option<HashSet<ObjectRef<DeserializeGuard<K>>>>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Keeper<K> {
    fn new() -> Self {
        let (store, writer) = reflector::store();
        Self {
            store,
            writer,
            filled: watch::Sender::new(false),
            listed: None,
        }
    }

    fn resources(&self) -> Resources<K> {
        Resources {
            store: self.store.clone(),
            filled: self.filled.subscribe(),
        }
    }

    /// Takes an event of the watch, and answers what changed by it.
    fn keep(&mut self, event: Event<DeserializeGuard<K>>) -> Vec<DeserializeGuard<K>> {
        let is_first = !*self.filled.borrow();
        match event {
            Event::Init if !is_first => {
                self.listed = Some(HashSet::new());
                vec![]
            }
            Event::InitApply(object) if !is_first => {
                let reference = ObjectRef::from_obj(&object);
                let known = self.store.get(&reference);
                self.listed.get_or_insert_default().insert(reference);
                if known.is_some_and(|known| is_same(known.as_ref(), &object)) {
                    return vec![];
                }
                self.told(Event::Apply(object))
            }
            Event::InitDone if !is_first => {
                let listed = self.listed.take().unwrap_or_default();
                let known = self.store.state().into_iter();
                let gone = known.filter(|known| !listed.contains(&ObjectRef::from_obj(known.as_ref())));
                let gone: Vec<_> = gone.collect();
                let told = gone.into_iter().map(|gone| self.told(Event::Delete((*gone).clone())));
                told.flatten().collect()
            }
            event => self.told(event),
        }
    }

    fn told(&mut self, event: Event<DeserializeGuard<K>>) -> Vec<DeserializeGuard<K>> {
        self.writer.apply_watcher_event(&event);
        match event {
            Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => vec![object],
            Event::Init => vec![],
            Event::InitDone => {
                self.filled.send_replace(true);
                vec![]
            }
        }
    }
}

fn is_same<K: Resource<DynamicType = ()>>(one: &K, other: &K) -> bool {
    let (one, other) = (one.meta(), other.meta());
    one.uid == other.uid && one.resource_version == other.resource_version
}

/// A watch broke off. It is shown when it may not watch, which does not mend itself.
fn complain<K: Resource<DynamicType = ()>>(error: watcher::Error) {
    let resource = format!("{}.{}", K::plural(&()), K::group(&()));
    let Some(error) = broken(resource, error) else {
        return;
    };
    if matches!(error.class(), Class::Conflict | Class::Unavailable) {
        tracing::debug!(%error, "a watch broke off");
    } else {
        tracing::warn!(%error, "cannot watch");
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn map(name: &str, version: u32) -> DeserializeGuard<ConfigMap> {
        let object = json!({"metadata": {
            "name": name, "namespace": "shop", "uid": name, "resourceVersion": version.to_string(),
        }});
        DeserializeGuard(Ok(serde_json::from_value(object).unwrap()))
    }

    fn list(keeper: &mut Keeper<ConfigMap>, objects: &[(&str, u32)]) -> Vec<(String, String)> {
        let mut told = keeper.keep(Event::Init);
        for (name, version) in objects {
            told.extend(keeper.keep(Event::InitApply(map(name, *version))));
        }
        told.extend(keeper.keep(Event::InitDone));
        told.iter().map(shown).collect()
    }

    fn shown(object: &DeserializeGuard<ConfigMap>) -> (String, String) {
        (object.name_any(), object.resource_version().unwrap_or_default())
    }

    fn stored(keeper: &Keeper<ConfigMap>) -> Vec<(String, String)> {
        let mut stored: Vec<_> = keeper.store.state().iter().map(|object| shown(object)).collect();
        stored.sort();
        stored
    }

    fn pairs(objects: &[(&str, u32)]) -> Vec<(String, String)> {
        objects
            .iter()
            .map(|(name, version)| ((*name).to_owned(), version.to_string()))
            .collect()
    }

    #[tokio::test]
    async fn any_number_may_wait_until_the_first_list_has_ended() {
        let mut keeper = Keeper::<ConfigMap>::new();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let resources = keeper.resources();
                tokio::spawn(async move { resources.filled().await })
            })
            .collect();
        tokio::task::yield_now().await;
        keeper.keep(Event::Init);
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        keeper.keep(Event::InitDone);
        for waiting in waiting {
            let woken = tokio::time::timeout(Duration::from_secs(10), waiting).await;
            woken.unwrap().unwrap().unwrap();
        }
    }

    #[test]
    fn a_first_list_tells_of_everything_and_a_later_one_of_what_a_watch_has_missed() {
        let mut keeper = Keeper::new();
        let first = [("edited", 1), ("gone", 2), ("same", 3)];
        assert_eq!(list(&mut keeper, &first), pairs(&first));
        assert_eq!(stored(&keeper), pairs(&first));
        let told = list(&mut keeper, &[("edited", 5), ("new", 6), ("same", 3)]);
        assert_eq!(told, pairs(&[("edited", 5), ("new", 6), ("gone", 2)]));
        assert_eq!(stored(&keeper), pairs(&[("edited", 5), ("new", 6), ("same", 3)]));
    }

    #[test]
    fn what_is_told_of_is_in_the_store_already() {
        let mut keeper = Keeper::new();
        list(&mut keeper, &[("a", 1)]);
        keeper.keep(Event::Init);
        keeper.keep(Event::InitApply(map("a", 2)));
        assert_eq!(stored(&keeper), pairs(&[("a", 2)]));
    }

    #[test]
    fn a_list_that_broke_off_takes_nothing_away() {
        let mut keeper = Keeper::new();
        list(&mut keeper, &[("a", 1), ("b", 2)]);
        keeper.keep(Event::Init);
        keeper.keep(Event::InitApply(map("a", 1)));
        assert_eq!(list(&mut keeper, &[("a", 1), ("b", 2)]), []);
        assert_eq!(stored(&keeper), pairs(&[("a", 1), ("b", 2)]));
    }

    #[test]
    fn a_first_list_that_broke_off_is_still_the_first() {
        let mut keeper = Keeper::new();
        keeper.keep(Event::Init);
        keeper.keep(Event::InitApply(map("a", 1)));
        assert_eq!(list(&mut keeper, &[("b", 2)]), pairs(&[("b", 2)]));
        assert_eq!(stored(&keeper), pairs(&[("b", 2)]));
    }
}
