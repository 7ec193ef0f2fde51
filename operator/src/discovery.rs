//! What a cluster serves, read from its API server, and read again as long as the operator runs.
//!
//! Here: one request that asks for every group at once (aggregated discovery, Kubernetes 1.30), of which only what the
//! operator knows is kept. An entity tag makes the next ones cost nothing while nothing changed. It needs no role but
//! `system:discovery`, which every account has. Not here: what follows from an API that is missing.

use std::fmt;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::capabilities::Capabilities;
use crate::child::Kind;
use crate::error::{Call, Error, Result};

/// What is asked for: all groups, their versions and resources in one document.
const ACCEPT: HeaderValue =
    HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
/// More than any cluster's document has, in bytes.
const LARGEST: usize = 32 << 20;
/// How long one reading may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reads what a cluster serves, again and again.
pub struct Discovery {
    client: Client,
    tag: Option<HeaderValue>,
    sender: watch::Sender<Capabilities>,
}

impl fmt::Debug for Discovery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Discovery")
            .field("known", &*self.sender.borrow())
            .finish_non_exhaustive()
    }
}

impl Discovery {
    /// Reads it once.
    pub async fn start(client: Client) -> Result<Self> {
        let mut discovery = Self {
            client,
            tag: None,
            sender: watch::Sender::default(),
        };
        discovery.refresh().await?;
        Ok(discovery)
    }

    /// What the cluster serves, now and whenever that changes.
    pub fn subscribe(&self) -> watch::Receiver<Capabilities> {
        self.sender.subscribe()
    }

    /// Reads it again every `every` or so, until `stop`. Where that does not work, what was read last stays.
    pub async fn run(mut self, every: Duration, stop: CancellationToken) {
        loop {
            let wait = every.mul_f64(rand::random_range(0.8..=1.2));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "cannot see which APIs the cluster serves");
            }
        }
    }

    async fn refresh(&mut self) -> Result<()> {
        let read = tokio::time::timeout(PATIENCE, self.read());
        let Some(found) = read.await.unwrap_or_else(|_| Err(call().timed_out(PATIENCE)))? else {
            return Ok(());
        };
        self.sender.send_if_modified(|known| {
            let has_changed = *known != found;
            *known = found;
            has_changed
        });
        Ok(())
    }

    /// `None` when nothing has changed since the last time.
    async fn read(&mut self) -> Result<Option<Capabilities>> {
        let mut request = Request::get("/apis").header(header::ACCEPT, ACCEPT);
        if let Some(tag) = &self.tag {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        let request = request.body(Body::empty());
        let request = request.map_err(|error| call().failed(kube::Error::HttpError(error)))?;
        let answer = self.client.send(request).await.map_err(|error| call().failed(error))?;
        if answer.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LARGEST).collect().await;
        let body = body
            .map_err(|error| call().failed(kube::Error::Service(error)))?
            .to_bytes();
        if !head.status.is_success() {
            let status = serde_json::from_slice(&body).unwrap_or_else(|_| {
                let reason = head.status.canonical_reason().unwrap_or_default();
                kube::core::Status::failure(reason, "").with_code(head.status.as_u16())
            });
            return Err(call().failed(kube::Error::Api(status.boxed())));
        }
        let found = parse(&body)?;
        self.tag = head.headers.get(header::ETAG).cloned();
        Ok(Some(found))
    }
}

/// What a cluster serves, read once.
pub async fn read(client: &Client) -> Result<Capabilities> {
    let discovery = Discovery::start(client.clone()).await?;
    Ok(discovery.sender.borrow().clone())
}

fn call() -> Call {
    Call::new("get", "/apis", "", "")
}

/// The document, as far as it is read.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    metadata: Metadata,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    resource: String,
}

fn parse(document: &[u8]) -> Result<Capabilities> {
    let document: Document =
        serde_json::from_slice(document).map_err(|error| call().failed(kube::Error::SerdeError(error)))?;
    if document.kind != "APIGroupDiscoveryList" {
        return Err(Error::Unavailable {
            call: call(),
            message: "the API server knows no aggregated discovery: Kubernetes 1.30 or newer is needed".to_owned(),
            retry_after: None,
        });
    }
    let mut found = Capabilities::default();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.optional().is_some()) {
        let groups = document
            .items
            .iter()
            .filter(|group| group.metadata.name == kind.group());
        let served: Vec<&str> = groups
            .flat_map(|group| &group.versions)
            .filter(|version| version.resources.iter().any(|found| found.resource == kind.plural()))
            .map(|version| version.version.as_str())
            .collect();
        found.serve(kind, &served);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(name: &str, versions: &[(&str, &[&str])]) -> serde_json::Value {
        let versions: Vec<_> = versions
            .iter()
            .map(|(version, resources)| {
                let resources: Vec<_> = resources.iter().map(|name| json!({"resource": name})).collect();
                json!({"version": version, "resources": resources, "freshness": "Current"})
            })
            .collect();
        json!({"metadata": {"name": name}, "versions": versions})
    }

    fn found(groups: &[serde_json::Value]) -> Capabilities {
        let document =
            json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": groups});
        parse(document.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_preferred_of_the_served_versions_is_used() {
        let both = group(
            "kafka.strimzi.io",
            &[("v1beta2", &["kafkatopics", "kafkausers"]), ("v1", &["kafkatopics"])],
        );
        let capabilities = found(&[both]);
        assert_eq!(capabilities.version(Kind::KafkaTopic), Some("v1"));
        assert_eq!(capabilities.version(Kind::KafkaUser), Some("v1beta2"));
        assert!(!capabilities.has(Kind::Component));
        assert!(capabilities.has(Kind::Deployment));
    }

    #[test]
    fn a_group_without_the_resource_is_not_enough() {
        let others = group("monitoring.coreos.com", &[("v1", &["servicemonitors"])]);
        assert!(!found(&[others]).has(Kind::PodMonitor));
        let unknown = group("keda.sh", &[("v1", &["scaledobjects"])]);
        assert!(!found(&[unknown]).has(Kind::ScaledObject));
    }

    #[test]
    fn an_api_server_that_is_too_old_is_told_from_one_without_groups() {
        let old = json!({"kind": "APIGroupList", "groups": []}).to_string();
        let said = parse(old.as_bytes()).unwrap_err().to_string();
        assert!(said.contains("Kubernetes 1.30 or newer"), "{said}");
    }
}
