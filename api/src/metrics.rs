//! What `/metrics` shows of the API, by Prometheus' conventions.
//!
//! Labels are the method, the route's template and the status: as many series as there are routes, whoever calls
//! and whatever they send. Never a user's id.

use std::time::Duration;

use axum::extract::{MatchedPath, State};
use axum::http::{Method, StatusCode, header};
use axum::response::IntoResponse;
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::error::Error;
use crate::state::Shared;

/// The upper bounds of the durations' buckets, in seconds: 1 ms to 10 s.
const BUCKETS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The same of delays, which after an outage are as long as it was: 10 ms to a day.
const DELAY_BUCKETS: [f64; 16] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0, 86_400.0,
];

/// How the names of delays end.
const DELAYS: [&str; 2] = ["_delay_seconds", "_lateness_seconds"];

/// How often samples are folded into their buckets when nobody reads them.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Installs the recorder of the whole process, for every crate's metrics. Once, from within a tokio runtime.
///
/// # Errors
/// [`Error::Config`] when there is one already.
pub fn install() -> Result<PrometheusHandle, Error> {
    // Buckets for whatever is measured: without, a histogram becomes a summary, and those of two processes cannot be
    // added up.
    let mut builder = PrometheusBuilder::new().set_buckets(&BUCKETS);
    for ending in DELAYS {
        builder = builder
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix(ending.to_owned()), &DELAY_BUCKETS));
    }
    let handle = builder
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| Error::Config(format!("cannot install the metrics' recorder: {error}")))?;
    describe_counter!(
        "http_requests_total",
        Unit::Count,
        "Requests answered, by method, route and status."
    );
    describe_histogram!(
        "http_request_duration_seconds",
        Unit::Seconds,
        "From a request's head to its answer's."
    );
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            interval.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// Counts one request.
pub(crate) fn record(method: &Method, route: Option<&MatchedPath>, status: StatusCode, duration: Duration) {
    let method = known_method(method);
    let route = route.map_or("unmatched", MatchedPath::as_str).to_owned();
    let status = status.as_str().to_owned();
    histogram!("http_request_duration_seconds", "method" => method, "route" => route.clone())
        .record(duration.as_secs_f64());
    counter!("http_requests_total", "method" => method, "route" => route, "status" => status).increment(1);
}

/// Methods are the caller's words, and so would be labels without end.
pub(crate) fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// `GET /metrics`
pub(crate) async fn show(State(api): Shared) -> impl IntoResponse {
    page(&api.metrics)
}

/// What is measured, in Prometheus' text format.
pub(crate) fn page(metrics: &PrometheusHandle) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())
}
