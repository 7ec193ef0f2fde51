//! Which platforms want to know of which Secrets. Of the Secrets themselves nothing is kept.

use std::collections::{BTreeSet, HashMap};

use crate::names::Names;

/// A Secret: namespace and name.
pub type SecretName = (String, String);

#[derive(Debug, Default)]
pub(super) struct Interests {
    by_secret: HashMap<SecretName, BTreeSet<Names>>,
    by_platform: HashMap<Names, Interest>,
    /// How much news there has been of all.
    news: u64,
}

#[derive(Debug)]
struct Interest {
    in_secrets: BTreeSet<SecretName>,
    /// The number of the last news of them.
    news: u64,
}

impl Interests {
    /// `names` wants to know of these from now on, and of no others.
    pub(super) fn register(&mut self, names: &Names, secrets: BTreeSet<SecretName>) {
        let before = self.by_platform.get(names);
        if before.is_some_and(|before| before.in_secrets == secrets) {
            return;
        }
        self.forget(names);
        for secret in &secrets {
            let interested = self.by_secret.entry(secret.clone()).or_default();
            interested.insert(names.clone());
        }
        if !secrets.is_empty() {
            self.news += 1;
            let interest = Interest {
                in_secrets: secrets,
                news: self.news,
            };
            self.by_platform.insert(names.clone(), interest);
        }
    }

    pub(super) fn forget(&mut self, names: &Names) {
        let Some(interest) = self.by_platform.remove(names) else {
            return;
        };
        for secret in interest.in_secrets {
            if let Some(interested) = self.by_secret.get_mut(&secret) {
                interested.remove(names);
                if interested.is_empty() {
                    self.by_secret.remove(&secret);
                }
            }
        }
    }

    /// There is news of this Secret. Returned is who wants to know.
    pub(super) fn told_of(&mut self, namespace: &str, name: &str) -> Vec<Names> {
        let secret = (namespace.to_owned(), name.to_owned());
        let interested = self.by_secret.get(&secret);
        let interested: Vec<Names> = interested.into_iter().flatten().cloned().collect();
        self.note(&interested);
        interested
    }

    /// There may be news of any Secret in this namespace, or in any. Returned is who wants to know.
    pub(super) fn told_of_any(&mut self, namespace: Option<&str>) -> Vec<Names> {
        let interested = self.by_platform.iter().filter(|(_, interest)| {
            let mut secrets = interest.in_secrets.iter();
            secrets.any(|(of, _)| namespace.is_none_or(|namespace| namespace == of))
        });
        let interested: Vec<Names> = interested.map(|(names, _)| names.clone()).collect();
        self.note(&interested);
        interested
    }

    /// The number of the last news that `names` wanted to know; 0 for nothing.
    pub(super) fn news(&self, names: &Names) -> u64 {
        self.by_platform.get(names).map_or(0, |interest| interest.news)
    }

    fn note(&mut self, interested: &[Names]) {
        self.news += 1;
        for names in interested {
            if let Some(interest) = self.by_platform.get_mut(names) {
                interest.news = self.news;
            }
        }
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
        assert_eq!(interests.told_of("shop", "db"), [names("a"), names("b")]);
        assert!(interests.told_of("other", "db").is_empty());
        interests.register(&names("a"), secrets(&["kafka"]));
        assert_eq!(interests.told_of("shop", "db"), [names("b")]);
        assert_eq!(interests.told_of_any(Some("shop")).len(), 2);
        assert!(interests.told_of_any(Some("other")).is_empty());
        interests.forget(&names("a"));
        interests.register(&names("b"), BTreeSet::new());
        assert!(interests.by_secret.is_empty() && interests.by_platform.is_empty());
    }

    #[test]
    fn news_of_what_was_asked_for_shows_and_no_other() {
        let (a, b) = (names("a"), names("b"));
        let mut interests = Interests::default();
        interests.register(&a, secrets(&["db", "kafka"]));
        interests.register(&b, secrets(&["db"]));
        let mut before = (0, 0);
        let mut changed = |interests: &Interests| {
            let after = (interests.news(&a), interests.news(&b));
            let changed = (after.0 != before.0, after.1 != before.1);
            before = after;
            changed
        };
        assert_eq!(changed(&interests), (true, true));
        interests.told_of("shop", "kafka");
        assert_eq!(changed(&interests), (true, false));
        interests.told_of("shop", "db");
        assert_eq!(changed(&interests), (true, true));
        interests.told_of("other", "db");
        interests.told_of_any(Some("other"));
        interests.register(&b, secrets(&["db"]));
        assert_eq!(changed(&interests), (false, false));
        interests.told_of_any(None);
        assert_eq!(changed(&interests), (true, true));
        // Who comes back knows nothing of what was meanwhile.
        interests.forget(&b);
        interests.register(&b, secrets(&["db"]));
        assert_eq!(changed(&interests), (false, true));
    }
}
