//! Whether the process lives, and whether it may get requests.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::error::{Error, Result};
use crate::metrics;
use crate::state::Shared;

/// How long what is asked may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// How ready a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// All is there.
    Ready,
    /// It may get requests, but not everything is as it should be.
    Degraded(String),
    /// It may not get any, for this reason.
    NotReady(String),
}

/// Says how ready the process is.
pub(crate) type ReadyCheck = Arc<dyn Fn() -> BoxFuture<'static, Readiness> + Send + Sync>;

/// `/healthz`, `/readyz` and `/metrics`, for a process that has no API. `check` answers for everything that the process
/// needs, the database too; without an answer within two seconds the process is not ready.
pub fn operations(
    check: impl Fn() -> BoxFuture<'static, Readiness> + Send + Sync + 'static,
    metrics: PrometheusHandle,
) -> Router {
    let check: ReadyCheck = Arc::new(check);
    Router::new()
        .route("/healthz", get(live))
        .route("/readyz", get(ready_by_check))
        .with_state(check)
        .route("/metrics", get(move || async move { metrics::page(&metrics) }))
}

/// `GET /healthz`: the process answers. It looks at nothing else, or a database that is away for a moment would make
/// a cluster restart every pod.
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// `GET /readyz` of the API: the database answers, and nothing else that the process knows of stands in the way.
pub(crate) async fn ready(State(api): Shared) -> Result<String> {
    let asked = sqlx::query("SELECT 1").execute(&api.pool);
    let answered = tokio::time::timeout(PATIENCE, asked)
        .await
        .is_ok_and(|answer| answer.is_ok());
    if !answered {
        return Err(Error::NotReady("the database does not answer".to_owned()));
    }
    let readiness = match &api.ready_check {
        Some(check) => asked_in_time(check).await,
        None => Readiness::Ready,
    };
    match readiness {
        Readiness::NotReady(reason) => Err(Error::NotReady(reason)),
        otherwise => Ok(said(&otherwise)),
    }
}

async fn ready_by_check(State(check): State<ReadyCheck>) -> Response {
    let readiness = asked_in_time(&check).await;
    let status = match readiness {
        Readiness::Ready | Readiness::Degraded(_) => StatusCode::OK,
        Readiness::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, said(&readiness)).into_response()
}

async fn asked_in_time(check: &ReadyCheck) -> Readiness {
    tokio::time::timeout(PATIENCE, check())
        .await
        .unwrap_or_else(|_| Readiness::NotReady("no answer in time".to_owned()))
}

fn said(readiness: &Readiness) -> String {
    match readiness {
        Readiness::Ready => "ok\n".to_owned(),
        Readiness::Degraded(reason) => format!("degraded: {reason}\n"),
        Readiness::NotReady(reason) => format!("not ready: {reason}\n"),
    }
}
