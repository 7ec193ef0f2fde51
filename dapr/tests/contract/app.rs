//! An app beside a sidecar: records what it is called with, and answers what a test says.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Response};
use serde_json::Value;

use crate::process::PATIENCE;

/// A call of the app.
#[derive(Debug, Clone)]
pub(crate) struct Called {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// The body; null when it is not JSON.
    pub(crate) body: Value,
}

impl Called {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Serves until the end of the test.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) port: u16,
    called: Arc<Mutex<Vec<Called>>>,
}

impl App {
    /// An app that answers each call with a status and a body.
    pub(crate) async fn answering(answer: impl Fn(&Called) -> (u16, Value) + Send + Sync + 'static) -> Self {
        Self::announcing(Value::Null, answer).await
    }

    /// The same, and it tells the sidecar of these subscriptions. What else the sidecar asks at its start is 404;
    /// none of that is recorded.
    pub(crate) async fn announcing(
        subscriptions: Value,
        answer: impl Fn(&Called) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        let called: Arc<Mutex<Vec<Called>>> = Arc::default();
        let (recording, answer) = (Arc::clone(&called), Arc::new(answer));
        let router = Router::new().fallback(move |request: Request| {
            let (recording, answer) = (Arc::clone(&recording), Arc::clone(&answer));
            let subscriptions = subscriptions.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, usize::MAX).await.unwrap();
                let call = Called {
                    path: parts.uri.path().to_owned(),
                    headers: parts.headers,
                    body: serde_json::from_slice(&body).unwrap_or_default(),
                };
                match call.path.as_str() {
                    "/dapr/subscribe" if !subscriptions.is_null() => return json(200, &subscriptions),
                    path if path.starts_with("/dapr/") => return json(404, &Value::Null),
                    _ => {}
                }
                let (status, body) = answer(&call);
                recording.lock().unwrap().push(call);
                json(status, &body)
            }
        });
        Self {
            port: serve(router).await,
            called,
        }
    }

    /// What it was called with so far.
    pub(crate) fn called(&self) -> Vec<Called> {
        self.called.lock().unwrap().clone()
    }

    /// Waits until it was called so often.
    pub(crate) async fn called_times(&self, times: usize) -> Vec<Called> {
        until(&format!("{times} calls"), async || self.called().len() >= times).await;
        self.called()
    }
}

fn json(status: u16, body: &Value) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

/// Serves a router on a free port of loopback.
pub(crate) async fn serve(router: Router) -> u16 {
    serve_at(0, router).await
}

/// Serves a router at this port of loopback.
pub(crate) async fn serve_at(port: u16, router: Router) -> u16 {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

/// Waits for something.
pub(crate) async fn until(what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !happened().await {
        assert!(began.elapsed() < PATIENCE, "{what} did not happen");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
