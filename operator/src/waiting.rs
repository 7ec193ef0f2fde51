//! Who waits for a pass.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Namespace and name.
pub type Key = (String, String);

/// Those that something has happened to and whose pass has not begun. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<Mutex<HashSet<Key>>>);

impl Waiting {
    /// This one waits from now on. Returned is how many do.
    pub fn add(&self, key: Key) -> usize {
        let mut waiting = self.waiting();
        waiting.insert(key);
        waiting.len()
    }

    /// This one waits no more. Returned is how many do.
    pub fn remove(&self, key: &Key) -> usize {
        let mut waiting = self.waiting();
        waiting.remove(key);
        waiting.len()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting().len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn waiting(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
