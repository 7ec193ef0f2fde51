//! A client for the sidecar's HTTP API.
//!
//! What lives here: how a request is made, sent again and answered. The calls themselves are in the files
//! beside this one, one for each of Dapr's building blocks. What does not: tokens of users, and retries of
//! calls that may not be made twice.
//!
//! When a call is made again: always when the request was never sent; after a lost answer or a fault of the
//! sidecar only when making it twice is the same as making it once.

mod health;
mod invoke;
mod jobs;
mod publish;
mod secrets;
mod state;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

pub use self::health::{Component, Metadata, Subscription};
pub use self::invoke::{Invocation, InvocationAnswer};
pub use self::jobs::{Job, JobState, OnFailure, When};
pub use self::publish::{BulkEntry, FailedEntry, Message};
pub use self::state::{Condition, Etag, Operation, StateItem, Stored};

use crate::{Error, Refusal, Settings};

const API_TOKEN: HeaderName = HeaderName::from_static("dapr-api-token");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const JSON: &str = "application/json";

/// A client of one sidecar. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    settings: Arc<Settings>,
    traceparent: Option<HeaderValue>,
    /// Whether the sidecar's jobs are on the alpha path, as far as is known.
    alpha_jobs: Arc<AtomicBool>,
}

impl Client {
    /// A client with these settings. Connects at the first call.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let mut headers = HeaderMap::new();
        if let Some(token) = &settings.token {
            let mut value = HeaderValue::from_str(token.expose()).map_err(|_| Error::Setting {
                name: "DAPR_API_TOKEN",
                problem: "has characters that no header can carry".to_owned(),
            })?;
            value.set_sensitive(true);
            headers.insert(API_TOKEN, value);
        }
        // reqwest takes the process's TLS; whoever installed one before us has chosen.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(settings.connect_timeout)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        if settings.address.scheme() == "http" {
            // An image without any certificates is no reason not to talk to a neighbour.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(|error| Error::Setting {
            name: "DAPR_HTTP_ENDPOINT",
            problem: format!("cannot be used: {error}"),
        })?;
        Ok(Self {
            http,
            settings: Arc::new(settings),
            traceparent: None,
            alpha_jobs: Arc::default(),
        })
    }

    /// Describes what clients measure to the recorder that is installed by then. Not part of [`Client::new`]: a client
    /// is needed for secrets, before there is one.
    pub fn describe_metrics() {
        metrics::describe_histogram!(
            "todo_dapr_call_seconds",
            metrics::Unit::Seconds,
            "Duration of calls to the sidecar, each attempt for itself, by what came of it."
        );
    }

    /// The same client for the calls of one trace (W3C `traceparent`). A value that no header can carry is
    /// left out: a trace is never a reason for a call to fail.
    #[must_use]
    pub fn traced(&self, traceparent: &str) -> Self {
        Self {
            traceparent: HeaderValue::from_str(traceparent).ok(),
            ..self.clone()
        }
    }

    /// Makes a call, again where that is safe, and returns what was answered, whatever it is.
    async fn send(&self, call: &Call) -> Result<Answer, Error> {
        let mut attempt = 1;
        loop {
            let started = Instant::now();
            let result = self.attempt(call).await;
            let (outcome, again) = match &result {
                Ok(answer) if answer.status.is_success() => ("ok", false),
                Ok(answer) => {
                    let refusal = answer.refusal();
                    let again = call.idempotent && refusal.is_retryable() && !(call.is_final)(&refusal);
                    ("refused", again)
                }
                Err(Error::Unreachable(_)) => ("unreachable", true),
                Err(error) => ("failed", call.idempotent && error.is_retryable()),
            };
            metrics::histogram!("todo_dapr_call_seconds", "call" => call.name, "outcome" => outcome)
                .record(started.elapsed());
            if !again || attempt >= self.settings.attempts {
                return result;
            }
            tracing::debug!(call = call.name, outcome, attempt, "trying again");
            tokio::time::sleep(self.settings.backoff.delay(attempt)).await;
            attempt += 1;
        }
    }

    /// Makes a call that is answered by a success or not at all.
    async fn done(&self, call: &Call) -> Result<Answer, Error> {
        self.send(call).await?.success()
    }

    async fn attempt(&self, call: &Call) -> Result<Answer, Error> {
        let mut request = self
            .http
            .request(call.method.clone(), call.url(&self.settings.address)?)
            .timeout(call.timeout.unwrap_or(self.settings.timeout))
            .headers(call.headers.clone());
        if let Some(traceparent) = &self.traceparent {
            request = request.header(TRACEPARENT, traceparent);
        }
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        let response = request.send().await.map_err(Error::transport)?;
        Ok(Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: response.bytes().await.map_err(Error::transport)?,
        })
    }
}

/// A request, and when it may be made twice.
struct Call {
    /// For metrics and logs.
    name: &'static str,
    method: Method,
    path: Vec<String>,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Option<Bytes>,
    /// The longest wait for the answer to one attempt, if not the usual one.
    timeout: Option<Duration>,
    idempotent: bool,
    /// Whether a refusal that looks like a passing fault is an answer for good.
    is_final: fn(&Refusal) -> bool,
}

impl Call {
    fn new(name: &'static str, method: Method, path: &[&str]) -> Self {
        Self {
            name,
            method,
            path: path.iter().map(|&segment| segment.to_owned()).collect(),
            query: vec![],
            headers: HeaderMap::new(),
            body: None,
            timeout: None,
            idempotent: false,
            is_final: |_| false,
        }
    }

    /// Says whether making the call twice is the same as making it once.
    fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Result<Self, Error> {
        let content_type = HeaderValue::from_str(content_type).map_err(|_| Error::Name(content_type.to_owned()))?;
        self.headers.insert(CONTENT_TYPE, content_type);
        self.body = Some(body.into());
        Ok(self)
    }

    fn json(self, body: &impl Serialize) -> Result<Self, Error> {
        let body = serde_json::to_vec(body).expect("the API's own types are plain JSON");
        self.body(JSON, body)
    }

    /// Each segment is escaped: a key with a slash stays one segment.
    fn url(&self, address: &Url) -> Result<Url, Error> {
        let mut url = address.clone();
        {
            let mut segments = url.path_segments_mut().map_err(|()| Error::Name(address.to_string()))?;
            segments.pop_if_empty();
            for segment in &self.path {
                // These would lead to another path.
                if matches!(segment.as_str(), "" | "." | "..") {
                    return Err(Error::Name(segment.clone()));
                }
                segments.push(segment);
            }
        }
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }
}

/// What was answered.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn refusal(&self) -> Refusal {
        Refusal::new(self.status, &self.body)
    }

    fn success(self) -> Result<Self, Error> {
        if self.status.is_success() {
            Ok(self)
        } else {
            Err(Error::Refused(self.refusal()))
        }
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::UnexpectedAnswer(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(path: &[&str]) -> Result<String, Error> {
        let address = Url::parse("http://127.0.0.1:3500/base/").expect("a URL");
        Call::new("test", Method::GET, path)
            .url(&address)
            .map(|url| url.to_string())
    }

    #[test]
    fn a_key_cannot_leave_its_segment() {
        assert_eq!(
            url(&["v1.0", "state", "store", "a/../b?c#d %"]).expect("a URL"),
            "http://127.0.0.1:3500/base/v1.0/state/store/a%2F..%2Fb%3Fc%23d%20%25"
        );
        for key in ["", ".", ".."] {
            assert!(matches!(url(&["v1.0", "state", "store", key]), Err(Error::Name(_))));
        }
    }
}
