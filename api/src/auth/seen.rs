//! Which users this process has noted as known.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::PgPool;
use todo_tasks::{UserId, known_user};

/// The most users that are remembered; then it begins anew, at the cost of one look into the database for each.
const MOST: usize = 100_000;

/// The users that were noted. Of each only a hash with a key of this process.
#[derive(Clone, Default)]
pub(crate) struct SeenUsers {
    hasher: RandomState,
    hashes: Arc<Mutex<HashSet<u64>>>,
}

impl SeenUsers {
    /// Notes the user in the database, once for each process and beside the request: that does not wait for it, and
    /// does not fail with it.
    pub(crate) fn note(&self, pool: &PgPool, user: &UserId) {
        let hash = self.hasher.hash_one(user);
        {
            let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
            if hashes.len() >= MOST {
                hashes.clear();
            }
            if !hashes.insert(hash) {
                return;
            }
        }
        let (seen, pool, user) = (self.clone(), pool.clone(), user.clone());
        tokio::spawn(async move {
            if let Err(error) = known_user::record(&pool, &user).await {
                tracing::warn!(%error, "could not note that a user has come; their next request tries again");
                seen.hashes.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash);
            }
        });
    }
}
