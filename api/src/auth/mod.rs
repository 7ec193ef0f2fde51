//! Who calls: from the `Authorization` header to a [`Caller`].
//!
//! `authenticate` stands before every `/api` route, so a handler cannot forget it: the [`Caller`] that commands
//! demand comes from nowhere else. `claims` checks a token against one key, `secrets` keeps our own keys (`rotation` the
//! former with the current one), `oidc` finds the key of an issuer, and `seen` notes whoever came. `internal` stands
//! before the routes of the platform's own parts, which show a key and are no user.
//! What does not live here: who may see what. Every query of the domain is bound to the caller's user.

mod claims;
mod internal;
mod oidc;
mod rotation;
mod secrets;
mod seen;

use std::sync::Arc;

use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use todo_events::Trace;
use todo_tasks::{Caller, UserId};

use crate::config::AuthConfig;
use crate::error::{Error, Result};
use crate::state::ApiState;
pub use internal::InternalKeys;
pub(crate) use internal::only_with_key;
use oidc::Issuer;
pub use secrets::TokenSecrets;
pub(crate) use seen::SeenUsers;

/// The shortest secret that HS256 may be used with, in bytes (RFC 7518, section 3.2); nor is the internal key shorter.
pub(crate) const MIN_SECRET_BYTES: usize = 32;

/// Decides whose token it is.
pub(crate) enum Authenticator {
    Hs256(TokenSecrets),
    Oidc(Box<Issuer>),
}

impl Authenticator {
    pub(crate) fn new(config: &AuthConfig) -> Result<Self> {
        match config {
            AuthConfig::Hs256 { secret } => Ok(Self::Hs256(TokenSecrets::new(secret)?)),
            AuthConfig::Oidc { issuer, audience } => Ok(Self::Oidc(Box::new(Issuer::new(issuer, audience)?))),
        }
    }

    async fn user(&self, token: &str) -> Result<UserId> {
        // The configuration says which algorithms there are, never the token: "none", or HS256 with a public key
        // as its secret, does not get as far as a key.
        match self {
            Self::Hs256(secrets) => secrets.user(token),
            Self::Oidc(issuer) => issuer.user(token).await,
        }
    }
}

/// Lets a request through with its [`Caller`].
pub(crate) async fn authenticate(
    State(api): State<Arc<ApiState>>,
    params: RawPathParams,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    // No route handles OPTIONS: the answer only names the methods, which the public document does too.
    if request.method() == Method::OPTIONS {
        return Ok(next.run(request).await);
    }
    let user = api.authenticator.user(bearer_token(request.headers())?).await?;
    let named = params
        .iter()
        .find(|(name, _)| *name == "user_id")
        .map(|(_, value)| value);
    if named.is_some_and(|named| named != user.as_str()) {
        return Err(Error::ForeignUser);
    }
    if let Some(limiter) = &api.limiter {
        limiter
            .check(&user)
            .map_err(|retry_after| Error::RateLimited { retry_after })?;
    }
    api.seen_users.note(&api.pool, &user);
    let traceparent = request.extensions().get::<Trace>().map(Trace::traceparent);
    request.extensions_mut().insert(Caller::user(user, traceparent));
    Ok(next.run(request).await)
}

/// RFC 6750, section 2.1. Never from the query, where logs would keep it.
fn bearer_token(headers: &HeaderMap) -> Result<&str> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = given.next() else {
        return Err(Error::Unauthorized(None));
    };
    if given.next().is_some() {
        return Err(Error::Unauthorized(Some("there is more than one authorization header")));
    }
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim())
    } else {
        Err(Error::Unauthorized(None))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            axum::http::HeaderName::from_static(name),
            HeaderValue::from_str(value).expect("a header's value"),
        )])
    }

    #[test]
    fn a_token_is_taken_from_one_bearer_header_only() {
        assert_eq!(
            bearer_token(&headers("authorization", "bearer abc")).expect("a token"),
            "abc"
        );
        assert!(bearer_token(&HeaderMap::new()).is_err());
        assert!(bearer_token(&headers("authorization", "Basic abc")).is_err());
        assert!(bearer_token(&headers("authorization", "Bearer")).is_err());
        let mut twice = headers("authorization", "Bearer abc");
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer def"));
        assert!(bearer_token(&twice).is_err());
    }
}
