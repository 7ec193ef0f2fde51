//! Bodies: JSON to create from, merge patches to change by, and the idempotency key of a POST.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, OriginalUri, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use bytes::Bytes;
use http_body_util::LengthLimitError;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use sha2::{Digest, Sha256};
use todo_tasks::idempotency::Key;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use super::{explain_json, header_parameter, malformed};
use crate::error::{Error, Result};
use crate::state::ApiState;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// The body of a POST, and the key under which its answer is kept.
pub(crate) struct Posted<T> {
    pub(crate) body: T,
    pub(crate) key: Option<Key>,
}

impl<T: DeserializeOwned> FromRequest<Arc<ApiState>> for Posted<T> {
    type Rejection = Error;

    async fn from_request(request: Request, api: &Arc<ApiState>) -> Result<Self> {
        let (parts, bytes) = json_bytes(request, api.config.max_body_bytes).await?;
        let key = idempotency_key(&parts, &bytes)?;
        Ok(Self {
            body: parse(&bytes)?,
            key,
        })
    }
}

/// A JSON body of at most `limit` bytes.
pub(crate) async fn read_json<T: DeserializeOwned>(request: Request, limit: usize) -> Result<T> {
    let (_, bytes) = json_bytes(request, limit).await?;
    parse(&bytes)
}

async fn json_bytes(request: Request, limit: usize) -> Result<(Parts, Bytes)> {
    let (parts, body) = request.into_parts();
    require_media_type(&parts.headers, &[JSON], JSON)?;
    let bytes = read(body, limit).await?;
    Ok((parts, bytes))
}

/// The idempotency key of a POST that has no body. A body is not looked at.
pub(crate) struct IdempotencyKey(pub(crate) Option<Key>);

impl FromRequestParts<Arc<ApiState>> for IdempotencyKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _api: &Arc<ApiState>) -> Result<Self> {
        idempotency_key(parts, &[]).map(Self)
    }
}

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let description = "A key of your choice, 1 to 255 visible ASCII characters. A request that is sent again with \
                           the same key gets the first one's answer, and its effect happens once.";
        vec![header_parameter("Idempotency-Key", description)]
    }
}

/// The key, with what tells this request from others: SHA-256 of method, path with query, and body.
fn idempotency_key(parts: &Parts, body: &[u8]) -> Result<Option<Key>> {
    let Some(key) = parts.headers.get(&IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |uri| &uri.0);
    let fingerprint = Sha256::new()
        .chain_update(parts.method.as_str())
        .chain_update(" ")
        .chain_update(uri.path_and_query().map_or("", |path| path.as_str()))
        .chain_update("\n")
        .chain_update(body)
        .finalize();
    Ok(Some(Key::parse(
        key.to_str().unwrap_or_default(),
        fingerprint.to_vec(),
    )?))
}

/// A JSON Merge Patch (RFC 7396): what is absent stays, what is null goes.
pub(crate) struct MergePatch(Value);

impl MergePatch {
    /// Fields of `object` that stand for each other: a patch that gives one of them takes the others away, or the
    /// caller would have to know which one is there.
    pub(crate) fn with_alternatives(mut self, object: &str, alternatives: &[&str]) -> Self {
        let Some(patch) = self.0.get_mut(object).and_then(Value::as_object_mut) else {
            return self;
        };
        let is_given = |field: &&str| patch.get(*field).is_some_and(|value| !value.is_null());
        if alternatives.iter().any(is_given) {
            for field in alternatives {
                patch.entry(*field).or_insert(Value::Null);
            }
        }
        self
    }

    /// What `document` becomes.
    pub(crate) fn apply<T: Serialize + DeserializeOwned>(&self, document: &T) -> Result<T> {
        let mut document = serde_json::to_value(document)?;
        json_patch::merge(&mut document, &self.0);
        serde_path_to_error::deserialize(document).map_err(explain_json)
    }
}

impl FromRequest<Arc<ApiState>> for MergePatch {
    type Rejection = Error;

    async fn from_request(request: Request, api: &Arc<ApiState>) -> Result<Self> {
        let (parts, body) = request.into_parts();
        require_media_type(&parts.headers, &[MERGE_PATCH, JSON], MERGE_PATCH)?;
        // A patch that is not an object would replace the whole document (RFC 7396, section 2): `parse` refuses it.
        Ok(Self(parse(&read(body, api.config.max_body_bytes).await?)?))
    }
}

fn require_media_type(headers: &HeaderMap, allowed: &[&str], expected: &'static str) -> Result<()> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let media_type = text(header::CONTENT_TYPE)
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim();
    let is_allowed = allowed.iter().any(|allowed| media_type.eq_ignore_ascii_case(allowed));
    let is_plain = text(header::CONTENT_ENCODING).is_none_or(|encoding| encoding.eq_ignore_ascii_case("identity"));
    if is_allowed && is_plain {
        Ok(())
    } else {
        Err(Error::UnsupportedMediaType { expected })
    }
}

async fn read(body: Body, limit: usize) -> Result<Bytes> {
    axum::body::to_bytes(body, limit).await.map_err(|error| {
        let is_too_large =
            std::error::Error::source(&error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>);
        if is_too_large {
            Error::BodyTooLarge { limit }
        } else {
            Error::MalformedBody("the body did not come whole".to_owned())
        }
    })
}

/// Tracking paths costs allocations for each field, so it is done only for a body that is wrong.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    // serde takes an array for a struct, its fields in their order: nobody means that.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| malformed(&error))?;
        return Err(Error::invalid("body", "must be an object"));
    }
    serde_json::from_slice(bytes).or_else(|_| {
        let deserializer = &mut serde_json::Deserializer::from_slice(bytes);
        let value = serde_path_to_error::deserialize(&mut *deserializer).map_err(explain_json)?;
        deserializer.end().map_err(|error| malformed(&error))?;
        Ok(value)
    })
}
