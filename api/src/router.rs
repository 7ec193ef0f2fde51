//! Which path leads where, and what every request passes on its way.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::Redirect;
use axum::routing::get;

use crate::auth::{authenticate, only_with_key};
use crate::envelope::envelope;
use crate::error::Error;
use crate::state::ApiState;
use crate::{docs, health, internal, metrics, v1};

/// Every route of the API.
pub fn router(state: ApiState) -> Router {
    let api = Arc::new(state);
    let (v1, _document) = v1::routes().split_for_parts();
    let v1 = v1.route_layer(from_fn_with_state(Arc::clone(&api), authenticate));
    let internal = match api.internal_keys() {
        Some(_) => {
            let routes = internal::routes().route_layer(from_fn_with_state(Arc::clone(&api), only_with_key));
            Router::new().nest("/internal/v1", routes)
        }
        None => Router::new(),
    };
    Router::new()
        .merge(internal)
        .nest("/api/v1", v1.clone())
        .nest("/api/{user_id}", v1)
        .route("/", get(|| async { Redirect::temporary("/docs/") }))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::show))
        .merge(docs::routes())
        .fallback(|| async { Error::UnknownPath })
        .layer(from_fn_with_state(Arc::clone(&api), envelope))
        .with_state(api)
}
