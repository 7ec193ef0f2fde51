//! Parameters in paths.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::state::ApiState;

/// A path's parameters by name. `T` is a struct with those that a handler needs: below `/api/{user_id}` there is one
/// more than below `/api/v1`.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<ApiState>> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<ApiState>) -> Result<Self> {
        // What cannot be an id is the id of nothing.
        let found = axum::extract::Path::from_request_parts(parts, api).await;
        found
            .map(|axum::extract::Path(path)| Self(path))
            .map_err(|_| Error::UnknownPath)
    }
}
