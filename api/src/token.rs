//! Making tokens, for those who run a platform with a secret of its own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;
use todo_tasks::UserId;

use crate::auth::MIN_SECRET_BYTES;
use crate::error::Error;

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
}

/// A token (HS256) with which `user` may call the API from now on for `ttl`, to the second.
///
/// # Errors
/// [`Error::Config`] when the secret is one that the API would not take.
pub fn sign(secret: &[u8], user: &UserId, ttl: Duration) -> Result<String, Error> {
    if secret.len() < MIN_SECRET_BYTES {
        return Err(Error::Config(format!(
            "the secret for tokens must have at least {MIN_SECRET_BYTES} bytes"
        )));
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let claims = Claims {
        sub: user.as_str(),
        iat: now,
        exp: now.saturating_add(ttl.as_secs()),
    };
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret))
        .map_err(|error| Error::Config(format!("cannot sign a token: {error}")))
}
