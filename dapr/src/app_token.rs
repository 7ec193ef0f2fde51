//! What the sidecar shows of itself when it calls this app.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use crate::Secret;

/// Where the sidecar shows it (`APP_API_TOKEN`).
const HEADER: &str = "dapr-api-token";

/// These routes for whoever shows the token; for anyone where there is none.
pub(crate) fn only_the_sidecar(routes: Router, token: Option<Secret>) -> Router {
    match token {
        Some(token) => routes.layer(middleware::from_fn_with_state(Arc::new(token), check)),
        None => routes,
    }
}

async fn check(State(token): State<Arc<Secret>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(HEADER);
    if !shown.is_some_and(|shown| is_same(shown.as_bytes(), token.expose().as_bytes())) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    next.run(request).await
}

/// Takes as long for a token that is wrong at its end as for one that is wrong at its start.
fn is_same(shown: &[u8], expected: &[u8]) -> bool {
    shown.len() == expected.len() && shown.iter().zip(expected).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}
