//! Which platforms want to know of which Secrets. Of the Secrets themselves nothing is kept.

use std::collections::{BTreeSet, HashMap};

use crate::names::Names;

/// A Secret: namespace and name.
pub type SecretName = (String, String);

#[derive(Debug, Default)]
pub(super) struct Interests {
    by_secret: HashMap<SecretName, BTreeSet<Names>>,
    by_platform: HashMap<Names, BTreeSet<SecretName>>,
}

impl Interests {
    /// `names` wants to know of these from now on, and of no others.
    pub(super) fn register(&mut self, names: &Names, secrets: BTreeSet<SecretName>) {
        if self.by_platform.get(names) == Some(&secrets) {
            return;
        }
        self.forget(names);
        for secret in &secrets {
            let interested = self.by_secret.entry(secret.clone()).or_default();
            interested.insert(names.clone());
        }
        if !secrets.is_empty() {
            self.by_platform.insert(names.clone(), secrets);
        }
    }

    pub(super) fn forget(&mut self, names: &Names) {
        for secret in self.by_platform.remove(names).unwrap_or_default() {
            if let Some(interested) = self.by_secret.get_mut(&secret) {
                interested.remove(names);
                if interested.is_empty() {
                    self.by_secret.remove(&secret);
                }
            }
        }
    }

    /// Who wants to know of this Secret.
    pub(super) fn in_secret(&self, namespace: &str, name: &str) -> Vec<Names> {
        let secret = (namespace.to_owned(), name.to_owned());
        let interested = self.by_secret.get(&secret);
        interested.into_iter().flatten().cloned().collect()
    }

    /// Who wants to know of any Secret in this namespace, or in any.
    pub(super) fn in_namespace(&self, namespace: Option<&str>) -> Vec<Names> {
        self.by_platform
            .iter()
            .filter(|(_, secrets)| {
                let mut secrets = secrets.iter();
                secrets.any(|(of, _)| namespace.is_none_or(|namespace| namespace == of))
            })
            .map(|(names, _)| names.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(platform: &str) -> Names {
        Names {
            namespace: "shop".into(),
            platform: platform.into(),
        }
    }

    fn secrets(names: &[&str]) -> BTreeSet<SecretName> {
        names.iter().map(|name| ("shop".into(), (*name).into())).collect()
    }

    #[test]
    fn only_those_who_asked_are_told_and_only_of_what_they_asked_for_last() {
        let mut interests = Interests::default();
        interests.register(&names("a"), secrets(&["db", "kafka"]));
        interests.register(&names("b"), secrets(&["db"]));
        assert_eq!(interests.in_secret("shop", "db"), [names("a"), names("b")]);
        assert!(interests.in_secret("other", "db").is_empty());
        interests.register(&names("a"), secrets(&["kafka"]));
        assert_eq!(interests.in_secret("shop", "db"), [names("b")]);
        assert_eq!(interests.in_namespace(Some("shop")).len(), 2);
        assert!(interests.in_namespace(Some("other")).is_empty());
        interests.forget(&names("a"));
        interests.register(&names("b"), BTreeSet::new());
        assert!(interests.by_secret.is_empty() && interests.by_platform.is_empty());
    }
}
