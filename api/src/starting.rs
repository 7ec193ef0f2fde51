//! Serving before there is anything to serve: a process that waits for its secrets or its database lives, is not ready,
//! and is measured.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::health::{Readiness, operations};

/// How long a request waits for the process to be there: a sidecar asks once for subscriptions, when the port is open.
const PATIENCE: Duration = Duration::from_secs(10);

/// A router whose routes come later.
#[derive(Debug)]
pub struct Starting {
    routes: watch::Sender<Option<Router>>,
    waits_for: watch::Sender<String>,
}

impl Starting {
    /// Nothing but health and metrics until [`Starting::open`].
    pub fn new() -> Self {
        Self {
            routes: watch::Sender::new(None),
            waits_for: watch::Sender::default(),
        }
    }

    /// The router to serve. Until the routes are there it says that the process lives and is not ready, and lets other
    /// requests wait for them, at most ten seconds, then answers 503.
    pub fn router(&self, metrics: PrometheusHandle) -> Router {
        let waits_for = self.waits_for.subscribe();
        let not_yet = move || -> BoxFuture<'static, Readiness> {
            let reason = match waits_for.borrow().as_str() {
                "" => "starting".to_owned(),
                reason => format!("starting: {reason}"),
            };
            Box::pin(async { Readiness::NotReady(reason) })
        };
        let meanwhile = operations(not_yet, metrics).fallback(|| async { StatusCode::SERVICE_UNAVAILABLE });
        let door = Door {
            routes: self.routes.subscribe(),
            meanwhile,
        };
        Router::new().fallback(pass).with_state(Arc::new(door))
    }

    /// What `/readyz` says that the start waits for, from now on.
    pub fn waits_for(&self, reason: impl Into<String>) {
        self.waits_for.send_replace(reason.into());
    }

    /// Serves these routes from now on, and nothing else.
    pub fn open(&self, routes: Router) {
        self.routes.send_replace(Some(routes));
    }
}

impl Default for Starting {
    fn default() -> Self {
        Self::new()
    }
}

struct Door {
    routes: watch::Receiver<Option<Router>>,
    meanwhile: Router,
}

async fn pass(State(door): State<Arc<Door>>, request: Request) -> Result<Response, Infallible> {
    let known = door.routes.borrow().clone();
    let routes = match known {
        Some(routes) => routes,
        None if matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics") => door.meanwhile.clone(),
        None => {
            let mut routes = door.routes.clone();
            let came = tokio::time::timeout(PATIENCE, routes.wait_for(Option::is_some)).await;
            let routes = came.ok().and_then(Result::ok).and_then(|routes| routes.clone());
            routes.unwrap_or_else(|| door.meanwhile.clone())
        }
    };
    routes.oneshot(request).await
}
