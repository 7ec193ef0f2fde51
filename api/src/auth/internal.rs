//! The key of the platform's own parts: who shows it may use the internal routes, for whomever.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::rotation::Rotation;
use super::{MIN_SECRET_BYTES, bearer_token};
use crate::error::{Error, Result};
use crate::state::ApiState;

/// The keys that open the internal routes. Clones share them.
#[derive(Clone)]
pub struct InternalKeys {
    digests: Rotation<[u8; 32]>,
}

impl InternalKeys {
    pub(crate) fn new(key: &[u8]) -> Result<Self> {
        Ok(Self {
            digests: Rotation::new(digest(key)?),
        })
    }

    /// From now on takes this key, and for an hour also the former.
    ///
    /// # Errors
    /// [`Error::Config`] when the key is too short; then nothing changes.
    pub fn change(&self, key: &[u8]) -> Result<()> {
        self.change_at(key, Instant::now())
    }

    fn change_at(&self, key: &[u8], now: Instant) -> Result<()> {
        self.digests.change_at(digest(key)?, now);
        Ok(())
    }

    /// Whether it is one of the keys. It takes as long for one that is nearly right as for any other.
    fn opens_at(&self, shown: &str, now: Instant) -> bool {
        let shown = Sha256::digest(shown);
        let (current, former) = self.digests.at(now);
        let is_one = former
            .iter()
            .chain([&current])
            .fold(Choice::from(0), |is_one, known| is_one | known[..].ct_eq(&shown[..]));
        is_one.into()
    }
}

impl std::fmt::Debug for InternalKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InternalKeys").finish_non_exhaustive()
    }
}

fn digest(key: &[u8]) -> Result<[u8; 32]> {
    if key.len() < MIN_SECRET_BYTES {
        return Err(Error::Config(format!(
            "the internal key must have at least {MIN_SECRET_BYTES} bytes, has {}",
            key.len()
        )));
    }
    Ok(Sha256::digest(key).into())
}

/// Lets a request with the key through, and no other.
pub(crate) async fn only_with_key(State(api): State<Arc<ApiState>>, request: Request, next: Next) -> Result<Response> {
    let shown = bearer_token(request.headers())?;
    let opens = api
        .internal_keys()
        .is_some_and(|keys| keys.opens_at(shown, Instant::now()));
    if !opens {
        return Err(Error::Unauthorized(Some("the internal key does not hold")));
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const OLD: &str = "the key of before, which is long enough";
    const NEW: &str = "the key of today, which is long enough";

    #[test]
    fn the_former_key_is_taken_for_an_hour_and_no_longer() {
        let keys = InternalKeys::new(OLD.as_bytes()).expect("a key");
        let changed = Instant::now();
        assert!(keys.opens_at(OLD, changed) && !keys.opens_at(NEW, changed));
        keys.change_at(NEW.as_bytes(), changed).expect("a key");
        assert!(keys.opens_at(NEW, changed));
        assert!(keys.opens_at(OLD, changed + Duration::from_mins(59)));
        assert!(!keys.opens_at(OLD, changed + Duration::from_hours(1)));
        assert!(!keys.opens_at("", changed) && !keys.opens_at(&OLD[1..], changed));
    }

    #[test]
    fn a_key_that_is_too_short_changes_nothing() {
        let keys = InternalKeys::new(OLD.as_bytes()).expect("a key");
        assert!(keys.change(b"short").is_err());
        assert!(keys.opens_at(OLD, Instant::now()) && !keys.opens_at("short", Instant::now()));
    }
}
