//! The secrets that tokens of our own are checked with: the one that holds, and for a while after a change the former.

use std::time::Instant;

use jsonwebtoken::Algorithm;
use todo_tasks::UserId;

use super::MIN_SECRET_BYTES;
use super::claims::{self, Verifier};
use super::rotation::Rotation;
use crate::error::{Error, Result};

/// The secrets of HS256 tokens. Clones share them.
#[derive(Clone)]
pub struct TokenSecrets {
    verifiers: Rotation<Verifier>,
}

impl TokenSecrets {
    pub(crate) fn new(secret: &[u8]) -> Result<Self> {
        Ok(Self {
            verifiers: Rotation::new(verifier(secret)?),
        })
    }

    /// From now on takes tokens of this secret, and for an hour also those of the former.
    ///
    /// # Errors
    /// [`Error::Config`] when the secret is too short; then nothing changes.
    pub fn change(&self, secret: &[u8]) -> Result<()> {
        self.change_at(secret, Instant::now())
    }

    fn change_at(&self, secret: &[u8], now: Instant) -> Result<()> {
        self.verifiers.change_at(verifier(secret)?, now);
        Ok(())
    }

    /// Whose token it is.
    pub(crate) fn user(&self, token: &str) -> Result<UserId> {
        self.user_at(token, Instant::now())
    }

    fn user_at(&self, token: &str, now: Instant) -> Result<UserId> {
        claims::key_hint(token, &[Algorithm::HS256])?;
        let (current, former) = self.verifiers.at(now);
        let refused = match current.user(token) {
            Ok(user) => return Ok(user),
            Err(refused) => refused,
        };
        former
            .iter()
            .find_map(|verifier| verifier.user(token).ok())
            .ok_or(refused)
    }
}

impl std::fmt::Debug for TokenSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSecrets").finish_non_exhaustive()
    }
}

fn verifier(secret: &[u8]) -> Result<Verifier> {
    if secret.len() < MIN_SECRET_BYTES {
        return Err(Error::Config(format!(
            "the secret for tokens must have at least {MIN_SECRET_BYTES} bytes, has {}",
            secret.len()
        )));
    }
    Ok(Verifier::of_secret(secret))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::rotation::GRACE;
    use crate::token;

    const OLD: &[u8] = b"the secret of before, which is long enough";
    const NEW: &[u8] = b"the secret of today, which is long enough";

    fn sign(secret: &[u8]) -> String {
        let user = UserId::parse("ada").expect("a user's id");
        token::sign(secret, &user, Duration::from_hours(24)).expect("a token")
    }

    #[test]
    fn tokens_of_the_former_secret_are_taken_for_an_hour_and_no_longer() {
        let secrets = TokenSecrets::new(OLD).expect("a secret");
        let changed = Instant::now();
        assert!(secrets.user_at(&sign(NEW), changed).is_err());
        secrets.change_at(NEW, changed).expect("a secret");
        assert!(secrets.user_at(&sign(NEW), changed).is_ok());
        assert!(secrets.user_at(&sign(OLD), changed + Duration::from_mins(59)).is_ok());
        assert!(secrets.user_at(&sign(OLD), changed + GRACE).is_err());
        assert!(secrets.user_at(&sign(NEW), changed + GRACE).is_ok());
    }

    #[test]
    fn a_secret_that_is_too_short_changes_nothing() {
        let secrets = TokenSecrets::new(OLD).expect("a secret");
        let refused = secrets.change(b"short").expect_err("too short").to_string();
        assert!(
            refused.contains("at least 32 bytes") && !refused.contains("short "),
            "{refused}"
        );
        assert!(secrets.user(&sign(OLD)).is_ok());
    }
}
