//! The span of a request: where its caller's trace goes on, or a new one begins.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use todo_events::trace::TRACEPARENT;
use todo_events::{Trace, traced};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use crate::metrics::known_method;

/// For routers beside [`router`](crate::router): runs each request in a span of its own, in the trace that its
/// `traceparent` names or in a new one, and hands it to the handlers as the extension [`Trace`].
///
/// Put it around routes (`Router::layer`), so that it knows their templates: a path may hold what no log should.
pub async fn trace_requests(mut request: Request, next: Next) -> Response {
    // Probes and scrapes come every few seconds, and nothing follows from them.
    let is_kept = request.method() == Method::POST;
    let span = open(&mut request, is_kept);
    let response = next.run(request).instrument(span.clone()).await;
    answered(&span, response.status());
    response
}

/// Opens the span of a request, and puts its [`Trace`] into the request's extensions. A recording keeps it only when
/// it `is_kept`.
pub(crate) fn open(request: &mut Request, is_kept: bool) -> Span {
    let trace = Trace::under(traceparent(request.headers()));
    let method = known_method(request.method());
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let name = (is_kept && trace.is_recorded()).then(|| format!("{method} {}", route.unwrap_or("unmatched")));
    let span = traced!(
        trace,
        "request",
        kind = "server",
        name = name.as_deref(),
        request_id = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        error = Empty,
        idle = !is_kept,
    );
    request.extensions_mut().insert(trace);
    span
}

/// Notes what the request was answered with. An answer of 4xx is the caller's fault and not the span's
/// (OpenTelemetry's conventions for HTTP).
pub(crate) fn answered(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("error", status.as_str());
    }
}

fn traceparent(headers: &HeaderMap) -> Option<&str> {
    headers.get(TRACEPARENT)?.to_str().ok()
}
