//! A token against one key: signature, times, issuer, audience, subject.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use todo_tasks::UserId;

use crate::error::{Error, Result};

/// How far two clocks may be apart, in seconds.
const LEEWAY: u64 = 30;

/// One key, the one algorithm that it is for, and what a token must claim.
pub(crate) struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

impl Verifier {
    /// For tokens of our own. A token with an `aud` is meant for somebody else, and refused (RFC 7519, 4.1.3).
    pub(crate) fn of_secret(secret: &[u8]) -> Self {
        Self {
            key: DecodingKey::from_secret(secret),
            validation: validation(Algorithm::HS256, &["exp", "sub"]),
        }
    }

    /// For tokens that `issuer` made for `audience`.
    pub(crate) fn of_issuer(key: DecodingKey, algorithm: Algorithm, issuer: &str, audience: &str) -> Self {
        let mut validation = validation(algorithm, &["exp", "sub", "iss", "aud"]);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        Self { key, validation }
    }

    /// Whether it is for tokens with this `alg`.
    pub(crate) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.validation.algorithms.contains(&algorithm)
    }

    /// Whose token it is.
    pub(crate) fn user(&self, token: &str) -> Result<UserId> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|error| Error::Unauthorized(Some(reason(error.kind()))))?
            .claims;
        UserId::parse(claims.sub).map_err(|_| Error::Unauthorized(Some("the subject is not a user id")))
    }
}

fn validation(algorithm: Algorithm, required: &[&str]) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    validation.set_required_spec_claims(required);
    validation
}

/// What an unverified header says about the key: its algorithm, which must be one of `allowed`, and its id.
pub(crate) fn key_hint(token: &str, allowed: &[Algorithm]) -> Result<(Algorithm, Option<String>)> {
    let header = jsonwebtoken::decode_header(token).map_err(|error| Error::Unauthorized(Some(reason(error.kind()))))?;
    if !allowed.contains(&header.alg) {
        return Err(Error::Unauthorized(Some("the token's algorithm is not accepted")));
    }
    // RFC 7515, section 4.1.11: whoever does not understand an extension that is called critical must refuse.
    if header.crit.is_some() {
        return Err(Error::Unauthorized(Some("the token has critical extensions")));
    }
    Ok((header.alg, header.kid))
}

/// What the caller is told. Fixed texts: nothing of the token comes back.
fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidSignature => "the token's signature does not hold",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::InvalidIssuer => "the token is from another issuer",
        ErrorKind::InvalidAlgorithm => "the token's algorithm is not accepted",
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "exp" => "the token has no usable exp",
            "sub" => "the token has no usable sub",
            "iss" => "the token has no usable iss",
            _ => "the token has no usable aud",
        },
        _ => "the token is malformed",
    }
}
