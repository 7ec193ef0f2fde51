//! What is known of the children, and how each piece of news changes it. No I/O.
//!
//! News comes from two sides: from watches, in the order of the versions, and from answers to the operator's own writes,
//! in any order. An answer is the sooner of the two mostly, and an older one never undoes a newer: neither brings it back
//! an object that a watch has seen go.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::observed::{Observed, number};
use crate::child::{ChildKey, Kind};
use crate::names::Names;

/// One watch: a kind, in one namespace or in all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Source {
    pub(super) kind: Kind,
    pub(super) namespace: Option<String>,
}

/// What an answer must still find to count: that its source has not been listed anew since the request began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

#[derive(Debug, Default)]
struct Progress {
    /// The latest version that the watch has told of.
    latest: u128,
    /// What the list under way has told of so far.
    listing: Option<HashSet<Arc<ChildKey>>>,
    /// How many lists were begun.
    lists: u64,
    is_listed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    objects: HashMap<Arc<ChildKey>, Arc<Observed>>,
    by_platform: HashMap<Names, BTreeSet<Arc<ChildKey>>>,
    sources: HashMap<Source, Progress>,
}

/// The platforms that a piece of news concerns: none, one, or two when an object moved.
pub(super) type Concerned = Vec<Names>;

impl Index {
    pub(super) fn get(&self, key: &ChildKey) -> Option<Arc<Observed>> {
        self.objects.get(key).cloned()
    }

    pub(super) fn of(&self, names: &Names) -> Vec<Arc<Observed>> {
        let keys = self.by_platform.get(names).into_iter().flatten();
        keys.filter_map(|key| self.objects.get(key).cloned()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// The source that tells of this key, when there is one.
    fn source_of(&self, key: &ChildKey) -> Option<Source> {
        [None, Some(key.namespace.clone())]
            .into_iter()
            .map(|namespace| Source {
                kind: key.kind,
                namespace,
            })
            .find(|source| self.sources.contains_key(source))
    }

    /// Whether everything of this kind and namespace is known.
    pub(super) fn is_listed(&self, key: &ChildKey) -> bool {
        let source = self.source_of(key);
        source.is_some_and(|source| self.sources[&source].is_listed)
    }

    pub(super) fn is_source_listed(&self, source: &Source) -> bool {
        self.sources.get(source).is_some_and(|progress| progress.is_listed)
    }

    pub(super) fn begin(&mut self, source: &Source) {
        self.sources.entry(source.clone()).or_default();
    }

    /// The source has ended: nothing is known of its objects any more.
    pub(super) fn end(&mut self, source: &Source) -> Concerned {
        self.sources.remove(source);
        self.remove_all(|key| is_of(key, source))
    }

    pub(super) fn list_begins(&mut self, source: &Source) {
        let progress = self.sources.entry(source.clone()).or_default();
        progress.listing = Some(HashSet::new());
        progress.lists += 1;
    }

    pub(super) fn list_ends(&mut self, source: &Source) -> Concerned {
        let progress = self.sources.entry(source.clone()).or_default();
        progress.is_listed = true;
        let Some(listed) = progress.listing.take() else {
            return vec![];
        };
        self.remove_all(|key| is_of(key, source) && !listed.contains(key))
    }

    /// A watch or a list tells of an object.
    pub(super) fn applied(&mut self, source: &Source, object: Observed) -> Concerned {
        let progress = self.sources.entry(source.clone()).or_default();
        progress.latest = progress.latest.max(number(&object.version).unwrap_or_default());
        if let Some(listing) = &mut progress.listing {
            listing.insert(object.key.clone());
        }
        match self.objects.get(&object.key) {
            // News of our own write, or from before it.
            Some(known) if !object.is_newer_than(known) => vec![],
            _ => self.keep(object),
        }
    }

    /// A watch tells that an object has gone. `object` is its last state.
    pub(super) fn deleted(&mut self, source: &Source, object: &Observed) -> Concerned {
        let progress = self.sources.entry(source.clone()).or_default();
        progress.latest = progress.latest.max(number(&object.version).unwrap_or_default());
        match self.objects.get(&object.key) {
            // It was made anew since, which an answer has told already.
            Some(known) if known.uid != object.uid && known.is_newer_than(object) => vec![],
            _ => self.remove(&object.key).into_iter().collect(),
        }
    }

    /// What an answer must show to count.
    pub(super) fn ticket(&self, key: &ChildKey) -> Ticket {
        let source = self.source_of(key);
        Ticket(source.map_or(0, |source| self.sources[&source].lists))
    }

    /// An answer to a write tells of an object. It is no news to whoever wrote.
    pub(super) fn answered(&mut self, ticket: Ticket, object: Observed) {
        let Some(progress) = self
            .source_of(&object.key)
            .and_then(|source| self.sources.get_mut(&source))
        else {
            return;
        };
        let is_old = number(&object.version).is_some_and(|version| version <= progress.latest);
        let counts = match self.objects.get(&object.key) {
            Some(known) => known.version == object.version || object.is_newer_than(known),
            None => progress.lists == ticket.0 && !is_old,
        };
        if counts {
            // The list under way may be from before it.
            if let Some(listing) = &mut progress.listing {
                listing.insert(object.key.clone());
            }
            self.keep(object);
        }
    }

    /// An object has lost the labels by which it is found.
    pub(super) fn lost(&mut self, key: &ChildKey) -> Concerned {
        self.remove(key).into_iter().collect()
    }

    fn keep(&mut self, object: Observed) -> Concerned {
        let mut concerned = vec![object.platform.clone()];
        if let Some(former) = self.objects.get(&object.key)
            && former.platform != object.platform
        {
            concerned.extend(self.remove(&object.key));
        }
        let keys = self.by_platform.entry(object.platform.clone()).or_default();
        keys.insert(object.key.clone());
        self.objects.insert(object.key.clone(), Arc::new(object));
        concerned
    }

    fn remove(&mut self, key: &ChildKey) -> Option<Names> {
        let object = self.objects.remove(key)?;
        if let Some(keys) = self.by_platform.get_mut(&object.platform) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_platform.remove(&object.platform);
            }
        }
        Some(object.platform.clone())
    }

