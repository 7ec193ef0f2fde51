//! When what failed is tried again.
//!
//! Here: for each object how often it has failed in a row, and the wait that follows from that and from the kind of
//! failure. Not here: the queue that waits. What fails for its own reasons waits for itself only, so one broken object
//! holds up no other.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Class, Error};

/// The longest wait of all, unless an API server asks for more.
const LONGEST: Duration = Duration::from_mins(5);
/// Of how many objects it is remembered how often they failed.
const CAPACITY: usize = 20_000;

/// What has failed, and how often in a row.
#[derive(Debug)]
pub struct Backoff<K> {
    failures: Mutex<HashMap<K, u32>>,
    capacity: usize,
}

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self {
            failures: Mutex::default(),
            capacity: CAPACITY,
        }
    }
}

impl<K: Eq + Hash> Backoff<K> {
    /// Notes a failure of `key`, and answers how long to wait before it is tried again: drawn anew each time, from the
    /// whole range up to a bound that doubles with each failure, so that what failed together does not return together.
    pub fn failed(&self, key: K, error: &Error) -> Duration {
        let mut failures = self.failures();
        let is_full = failures.len() >= self.capacity && !failures.contains_key(&key);
        let failed_before = if is_full {
            0
        } else {
            let count = failures.entry(key).or_default();
            *count += 1;
            *count - 1
        };
        drop(failures);
        let (shortest, longest) = bounds(error.class(), failed_before);
        let drawn = rand::random_range(shortest..=longest);
        error.retry_after().map_or(drawn, |asked| asked + drawn)
    }

    /// Notes that `key` works, or is gone: its next failure is its first.
    pub fn succeeded(&self, key: &K) {
        self.failures().remove(key);
    }

    /// How many objects fail at present.
    pub fn len(&self) -> usize {
        self.failures().len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<K, u32>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between what a wait is drawn. The lower bound keeps a queue from spinning.
fn bounds(class: Class, failed_before: u32) -> (Duration, Duration) {
    let (first, longest) = match class {
        Class::Conflict => (Duration::from_millis(100), Duration::from_secs(10)),
        Class::Unavailable => (Duration::from_secs(1), Duration::from_mins(1)),
        Class::Denied | Class::Invalid | Class::NotOurs => (Duration::from_secs(5), LONGEST),
        Class::Bug => (Duration::from_secs(30), LONGEST),
    };
    let doubled = first.saturating_mul(1 << (failed_before + 1).min(20));
    (first / 2, doubled.min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Call;

    fn error(code: u16, retry_after: u32) -> Error {
        let mut status = kube::core::Status::failure("no", "").with_code(code);
        if retry_after > 0 {
            let details = format!("{{\"retryAfterSeconds\": {retry_after}}}");
            status = status.with_details(serde_json::from_str(&details).unwrap());
        }
        Call::new("patch", "services", "a", "b").failed(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn waits_grow_to_a_bound_and_begin_anew_after_a_success() {
        let backoff = Backoff::default();
        let conflict = error(409, 0);
        let waits: Vec<_> = (0..60).map(|_| backoff.failed("a", &conflict)).collect();
        assert!(waits[0] <= Duration::from_millis(200), "{:?}", waits[0]);
        assert!(waits.iter().all(|wait| *wait >= Duration::from_millis(50)));
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(10)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_secs(2)), "{waits:?}");
        backoff.succeeded(&"a");
        assert!(backoff.is_empty());
        assert!(backoff.failed("a", &conflict) <= Duration::from_millis(200));
    }

    #[test]
    fn what_failed_together_does_not_return_together() {
        let backoff = Backoff::default();
        let down = error(503, 0);
        let waits: std::collections::BTreeSet<_> = (0..100).map(|key| backoff.failed(key, &down)).collect();
        assert!(waits.len() > 90, "{waits:?}");
        assert_eq!(backoff.len(), 100);
    }

    #[test]
    fn a_wait_that_was_asked_for_is_kept() {
        let asked = error(429, 600);
        assert!(Backoff::default().failed("a", &asked) >= Duration::from_mins(10));
    }

    #[test]
    fn what_needs_a_person_waits_longer_than_what_does_not() {
        assert!(bounds(Class::Conflict, 3).1 < bounds(Class::Unavailable, 3).1);
        assert!(bounds(Class::Unavailable, 3).1 < bounds(Class::Denied, 3).1);
        assert_eq!(bounds(Class::Denied, u32::MAX - 1).1, LONGEST);
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let backoff = Backoff {
            failures: Mutex::default(),
            capacity: 2,
        };
        let down = error(503, 0);
        for key in 0..10 {
            assert!(backoff.failed(key, &down) >= Duration::from_millis(500));
        }
        assert_eq!(backoff.len(), 2);
    }
}
