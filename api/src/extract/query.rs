//! Parameters after the question mark.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::explain;
use crate::error::{Error, Result};
use crate::state::ApiState;

/// The query's parameters. `T` denies unknown fields: a filter that is misspelt must not show everything.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<ApiState>> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _api: &Arc<ApiState>) -> Result<Self> {
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        let deserializer = serde_html_form::Deserializer::new(form_urlencoded::parse(query));
        serde_path_to_error::deserialize(deserializer)
            .map(Self)
            .map_err(|error| explain(&error.path().to_string(), &error.inner().to_string()).into())
    }
}
