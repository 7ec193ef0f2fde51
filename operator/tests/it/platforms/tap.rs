//! Between an operator and its API server: what is written is noted, one write can be the operator's last, and requests
//! and watches can fail as they do in a [`Storm`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use kube::client::Body;
use tokio::sync::{Notify, watch};
use tower::{BoxError, Layer, Service};

use super::storm::{Fault, Storm, Way, answer, broken, thinned};

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
    /// Of which resources, by their plural, watches tell nothing for now.
    held: watch::Sender<Option<&'static str>>,
}

#[derive(Default)]
struct State {
    begun: usize,
    crash: Option<Crash>,
    is_dead: bool,
    writes: Vec<Write>,
    /// How often each path was read.
    reads: BTreeMap<String, usize>,
    /// Writes of which no answer says whether they were done: the API server was gone, before it or after it.
    unanswered: Vec<Write>,
    storm: Option<Storm>,
    /// What the storm did, by what it is called.
    hits: BTreeMap<&'static str, usize>,
}

/// A write that reached the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// HTTP's; 0 where no answer came.
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

    /// The writes since the last time of which no answer says whether they were done, without events.
    pub(crate) fn take_unanswered(&self) -> Vec<Write> {
        let writes = std::mem::take(&mut self.0.state.lock().unwrap().unanswered);
        writes.into_iter().filter(|write| !write.is_event()).collect()
    }

    /// How many writes reached the API server, without events, since the last [`Self::take`].
    pub(crate) fn count(&self) -> usize {
        let state = self.0.state.lock().unwrap();
        state.writes.iter().filter(|write| !write.is_event()).count()
    }

    /// How often what is at a path that ends so was read.
    pub(crate) fn reads_of(&self, end: &str) -> usize {
        let state = self.0.state.lock().unwrap();
        let reads = state.reads.iter().filter(|(path, _)| path.ends_with(end));
        reads.map(|(_, count)| count).sum()
    }

    /// From now on it storms so.
    pub(crate) fn storm(&self, storm: Storm) {
        self.0.state.lock().unwrap().storm = Some(storm);
    }

    /// The storm is over.
    pub(crate) fn calm(&self) {
        self.0.state.lock().unwrap().storm = None;
    }

    /// What storms did so far, and how often.
    pub(crate) fn hits(&self) -> BTreeMap<&'static str, usize> {
        self.0.state.lock().unwrap().hits.clone()
    }

    /// From now on watches of these resources, by their plural, tell nothing.
    pub(crate) fn hold(&self, plural: &'static str) {
        self.0.held.send_replace(Some(plural));
    }

    /// Watches tell again, what they held back first.
    pub(crate) fn let_go(&self) {
        self.0.held.send_replace(None);
    }

    /// Waits as long as watches of what is at this path tell nothing.
    pub(super) async fn while_held(&self, path: &str) {
        let mut held = self.0.held.subscribe();
        // The sender is in here.
        let _ = held
            .wait_for(|held| !held.is_some_and(|plural| path.ends_with(plural)))
            .await;
    }

    /// The storm, as long as there is one.
    pub(super) fn weather(&self) -> Option<Storm> {
        self.0.state.lock().unwrap().storm
    }

    pub(super) fn hit(&self, name: &'static str) {
        *self.0.state.lock().unwrap().hits.entry(name).or_default() += 1;
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
        let mut state = self.0.state.lock().unwrap();
        if method == Method::GET {
            *state.reads.entry(path).or_default() += 1;
            return;
        }
        let write = Write { method, path, status };
        // An API server that has lost its etcd does not know either.
        if status == 0 || status >= 500 {
            state.unanswered.push(write.clone());
        }
        if status != 0 {
            state.writes.push(write);
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
    B: BodyExt<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<UnsyncBoxBody<Bytes, BoxError>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

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
        let way = Way::of(&request);
        let fault = tap.weather().and_then(|storm| storm.fault(way));
        if let Some(fault) = fault {
            tap.hit(fault.name());
            match fault {
                Fault::Answer { code, retry_after } => {
                    return Box::pin(async move { Ok(answer(code, retry_after)) });
                }
                Fault::Unsent => return Box::pin(std::future::pending()),
                Fault::CutBefore => return Box::pin(async { Err(broken()) }),
                Fault::Unanswered | Fault::CutAfter => {}
            }
        }
        let sent = self.inner.call(request);
        let (noting, noted) = (tap.clone(), path.clone());
        let passed = async move {
            let answer = sent.await;
            let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            noting.note(method, noted, status);
            let answer = answer?;
            Ok::<_, BoxError>(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
        };
        Box::pin(async move {
            // What was sent arrives, also when nobody waits for the answer any more.
            let answer = if way == Way::Write && tap.weather().is_some() {
                tokio::spawn(passed).await??
            } else {
                passed.await?
            };
            if fate == Fate::Unanswered {
                tap.0.crashed.notify_one();
                std::future::pending::<()>().await;
            }
            match fault {
                Some(Fault::Unanswered) => std::future::pending().await,
                Some(Fault::CutAfter) => Err(broken()),
                _ if way == Way::Watch => Ok(answer.map(|body| thinned(body, tap, path))),
                _ => Ok(answer),
            }
        })
    }
}
