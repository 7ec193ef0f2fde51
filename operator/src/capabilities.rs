//! What a cluster offers beyond Kubernetes itself: which optional APIs it serves, and in which version.
//!
//! Here is what is known about them, as data. That it is read by discovery, and read again, is the runtime's work.

use std::collections::BTreeMap;

use crate::child::Kind;

/// The optional kinds that a cluster serves, each with the version to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    versions: BTreeMap<Kind, String>,
}

impl Capabilities {
    /// Whether objects of this kind can be made. Those of Kubernetes itself always can.
    pub fn has(&self, kind: Kind) -> bool {
        kind.optional().is_none() || self.versions.contains_key(&kind)
    }

    /// The version in which this kind is served, `v1` for example; that of [`Kind::version`] when it is not optional.
    pub fn version(&self, kind: Kind) -> Option<&str> {
        match kind.optional() {
            None => Some(kind.version()),
            Some(_) => self.versions.get(&kind).map(String::as_str),
        }
    }

    /// Notes that the cluster serves `kind` in these versions. The first that the operator knows is used.
    pub fn serve(&mut self, kind: Kind, served: &[&str]) {
        let known = kind.optional().unwrap_or_default();
        if let Some(version) = known.iter().find(|known| served.contains(known)) {
            self.versions.insert(kind, (*version).to_owned());
        }
    }
}
