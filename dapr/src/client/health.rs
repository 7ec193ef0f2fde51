//! Whether the sidecar is ready, and what it has loaded.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use tokio::time::Instant;

use super::{Call, Client};
use crate::Error;

/// What the sidecar says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Metadata {
    /// The app id.
    pub id: String,
    /// Dapr's version.
    #[serde(rename = "runtimeVersion", default)]
    pub runtime_version: String,
    /// What it has loaded. A component's own resource has no status: this is the only place to see it.
    #[serde(default)]
    pub components: Vec<Component>,
    /// What it delivers.
    #[serde(default)]
    pub subscriptions: Vec<Subscription>,
}

/// A component that the sidecar has loaded.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its type, such as `pubsub.kafka`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The version of its type, such as `v1`.
    #[serde(default)]
    pub version: String,
    /// What it can do, such as `ETAG` or `TTL`.
    #[serde(default)]
    pub capabilities: Vec<String>,
}

/// A subscription that the sidecar knows of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Subscription {
    /// The component.
    #[serde(rename = "pubsubname")]
    pub pubsub: String,
    /// The topic.
    pub topic: String,
    /// Where messages go that cannot be delivered.
    #[serde(rename = "deadLetterTopic", default)]
    pub dead_letter_topic: String,
}

impl Client {
    /// The longest wait for the answer of a probe.
    const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
    /// The wait between probes.
    const PROBE_EVERY: Duration = Duration::from_millis(100);

    /// Whether the sidecar takes calls now.
    ///
    /// It asks for the outbound health: the other one waits for this app to listen, and an app that waits for
    /// that before it listens waits for ever.
    pub async fn ready(&self) -> Result<(), Error> {
        let mut call = Call::new("health", Method::GET, &["v1.0", "healthz", "outbound"]);
        call.timeout = Some(Self::PROBE_TIMEOUT);
        self.attempt(&call).await?.success().map(drop)
    }

    /// Waits until the sidecar takes calls, but not longer than `patience`.
    pub async fn wait_until_ready(&self, patience: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        loop {
            let Err(error) = self.ready().await else {
                return Ok(());
            };
            if Instant::now() + Self::PROBE_EVERY >= deadline {
                return Err(Error::NotReady {
                    patience,
                    last: Box::new(error),
                });
            }
            tokio::time::sleep(Self::PROBE_EVERY).await;
        }
    }

    /// What the sidecar has loaded.
    pub async fn metadata(&self) -> Result<Metadata, Error> {
        let call = Call::new("metadata", Method::GET, &["v1.0", "metadata"]).idempotent(true);
        self.done(&call).await?.json()
    }
}
