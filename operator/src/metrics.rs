//! What the operator measures.
//!
//! Here: its metrics, each recorded by one function, so that names and labels are in one place; and the layer of a client
//! that counts requests. Not here: where they are shown. Labels are from fixed sets: none holds a name out of a cluster.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use metrics::{counter, gauge, histogram};
use tower::{Layer, Service};

use crate::capabilities::Capabilities;
use crate::child::Kind;
use crate::error::Class;

/// Which of the two reconcilers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reconciler {
    /// That of `TodoPlatform`.
    Platform,
    /// That of `RecurringSchedule`.
    Schedule,
}

impl Reconciler {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "TodoPlatform",
            Self::Schedule => "RecurringSchedule",
        }
    }
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing was to be done.
    Unchanged,
    /// Something was written. At rest there is none of these: many are a sign of a fight over a field.
    Changed,
    /// It did not work.
    Failed,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Failed => "failed",
        }
    }
}

/// A pass has ended.
pub fn reconciled(kind: Reconciler, outcome: Outcome, took: Duration) {
    counter!("todo_operator_reconciles_total", "kind" => kind.as_str(), "outcome" => outcome.as_str()).increment(1);
    histogram!("todo_operator_reconcile_seconds", "kind" => kind.as_str()).record(took);
}

/// A pass has failed.
pub fn failed(kind: Reconciler, class: Class) {
    counter!("todo_operator_errors_total", "kind" => kind.as_str(), "class" => class.as_str()).increment(1);
}

/// How many objects wait for their pass.
pub fn queue(kind: Reconciler, waiting: usize) {
    gauge!("todo_operator_queue_depth", "kind" => kind.as_str()).set(float(waiting));
}

/// How many objects wait after a failure.
pub fn backing_off(kind: Reconciler, objects: usize) {
    gauge!("todo_operator_backoff_objects", "kind" => kind.as_str()).set(float(objects));
}

/// A platform is ready for the first time.
pub fn became_ready(after: Duration) {
    histogram!("todo_operator_time_to_ready_seconds").record(after);
}

/// Whether this process leads.
pub fn leads(is_leading: bool) {
    gauge!("todo_operator_leader").set(if is_leading { 1.0 } else { 0.0 });
}

/// Which optional APIs the cluster lacks.
pub fn missing_apis(capabilities: &Capabilities) {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.optional().is_some()) {
        let missing = if capabilities.has(kind) { 0.0 } else { 1.0 };
        gauge!("todo_operator_missing_apis", "api" => kind.resource_name()).set(missing);
    }
}

#[allow(clippy::cast_precision_loss, reason = "a count of objects in memory")]
fn float(count: usize) -> f64 {
    count as f64
}

/// Says what is measured.
pub fn describe() {
    metrics::describe_counter!(
        "todo_operator_reconciles_total",
        "Passes of the reconcilers, by how they ended."
    );
    metrics::describe_histogram!(
        "todo_operator_reconcile_seconds",
        metrics::Unit::Seconds,
        "Duration of a pass."
    );
    metrics::describe_counter!(
        "todo_operator_errors_total",
        "Passes that failed, by the kind of failure."
    );
    metrics::describe_gauge!("todo_operator_queue_depth", "Objects that wait for their pass.");
    metrics::describe_gauge!("todo_operator_backoff_objects", "Objects that wait after a failure.");
    metrics::describe_histogram!(
        "todo_operator_time_to_ready_seconds",
        metrics::Unit::Seconds,
        "From the making of a platform until it is ready for the first time."
    );
    metrics::describe_gauge!(
        "todo_operator_leader",
        "1 on the process that leads, 0 on those that stand by."
    );
    metrics::describe_gauge!(
        "todo_operator_missing_apis",
        "1 for each optional API that the cluster lacks."
    );
    metrics::describe_counter!("todo_operator_api_requests_total", "Requests to the API server.");
    crate::events::describe_metrics();
}

/// A layer of a client that counts its requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requests;

impl<S> Layer<S> for Requests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted(inner)
    }
}

/// What [`Requests`] makes of a service.
#[derive(Clone, Debug)]
pub struct Counted<S>(S);

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let verb = verb(request.method(), request.uri());
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = answer
                .as_ref()
                .map_or_else(|_| "none".to_owned(), |answer| answer.status().as_str().to_owned());
            counter!("todo_operator_api_requests_total", "verb" => verb, "code" => code).increment(1);
            answer
        })
    }
}

/// The verb as roles have it. A list is told from a get by what stands at the path's end, which is a name in one of them.
fn verb(method: &Method, uri: &http::Uri) -> &'static str {
    let watches = uri
        .query()
        .is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
    match *method {
        Method::GET if watches => "watch",
        Method::GET if is_collection(uri.path()) => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// `/api/V/RESOURCE`, `/apis/GROUP/V/RESOURCE`, or either with `namespaces/NAMESPACE` before the resource.
fn is_collection(path: &str) -> bool {
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let (["api", _, rest @ ..] | ["apis", _, _, rest @ ..]) = parts.as_slice() else {
        return false;
    };
    matches!(rest, [_] | ["namespaces", _, _])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_the_verbs_of_roles() {
        for (method, uri, expected) in [
            (Method::GET, "/apis", "get"),
            (Method::GET, "/api/v1/secrets?limit=100", "list"),
            (Method::GET, "/api/v1/namespaces/shop", "get"),
            (Method::GET, "/api/v1/namespaces/shop/secrets", "list"),
            (Method::GET, "/api/v1/namespaces/shop/secrets/a", "get"),
            (
                Method::GET,
                "/apis/apps/v1/deployments?watch=true&timeoutSeconds=290",
                "watch",
            ),
            (Method::GET, "/apis/apps/v1/namespaces/shop/deployments/a/status", "get"),
            (Method::POST, "/api/v1/namespaces/shop/secrets?", "create"),
            (Method::PATCH, "/api/v1/namespaces/shop/secrets/a?force=true", "patch"),
            (Method::PUT, "/api/v1/namespaces/shop/secrets/a", "update"),
            (Method::DELETE, "/api/v1/namespaces/shop/secrets/a", "delete"),
        ] {
            assert_eq!(verb(&method, &uri.parse().unwrap()), expected, "{method} {uri}");
        }
    }
}
