//! A secret that may change while the process runs: the one that holds, and for a while after a change the former.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How long a former secret still counts.
pub(super) const GRACE: Duration = Duration::from_hours(1);

/// The most former secrets that are remembered; more often than that nobody means to change one within the grace.
const MOST_FORMER: usize = 4;

/// What is made of a secret, for the current one and those before. Clones share it.
pub(super) struct Rotation<T> {
    known: Arc<RwLock<Known<T>>>,
}

struct Known<T> {
    current: Arc<T>,
    /// The newest first, each with the instant until which it counts.
    former: Vec<(Arc<T>, Instant)>,
}

impl<T> Rotation<T> {
    pub(super) fn new(current: T) -> Self {
        Self {
            known: Arc::new(RwLock::new(Known {
                current: Arc::new(current),
                former: Vec::new(),
            })),
        }
    }

    /// From `now` on takes this one, and for an hour also the former.
    pub(super) fn change_at(&self, new: T, now: Instant) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let replaced = std::mem::replace(&mut known.current, Arc::new(new));
        known.former.insert(0, (replaced, now + GRACE));
        known.former.truncate(MOST_FORMER);
    }

    /// Those that count, the current one and then the newest first.
    pub(super) fn at(&self, now: Instant) -> (Arc<T>, Vec<Arc<T>>) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let former = known.former.iter().filter(|(_, until)| now < *until);
        let former = former.map(|(former, _)| Arc::clone(former)).collect();
        (Arc::clone(&known.current), former)
    }
}

impl<T> Clone for Rotation<T> {
    fn clone(&self) -> Self {
        Self {
            known: Arc::clone(&self.known),
        }
    }
}
