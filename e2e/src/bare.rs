//! The bare path of an event, as a measure: bulk publishes through a sidecar, Kafka, and the sidecar to a bulk
//! subscriber that does nothing but count. No platform and no database in it.
//!
//! The subscriber is an app of its own that announces its subscription; the sidecar in front of it is started by
//! whoever measures.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::client::HTTP;
use crate::wait_for;

/// The topic that only this path uses.
const TOPIC: &str = "bare";
/// How many events are in a request, and in a delivery at the most.
const BATCH: usize = 100;
const BULK_WAIT: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_mins(2);

/// When each event was sent and seen.
#[derive(Debug, Default)]
struct Times {
    sent: HashMap<String, Instant>,
    seen: HashMap<String, Instant>,
}

type Shared = Arc<Mutex<Times>>;

/// An app that subscribes, and publishes to itself.
#[derive(Debug)]
pub struct Bare {
    /// Where the app listens, for its sidecar.
    pub port: u16,
    times: Shared,
    server: JoinHandle<()>,
    /// Around an event's own fields, so that it is as large as the platform's.
    padding: String,
}

/// What a run came to.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Events from the first sent to the last seen.
    pub per_second: f64,
    /// From sent to seen, of each event, in the middle,
    pub p50: Duration,
    /// and at the 95th percentile.
    pub p95: Duration,
}

impl Bare {
    /// Starts the app. Its events are `event_bytes` large, roughly.
    pub async fn start(event_bytes: usize) -> Result<Self> {
        let times = Shared::default();
        let router = Router::new()
            .route("/dapr/subscribe", get(subscriptions))
            .route("/bare", post(deliver))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&times));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the bare subscriber ended: {error}");
            }
        });
        Ok(Self {
            port,
            times,
            server,
            padding: "x".repeat(event_bytes.saturating_sub(300)),
        })
    }

    /// Publishes `count` events through the sidecar at this address, `per_second` of them if that is given and as
    /// fast as it goes if not, and waits until all have arrived.
    pub async fn run(&self, sidecar: &str, count: usize, per_second: Option<u32>) -> Result<Run> {
        *self.lock() = Times::default();
        let url = format!("{sidecar}/v1.0-alpha1/publish/bulk/pubsub/{TOPIC}");
        let began = Instant::now();
        let numbers: Vec<usize> = (0..count).collect();
        // At a rate, each request has what has come up since the last.
        let pause = Duration::from_millis(20);
        let batch = per_second.map_or(BATCH, |rate| (rate as usize * 20 / 1000).max(1));
        let mut next = began;
        for chunk in numbers.chunks(batch) {
            if per_second.is_some() {
                tokio::time::sleep_until(next.into()).await;
                next += pause;
            }
            let entries: Vec<Value> = chunk.iter().map(|number| self.entry(*number)).collect();
            let now = Instant::now();
            self.lock()
                .sent
                .extend(chunk.iter().map(|number| (number.to_string(), now)));
            let answer = HTTP.post(&url).json(&entries).send().await?;
            ensure!(answer.status().is_success(), "the sidecar answered {}", answer.status());
        }
        wait_for("the last event of the bare path", PATIENCE, || async {
            Ok((self.lock().seen.len() == count).then_some(()))
        })
        .await?;
        let times = self.lock();
        let mut took: Vec<Duration> = times.seen.iter().map(|(id, seen)| *seen - times.sent[id]).collect();
        took.sort_unstable();
        let last = times.seen.values().max().context("nothing was seen")?;
        #[allow(clippy::cast_precision_loss, reason = "a benchmark's counts are far below 2^52")]
        let per_second = count as f64 / (*last - began).as_secs_f64();
        Ok(Run {
            per_second,
            p50: took[count / 2],
            p95: took[count * 95 / 100],
        })
    }

    fn entry(&self, number: usize) -> Value {
        json!({
            "entryId": number.to_string(),
            "event": {
                "specversion": "1.0",
                "id": number.to_string(),
                "source": "/bare",
                "type": "bare",
                "datacontenttype": "application/json",
                "data": {"padding": self.padding},
            },
            "contentType": "application/cloudevents+json",
            "metadata": {"partitionKey": (number % 64).to_string()},
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn subscriptions() -> Json<Value> {
    Json(json!([{
        "pubsubname": "pubsub",
        "topic": TOPIC,
        "routes": {"default": "/bare"},
        "bulkSubscribe": {"enabled": true, "maxMessagesCount": BATCH, "maxAwaitDurationMs": BULK_WAIT.as_millis()},
    }]))
}

async fn deliver(State(times): State<Shared>, Json(bulk): Json<Value>) -> Json<Value> {
    let now = Instant::now();
    let entries = bulk["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
    for entry in entries {
        if let Some(id) = entry["event"]["id"].as_str() {
            times.seen.entry(id.to_owned()).or_insert(now);
        }
    }
    let statuses: Vec<Value> = entries
        .iter()
        .map(|entry| json!({"entryId": entry["entryId"], "status": "SUCCESS"}))
        .collect();
    Json(json!({"statuses": statuses}))
}
