//! What an API process is told when it starts.

use std::num::NonZeroU32;
use std::time::Duration;

/// How the API behaves.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Who may call it.
    pub auth: AuthConfig,
    /// The most items on one page of a list, at least 1.
    pub max_page_size: u16,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// How often one user may call; `None` for as often as they like.
    pub rate_limit: Option<RateLimit>,
    /// How long a request may take before it is answered 503.
    pub request_timeout: Duration,
}

/// How often one user may call this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests per second, over time.
    pub per_second: NonZeroU32,
    /// Requests at once after a pause.
    pub burst: NonZeroU32,
}

/// Who may call the API.
#[derive(Clone)]
pub enum AuthConfig {
    /// Tokens signed with a shared secret (HS256).
    Hs256 {
        /// At least 32 bytes: RFC 7518, section 3.2.
        secret: Vec<u8>,
    },
    /// Tokens of an OIDC provider (RS256 or ES256), checked with the keys that it publishes.
    Oidc {
        /// The issuer's URL, exactly as in the tokens' `iss`.
        issuer: String,
        /// What the tokens' `aud` must contain.
        audience: String,
    },
}

impl ApiConfig {
    /// The defaults: pages of at most 200 items, bodies of at most 256 KiB, 100 requests per second and user with
    /// bursts of 200, 30 seconds for a request.
    pub fn new(auth: AuthConfig) -> Self {
        Self {
            auth,
            max_page_size: 200,
            max_body_bytes: 256 * 1024,
            rate_limit: RateLimit::new(100, 200),
            request_timeout: Duration::from_secs(30),
        }
    }
}

impl RateLimit {
    /// `None` when one of the two is zero.
    pub fn new(per_second: u32, burst: u32) -> Option<Self> {
        Some(Self {
            per_second: NonZeroU32::new(per_second)?,
            burst: NonZeroU32::new(burst)?,
        })
    }
}

impl std::fmt::Debug for AuthConfig {
    /// Without the secret, wherever it is printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hs256 { .. } => f.debug_struct("Hs256").finish_non_exhaustive(),
            Self::Oidc { issuer, audience } => f
                .debug_struct("Oidc")
                .field("issuer", issuer)
                .field("audience", audience)
                .finish(),
        }
    }
}
