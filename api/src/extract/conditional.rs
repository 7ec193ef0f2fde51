//! Conditional requests (RFC 9110, section 13) over versions as entity tags.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use super::header_parameter;
use crate::error::{Error, Result};
use crate::state::ApiState;

/// No row has it: versions count from 1. For a tag that we never gave and that so matches nothing.
const NO_VERSION: i64 = 0;

/// The version that a change is meant for; `None` for whatever is there.
pub(crate) struct IfMatch(pub(crate) Option<i64>);

impl FromRequestParts<Arc<ApiState>> for IfMatch {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _api: &Arc<ApiState>) -> Result<Self> {
        let tags: Vec<&str> = tags(&parts.headers, &header::IF_MATCH).collect();
        match tags.as_slice() {
            [] | ["*"] => Ok(Self(None)),
            // Strong comparison: a weak tag matches nothing.
            [tag] => Ok(Self(Some(version(tag).unwrap_or(NO_VERSION)))),
            _ => Err(Error::invalid("If-Match", "must be one entity tag, or *")),
        }
    }
}

impl IntoParams for IfMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![header_parameter(
            "If-Match",
            "The `ETag` that you know; 412 when it is not the current one any more.",
        )]
    }
}

/// Which versions the caller has already.
pub(crate) struct IfNoneMatch {
    any: bool,
    versions: Vec<i64>,
}

impl IfNoneMatch {
    /// Whether the caller need not be sent this version.
    pub(crate) fn knows(&self, version: i64) -> bool {
        self.any || self.versions.contains(&version)
    }
}

impl FromRequestParts<Arc<ApiState>> for IfNoneMatch {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _api: &Arc<ApiState>) -> Result<Self> {
        let tags = || tags(&parts.headers, &header::IF_NONE_MATCH);
        // Weak comparison: whatever its strength, the same version is the same task.
        let versions = tags()
            .filter_map(|tag| version(tag.strip_prefix("W/").unwrap_or(tag)))
            .collect();
        Ok(Self {
            any: tags().any(|tag| tag == "*"),
            versions,
        })
    }
}

impl IntoParams for IfNoneMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![header_parameter(
            "If-None-Match",
            "`ETag`s that you have; 304 when one of them is the current one.",
        )]
    }
}

/// Our tags have no commas inside, so lists can be split at every comma.
fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.to_str().unwrap_or("?").split(','))
        .map(str::trim)
        .filter(|tag| !tag.is_empty())
}

fn version(tag: &str) -> Option<i64> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    digits.parse().ok().filter(|version: &i64| *version > NO_VERSION)
}
