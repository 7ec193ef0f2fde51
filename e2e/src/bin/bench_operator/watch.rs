//! When something is seen: a watch that stamps each state of an object with the time of its arrival.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use kube::Api;
use kube::core::DynamicObject;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, watcher};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_mins(10);

/// The states of the objects of a kind, as they come. It ends when it is dropped.
pub(crate) struct Watch {
    news: mpsc::UnboundedReceiver<(Instant, DynamicObject)>,
    _task: JoinSet<()>,
}

impl Watch {
    pub(crate) fn start(api: Api<DynamicObject>) -> Self {
        let (tell, news) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let events = watcher(api, Config::default()).default_backoff().applied_objects();
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                // The watch begins again by itself.
                let Ok(object) = event else { continue };
                if tell.send((Instant::now(), object)).is_err() {
                    return;
                }
            }
        });
        Self { news, _task: task }
    }

    /// Waits for a state that is so, and says when it came.
    pub(crate) async fn until(&mut self, mut is_so: impl FnMut(&DynamicObject) -> bool) -> Result<Instant> {
        let looking = async {
            loop {
                let (at, object) = self.news.recv().await.context("the watch has ended")?;
                if is_so(&object) {
                    return Ok(at);
                }
            }
        };
        timeout(PATIENCE, looking).await.context("it is not so, long after")?
    }
}

/// Whether the status is about the newest spec.
pub(crate) fn is_current(object: &DynamicObject) -> bool {
    let observed = object.data["status"]["observedGeneration"].as_i64();
    observed.is_some() && observed == object.metadata.generation
}

/// Whether the status is about the newest spec, and this condition so.
pub(crate) fn says(object: &DynamicObject, kind: &str, status: &str) -> bool {
    let conditions = object.data["status"]["conditions"].as_array();
    let is_so = |condition: &Value| condition["type"] == kind && condition["status"] == status;
    is_current(object) && conditions.is_some_and(|conditions| conditions.iter().any(is_so))
}

/// Whether a platform is what its manifest asks for, and its status says so.
pub(crate) fn is_settled(platform: &DynamicObject) -> bool {
    says(platform, "Ready", "True") && says(platform, "Progressing", "False")
}
