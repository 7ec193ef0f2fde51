//! A stand-in for the process of a platform, as the operator sees it: its internal API over schedules that it keeps in
//! memory. It makes no tasks, so what it says changes only when it is told to.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// How many schedules an answer holds at the most, as at the real one.
const PAGE: usize = 1000;

/// One platform, until it is dropped.
pub(crate) struct Platform {
    /// Where it is: `http://HOST:PORT/`.
    pub(crate) url: String,
    server: JoinHandle<()>,
}

/// What it has.
#[derive(Default)]
struct Schedules {
    last: u64,
    /// In the order of their last change.
    by_change: BTreeMap<u64, Value>,
    /// When each was changed last, by UID.
    changes: HashMap<String, u64>,
}

type Kept = State<Arc<Mutex<Schedules>>>;

impl Platform {
    pub(crate) async fn start() -> Result<Self> {
        let router = Router::new()
            .route("/internal/v1/schedules", get(list))
            .route("/internal/v1/schedules/{uid}", put(make).delete(delete))
            .with_state(Arc::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("the stand-in serves");
        });
        Ok(Self { url, server })
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Schedules {
    fn remove(&mut self, uid: &str) {
        if let Some(change) = self.changes.remove(uid) {
            self.by_change.remove(&change);
        }
    }
}

async fn make(State(kept): Kept, Path(uid): Path<String>, Json(declared): Json<Value>) -> Json<Value> {
    let state = json!({
        "uid": uid,
        "origin": declared["origin"],
        "hash": declared["hash"],
        "id": uid,
        "deleted": false,
        "user_known": true,
        "suspended": false,
        "ended": false,
        "problem": null,
        "next_at": "2030-12-02T08:00:00Z",
        "last_at": "2026-11-16T08:00:00Z",
        "made": 46,
        "missed": 1,
        "skipped": 2,
        "version": 1,
    });
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.remove(&uid);
    kept.last += 1;
    let change = kept.last;
    kept.by_change.insert(change, state.clone());
    kept.changes.insert(uid, change);
    Json(state)
}

async fn delete(State(kept): Kept, Path(uid): Path<String>) -> StatusCode {
    kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
    StatusCode::NO_CONTENT
}

async fn list(State(kept): Kept, Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    let after: u64 = query.get("after").and_then(|after| after.parse().ok()).unwrap_or(0);
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let mut changed = kept.by_change.range(after + 1..);
    let page: Vec<(&u64, &Value)> = changed.by_ref().take(PAGE).collect();
    let cursor = page.last().map_or(after, |(change, _)| **change);
    let items: Vec<&Value> = page.into_iter().map(|(_, state)| state).collect();
    Json(json!({"items": items, "cursor": cursor.to_string(), "has_more": changed.next().is_some()}))
}
