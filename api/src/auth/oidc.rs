//! The keys of an OIDC issuer: found by discovery, kept, and read again when a token names another.
//!
//! A token with an unknown key id costs at most one look at the issuer in [`MIN_INTERVAL`], whoever sends how many.
//! Keys older than [`FRESH`] are read again on their next use, so that one the issuer withdrew does not live on; while
//! the issuer is away they are trusted up to [`TRUSTED`].

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use todo_tasks::UserId;
use tokio::sync::Mutex;
use url::Url;

use super::claims::{self, Verifier};
use crate::error::{Error, Result};

const ALGORITHMS: [Algorithm; 2] = [Algorithm::RS256, Algorithm::ES256];

/// The least time between two looks at the issuer.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
const FRESH: Duration = Duration::from_mins(15);
const TRUSTED: Duration = Duration::from_hours(24);
/// For each of the two documents.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Far above what any issuer sends.
const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;

/// An issuer of tokens and what is known of its keys.
pub(crate) struct Issuer {
    /// Its URL, as in the `iss` of its tokens.
    name: String,
    audience: String,
    discovery: Url,
    client: reqwest::Client,
    keys: RwLock<Option<Arc<Keys>>>,
    /// When the issuer was last asked; held while asking, so that one asks for all.
    last_asked: Mutex<Option<Instant>>,
}

struct Keys {
    by_id: HashMap<String, Vec<Verifier>>,
    /// Keys without an id: for tokens that name none.
    nameless: Vec<Verifier>,
    read_at: Instant,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Issuer {
    pub(crate) fn new(issuer: &str, audience: &str) -> Result<Self> {
        let discovery = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let discovery = Url::parse(&discovery)
            .ok()
            .filter(|url| matches!(url.scheme(), "https" | "http"))
            .ok_or_else(|| Error::Config(format!("the issuer must be a URL, is {issuer:?}")))?;
        // reqwest takes the process's TLS; whoever installed one before us has chosen.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::Config(format!("cannot make an HTTP client: {error}")))?;
        Ok(Self {
            name: issuer.to_owned(),
            audience: audience.to_owned(),
            discovery,
            client,
            keys: RwLock::new(None),
            last_asked: Mutex::new(None),
        })
    }

    /// Whose token it is.
    pub(crate) async fn user(&self, token: &str) -> Result<UserId> {
        let (algorithm, key_id) = claims::key_hint(token, &ALGORITHMS)?;
        let keys = self.keys_for(algorithm, key_id.as_deref()).await?;
        let verifier = keys
            .find(algorithm, key_id.as_deref())
            .ok_or(Error::Unauthorized(Some("the issuer has no such key")))?;
        verifier.user(token)
    }

    /// Keys that are fresh enough and hold this one, if there is a way to get them.
    async fn keys_for(&self, algorithm: Algorithm, key_id: Option<&str>) -> Result<Arc<Keys>> {
        let known = self.known();
        if let Some(keys) = &known {
            let holds = keys.find(algorithm, key_id).is_some();
            let age = keys.read_at.elapsed();
            if holds && age < FRESH {
                return Ok(Arc::clone(keys));
            }
            // Old but good: whoever reads them again does so for all, and nobody waits for it.
            if holds && age < TRUSTED {
                return match self.last_asked.try_lock() {
                    Ok(last_asked) => Ok(self.ask(last_asked).await.unwrap_or_else(|_| Arc::clone(keys))),
                    Err(_asking) => Ok(Arc::clone(keys)),
                };
            }
        }
        let last_asked = self.last_asked.lock().await;
        // Somebody may have asked while this waited.
        match self.known() {
            Some(keys) if known.is_none_or(|known| !Arc::ptr_eq(&known, &keys)) => Ok(keys),
            _ => self.ask(last_asked).await,
        }
    }

    fn known(&self) -> Option<Arc<Keys>> {
        self.keys
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Reads the keys, unless they were read a moment ago: then what is known must do.
    async fn ask(&self, mut last_asked: tokio::sync::MutexGuard<'_, Option<Instant>>) -> Result<Arc<Keys>> {
        if last_asked.is_some_and(|last| last.elapsed() < MIN_INTERVAL) {
            return self
                .known()
                .filter(|keys| keys.read_at.elapsed() < TRUSTED)
                .ok_or_else(|| Error::IssuerUnreachable("the last attempt failed".to_owned()));
        }
        *last_asked = Some(Instant::now());
        match self.read_keys().await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                *self.keys.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Arc::clone(&keys));
                Ok(keys)
            }
            Err(reason) => {
                tracing::warn!(issuer = self.name, reason, "cannot read the issuer's keys");
                self.known()
                    .filter(|keys| keys.read_at.elapsed() < TRUSTED)
                    .ok_or(Error::IssuerUnreachable(reason))
            }
        }
    }

    async fn read_keys(&self) -> Result<Keys, String> {
        let discovery: Discovery = self.read(self.discovery.clone()).await?;
        // OpenID Connect Discovery 1.0, section 4.3.
        if discovery.issuer != self.name {
            return Err(format!("the discovery document is of {:?}", discovery.issuer));
        }
        let key_set = Url::parse(&discovery.jwks_uri).map_err(|error| format!("jwks_uri is not a URL: {error}"))?;
        if key_set.scheme() != self.discovery.scheme() {
            return Err(format!(
                "jwks_uri must be {}, as the issuer is",
                self.discovery.scheme()
            ));
        }
        let set: KeySet = self.read(key_set).await?;
        let mut keys = Keys {
            by_id: HashMap::new(),
            nameless: Vec::new(),
            read_at: Instant::now(),
        };
        for key in set.keys {
            // A key of a kind that is not for us is no reason to do without the others.
            let Ok(jwk) = serde_json::from_value::<Jwk>(key) else {
                continue;
            };
            let Some((key, algorithm)) = signing_key(&jwk) else {
                continue;
            };
            let verifier = Verifier::of_issuer(key, algorithm, &self.name, &self.audience);
            match jwk.common.key_id {
                Some(id) => keys.by_id.entry(id).or_default().push(verifier),
                None => keys.nameless.push(verifier),
            }
        }
        Ok(keys)
    }

    async fn read<T: DeserializeOwned>(&self, url: Url) -> Result<T, String> {
        let failed = |error: reqwest::Error| format!("{url}: {error}");
        let mut response = self
            .client
            .get(url.clone())
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(failed)?;
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if document.len() + chunk.len() > MAX_DOCUMENT_BYTES {
                return Err(format!("{url}: longer than {MAX_DOCUMENT_BYTES} bytes"));
            }
            document.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&document).map_err(|error| format!("{url}: {error}"))
    }
}

impl Keys {
    /// The key that a token names; of one that names none, the only key for its algorithm.
    fn find(&self, algorithm: Algorithm, key_id: Option<&str>) -> Option<&Verifier> {
        let Some(key_id) = key_id else {
            let mut fitting = self
                .by_id
                .values()
                .flatten()
                .chain(&self.nameless)
                .filter(|verifier| verifier.is_for(algorithm));
            return fitting.next().filter(|_| fitting.next().is_none());
        };
        self.by_id
            .get(key_id)?
            .iter()
            .find(|verifier| verifier.is_for(algorithm))
    }
}

/// The key and the one algorithm that it is for: what kind of key it is decides, never the token.
fn signing_key(jwk: &Jwk) -> Option<(DecodingKey, Algorithm)> {
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let (algorithm, declared) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|named| named != declared) {
        return None;
    }
    Some((DecodingKey::from_jwk(jwk).ok()?, algorithm))
}
