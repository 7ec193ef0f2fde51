//! What happens around every request: an id, a trace, a time limit, a panic's end, metrics, headers, and problems.
//!
//! One function and not a stack of layers: each layer would box its future once more, and the order in which they
//! see a request (the id before the problem that names it, the problem before the metric that counts it) is here
//! to be read.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::error::{Error, Failure};
use crate::metrics;
use crate::problem;
use crate::state::ApiState;
use crate::trace;

/// Names a request in answers and logs.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is taken over from a caller.
const MAX_REQUEST_ID: usize = 128;

pub(crate) async fn envelope(State(api): State<Arc<ApiState>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let path = request.uri().path();
    let is_api = path.starts_with("/api/") || path.starts_with("/internal/");
    let span = trace::open(&mut request, is_api);
    span.record("request_id", id.to_str().unwrap_or_default());

    let run = AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .instrument(span.clone());
    let mut response = match tokio::time::timeout(api.config.request_timeout, run).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => Error::Panicked(panic_message(panic.as_ref())).into_response(),
        Err(_elapsed) => Error::TimedOut.into_response(),
    };

    if method == Method::OPTIONS && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        // No route has an OPTIONS of its own. The router adds the methods that there are to what its fallback answers.
        response = StatusCode::NO_CONTENT.into_response();
    } else if response.status().is_client_error() || response.status().is_server_error() {
        response = span.in_scope(|| with_problem(response, &id, &method, route.as_ref()));
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if is_api {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    headers.insert(REQUEST_ID, id);
    metrics::record(&method, route.as_ref(), response.status(), started.elapsed());
    trace::answered(&span, response.status());
    response
}

/// The caller's id when it is one that can be shown anywhere (RFC 3986's unreserved characters), else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    match headers.get(&REQUEST_ID) {
        Some(id) if (1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(is_plain) => id.clone(),
        _ => {
            let mut buffer = Uuid::encode_buffer();
            let id = Uuid::now_v7().hyphenated().encode_lower(&mut buffer);
            HeaderValue::from_str(id).expect("a UUID is visible ASCII")
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}

/// Puts the problem into an answer that failed, and what it does not say into the log.
fn with_problem(mut response: Response, id: &HeaderValue, method: &Method, route: Option<&MatchedPath>) -> Response {
    let failure = response.extensions_mut().remove::<Failure>();
    let error = failure.map_or_else(|| Arc::new(Error::of_status(response.status())), |failure| failure.0);
    let id = id.to_str().unwrap_or_default();
    let status = error.status();
    // The template and not the path: that may name a user.
    let (method, route) = (metrics::known_method(method), route.map(MatchedPath::as_str));
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(request_id = id, method, route, error = %error, "request failed");
    } else if status.is_server_error() {
        tracing::warn!(request_id = id, method, route, error = %error, "request not served");
    } else {
        tracing::debug!(request_id = id, method, route, error = %error, "request refused");
    }
    let body = serde_json::to_vec(&error.problem(id)).expect("a problem has only string keys");
    let (mut parts, _) = response.into_parts();
    parts.status = status;
    parts
        .headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(body))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use sqlx::postgres::PgPoolOptions;
    use todo_events::Waker;
    use tower::ServiceExt as _;

    use super::*;
    use crate::config::{ApiConfig, AuthConfig};

    async fn panics() -> &'static str {
        panic!("the secret is 1234")
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_and_tells_nothing() {
        let config = ApiConfig::new(AuthConfig::Hs256 { secret: vec![7; 32] });
        let pool = PgPoolOptions::new().connect_lazy("postgres://nowhere").expect("a URL");
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let api = Arc::new(ApiState::new(config, pool, Waker::new(), metrics).expect("a valid configuration"));
        let router: Router = Router::new()
            .route("/", get(panics))
            .layer(from_fn_with_state(api, envelope));
        let request = Request::builder().uri("/").body(Body::empty()).expect("a request");
        let response = router.oneshot(request).await.expect("a router always answers");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(response.into_body(), 10_000)
            .await
            .expect("the body");
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("problems/internal") && !text.contains("1234"), "{text}");
    }
}
