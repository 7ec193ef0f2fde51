//! Between an operator and its API server: what is written is noted, and one write can be the operator's last.

use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use kube::client::Body;
use tokio::sync::Notify;
use tower::{BoxError, Layer, Service};

/// Where an operator is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// Before this write is sent; the first is 1.
    Before(usize),
    /// After it was sent, and before its answer is seen.
    After(usize),
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passes,
    /// The operator ends before it is sent.
    Unsent,
    /// The operator ends before its answer is seen.
    Unanswered,
    /// The operator has ended already.
    OfTheDead,
}

/// What passes. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Tap(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    crashed: Notify,
}

#[derive(Default)]
struct State {
    begun: usize,
    crash: Option<Crash>,
    is_dead: bool,
    writes: Vec<Write>,
}

/// A write that reached the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) status: u16,
}

impl Write {
    /// Whether it made an object. Events are told, not kept.
    pub(crate) fn created(&self) -> bool {
        self.status == 201 && !self.is_event()
    }

    /// Whether it deleted an object.
    pub(crate) fn deleted(&self) -> bool {
        self.method == Method::DELETE && matches!(self.status, 200 | 202)
    }

    fn is_event(&self) -> bool {
        self.path.contains("/events")
    }
}

impl Tap {
    /// From now on the operator ends there.
    pub(crate) fn crash_at(&self, crash: Crash) {
        let mut state = self.0.state.lock().unwrap();
        state.crash = Some(crash);
        state.begun = 0;
    }

    /// Waits until it has ended.
    pub(crate) async fn crashed(&self) {
        self.0.crashed.notified().await;
    }

    /// Another operator may pass.
    pub(crate) fn revive(&self) {
        let mut state = self.0.state.lock().unwrap();
        state.crash = None;
        state.is_dead = false;
    }

    /// The writes since the last time, without events.
    pub(crate) fn take(&self) -> Vec<Write> {
        let writes = std::mem::take(&mut self.0.state.lock().unwrap().writes);
        writes.into_iter().filter(|write| !write.is_event()).collect()
    }

    /// How many writes reached the API server, without events, since the last [`Self::take`].
    pub(crate) fn count(&self) -> usize {
        let state = self.0.state.lock().unwrap();
        state.writes.iter().filter(|write| !write.is_event()).count()
    }

    /// Numbers a write, and says what becomes of a request.
    fn begin(&self, method: &Method, path: &str) -> Fate {
        let mut state = self.0.state.lock().unwrap();
        if state.is_dead {
            return Fate::OfTheDead;
        }
        // Events are sent beside the work, at any time.
        if *method == Method::GET || path.contains("/events") {
            return Fate::Passes;
        }
        state.begun += 1;
        let fate = match state.crash {
            Some(Crash::Before(number)) if number == state.begun => Fate::Unsent,
            Some(Crash::After(number)) if number == state.begun => Fate::Unanswered,
            _ => return Fate::Passes,
        };
        state.is_dead = true;
        fate
    }

    fn note(&self, method: Method, path: String, status: u16) {
        if method != Method::GET {
            self.0.state.lock().unwrap().writes.push(Write { method, path, status });
        }
    }
}

impl<S> Layer<S> for Tap {
    type Service = Tapped<S>;

    fn layer(&self, inner: S) -> Tapped<S> {
        Tapped {
            inner,
            tap: self.clone(),
        }
    }
}

#[derive(Clone)]
pub(crate) struct Tapped<S> {
    inner: S,
    tap: Tap,
}

impl<S, B> Service<Request<Body>> for Tapped<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let fate = self.tap.begin(&method, &path);
        let tap = self.tap.clone();
        if matches!(fate, Fate::Unsent | Fate::OfTheDead) {
            return Box::pin(async move {
                if fate == Fate::Unsent {
                    tap.0.crashed.notify_one();
                }
                std::future::pending().await
            });
        }
        let sent = self.inner.call(request);
        Box::pin(async move {
            let answer = sent.await?;
            tap.note(method, path, answer.status().as_u16());
            if fate == Fate::Unanswered {
                tap.0.crashed.notify_one();
                std::future::pending::<()>().await;
            }
            Ok(answer)
        })
    }
}
