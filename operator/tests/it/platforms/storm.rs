//! What goes wrong between an operator and its API server: requests that are refused, lost or cut off, and watches that
//! break off or lose events.

use std::io;

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use rand::seq::IndexedRandom as _;
use serde_json::json;
use tower::BoxError;

use super::tap::Tap;

/// How much goes wrong, each as a share of all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storm {
    /// Requests that fail.
    pub(crate) requests: f64,
    /// Events of a watch that never arrive.
    pub(crate) events: f64,
    /// Events of a watch with which it breaks off.
    pub(crate) breaks: f64,
}

/// What kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Read,
    Watch,
    Write,
}

impl Way {
    pub(super) fn of(request: &Request<Body>) -> Self {
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        match *request.method() {
            Method::GET if is_watch => Self::Watch,
            Method::GET => Self::Read,
            _ => Self::Write,
        }
    }
}

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is refused with this status, and with how many seconds to wait.
    Answer { code: u16, retry_after: Option<u32> },
    /// It gets lost, and nobody says so.
    Unsent,
    /// Its answer gets lost, and nobody says so.
    Unanswered,
    /// The connection breaks off before it is sent.
    CutBefore,
    /// The connection breaks off before it is answered.
    CutAfter,
}

impl Fault {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Answer { code: 409, .. } => "409",
            Self::Answer {
                code: 429,
                retry_after: Some(_),
            } => "429 with a wait",
            Self::Answer { code: 429, .. } => "429",
            Self::Answer { code: 503, .. } => "503",
            Self::Answer { .. } => "500",
            Self::Unsent => "lost",
            Self::Unanswered => "answer lost",
            Self::CutBefore => "cut",
            Self::CutAfter => "answer cut",
        }
    }
}

impl Storm {
    pub(super) fn fault(self, way: Way) -> Option<Fault> {
        const fn refusal(code: u16, retry_after: Option<u32>) -> Fault {
            Fault::Answer { code, retry_after }
        }
        const FAULTS: [Fault; 9] = [
            refusal(429, Some(1)),
            refusal(429, None),
            refusal(500, None),
            refusal(503, None),
            Fault::Unsent,
            Fault::Unanswered,
            Fault::CutBefore,
            Fault::CutAfter,
            refusal(409, None),
        ];
        // No read is a conflict.
        let faults = if way == Way::Write { &FAULTS[..] } else { &FAULTS[..8] };
        let happens = rand::random_bool(self.requests);
        faults.choose(&mut rand::rng()).copied().filter(|_| happens)
    }
}

/// What a connection that broke off says.
pub(super) fn broken() -> BoxError {
    io::Error::from(io::ErrorKind::ConnectionReset).into()
}

/// What an API server refuses with.
pub(super) fn answer(code: u16, retry_after: Option<u32>) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    let details = retry_after.map(|seconds| json!({"retryAfterSeconds": seconds}));
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "a storm", "reason": reason, "code": code, "details": details,
    });
    let body = Full::new(Bytes::from(status.to_string()));
    let mut answer = Response::builder()
        .status(code)
        .header("content-type", "application/json");
    if let Some(seconds) = retry_after {
        answer = answer.header("retry-after", seconds);
    }
    answer
        .body(body.map_err(|never| match never {}).boxed_unsync())
        .unwrap()
}

/// A watch of what is at this path, as storms let it through and when it may tell. It began before some of them.
pub(super) fn thinned(body: UnsyncBoxBody<Bytes, BoxError>, tap: Tap, path: String) -> UnsyncBoxBody<Bytes, BoxError> {
    let state = (body, (tap, path), vec![], false);
    let frames = stream::unfold(state, |(mut body, way, mut rest, is_over)| async move {
        if is_over {
            return None;
        }
        loop {
            let frame = match body.frame().await? {
                Ok(frame) => frame,
                Err(error) => return Some((Err(error), (body, way, rest, true))),
            };
            let Some(data) = frame.data_ref() else {
                continue;
            };
            let (tap, path) = &way;
            tap.while_held(path).await;
            rest.extend_from_slice(data);
            let (passes, breaks_off) = sieve(&mut rest, tap);
            if breaks_off {
                return Some((Err(broken()), (body, way, rest, true)));
            }
            if !passes.is_empty() {
                let frame = frame.map_data(|_| Bytes::from(passes));
                return Some((Ok(frame), (body, way, rest, false)));
            }
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// Takes the whole lines out of `rest`, each an event, and answers those that pass, and whether the watch breaks off.
fn sieve(rest: &mut Vec<u8>, tap: &Tap) -> (Vec<u8>, bool) {
    const EXPIRED: &str = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"a storm","reason":"Expired","code":410}}"#;
    let mut passes = vec![];
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = rest.drain(..=end).collect();
        let Some(storm) = tap.weather() else {
            passes.extend(line);
            continue;
        };
        if rand::random_bool(storm.breaks) {
            if rand::random_bool(0.5) {
                tap.hit("watch broken off");
                return (vec![], true);
            }
            tap.hit("watch expired");
            passes.extend_from_slice(EXPIRED.as_bytes());
            passes.push(b'\n');
        } else if rand::random_bool(storm.events) {
            tap.hit("event lost");
        } else {
            passes.extend(line);
        }
    }
    (passes, false)
}