    fn remove_all(&mut self, is_gone: impl Fn(&ChildKey) -> bool) -> Concerned {
        let gone: Vec<_> = self.objects.keys().filter(|key| is_gone(key)).cloned().collect();
        gone.iter().filter_map(|key| self.remove(key)).collect()
    }
}

fn is_of(key: &ChildKey, source: &Source) -> bool {
    let is_there = source
        .namespace
        .as_ref()
        .is_none_or(|namespace| *namespace == key.namespace);
    key.kind == source.kind && is_there
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::names::{NAMESPACE_LABEL, PLATFORM_LABEL};

    fn object(name: &str, uid: &str, version: u64) -> Observed {
        labelled(name, uid, version, "todo")
    }

    fn labelled(name: &str, uid: &str, version: u64, platform: &str) -> Observed {
        let object = json!({"metadata": {
            "name": name, "namespace": "shop", "uid": uid, "resourceVersion": version.to_string(),
            "labels": {PLATFORM_LABEL: platform, NAMESPACE_LABEL: "shop"},
        }});
        Observed::keep(Kind::ConfigMap, serde_json::from_value(object).unwrap()).unwrap()
    }

    fn names(platform: &str) -> Names {
        Names {
            namespace: "shop".into(),
            platform: platform.into(),
        }
    }

    fn watched() -> (Index, Source) {
        let source = Source {
            kind: Kind::ConfigMap,
            namespace: None,
        };
        let mut index = Index::default();
        index.begin(&source);
        index.list_begins(&source);
        index.list_ends(&source);
        (index, source)
    }

    fn versions(index: &Index) -> Vec<(String, String)> {
        let mut found: Vec<_> = index
            .of(&names("todo"))
            .iter()
            .map(|object| (object.key.name.clone(), object.version.clone()))
            .collect();
        found.sort();
        found
    }

    #[test]
    fn the_news_of_our_own_write_is_no_news() {
        let (mut index, source) = watched();
        let written = object("a", "1", 5);
        let ticket = index.ticket(&written.key);
        index.answered(ticket, written.clone());
        assert_eq!(versions(&index), [("a".into(), "5".into())]);
        assert!(index.applied(&source, written).is_empty());
        assert_eq!(index.applied(&source, object("a", "1", 6)), [names("todo")]);
        assert!(index.applied(&source, object("a", "1", 5)).is_empty());
        assert_eq!(versions(&index), [("a".into(), "6".into())]);
    }

    #[test]
    fn a_deletion_is_news_and_leaves_nothing() {
        let (mut index, source) = watched();
        index.applied(&source, object("a", "1", 5));
        assert_eq!(index.deleted(&source, &object("a", "1", 6)), [names("todo")]);
        assert_eq!((index.len(), index.by_platform.len()), (0, 0));
    }

    #[test]
    fn a_late_answer_does_not_bring_back_what_has_gone() {
        let (mut index, source) = watched();
        let written = object("a", "1", 5);
        let ticket = index.ticket(&written.key);
        index.applied(&source, written.clone());
        index.deleted(&source, &object("a", "1", 6));
        index.answered(ticket, written.clone());
        assert_eq!(index.len(), 0);

        // Nor after a list that began when it was there and ended when it was not.
        let (mut index, source) = watched();
        let ticket = index.ticket(&written.key);
        index.list_begins(&source);
        index.list_ends(&source);
        index.answered(ticket, written);
        assert_eq!(index.len(), 0);
    }

    #[test]
    fn an_old_deletion_does_not_take_what_was_made_anew() {
        let (mut index, source) = watched();
        index.applied(&source, object("a", "1", 5));
        let anew = object("a", "2", 8);
        index.answered(index.ticket(&anew.key), anew);
        assert!(index.deleted(&source, &object("a", "1", 7)).is_empty());
        assert_eq!(versions(&index), [("a".into(), "8".into())]);
    }

    #[test]
    fn what_a_new_list_lacks_has_gone() {
        let (mut index, source) = watched();
        index.applied(&source, object("a", "1", 5));
        index.applied(&source, object("b", "2", 6));
        index.list_begins(&source);
        assert!(index.applied(&source, object("b", "2", 6)).is_empty());
        assert_eq!(index.list_ends(&source), [names("todo")]);
        assert_eq!(versions(&index), [("b".into(), "6".into())]);
    }

    #[test]
    fn what_was_made_during_a_list_outlives_its_end() {
        let (mut index, source) = watched();
        index.list_begins(&source);
        let made = object("a", "1", 5);
        index.answered(index.ticket(&made.key), made);
        assert!(index.list_ends(&source).is_empty());
        assert_eq!(versions(&index), [("a".into(), "5".into())]);
    }

    #[test]
    fn a_source_that_ends_takes_its_objects_along() {
        let (mut index, source) = watched();
        index.applied(&source, object("a", "1", 5));
        assert!(index.is_listed(&object("a", "1", 5).key));
        assert_eq!(index.end(&source), [names("todo")]);
        assert!(!index.is_listed(&object("a", "1", 5).key));
        let late = object("a", "1", 9);
        index.answered(index.ticket(&late.key), late);
        assert_eq!(index.len(), 0);
    }

    #[test]
    fn an_object_that_moves_concerns_both_platforms() {
        let (mut index, source) = watched();
        index.applied(&source, object("a", "1", 5));
        let mut concerned = index.applied(&source, labelled("a", "1", 6, "other"));
        concerned.sort();
        assert_eq!(concerned, [names("other"), names("todo")]);
        assert!(index.of(&names("todo")).is_empty());
        assert_eq!(index.of(&names("other")).len(), 1);
    }

    #[test]
    fn an_object_without_its_labels_is_known_no_more() {
        let (mut index, source) = watched();
        index.applied(&source, object("a", "1", 5));
        assert_eq!(index.lost(&object("a", "1", 6).key), [names("todo")]);
        assert_eq!(index.len(), 0);
    }

    #[test]
    fn what_is_kept_of_an_object_shows_no_content() {
        let mut secret = object("a", "1", 5);
        secret.answers = Some("hash".into());
        assert!(secret.answers("hash") && !secret.answers("other"));
        assert!(!format!("{secret:?}").contains("labels"));
        assert_eq!(secret.labels().len(), 2);
    }
}
