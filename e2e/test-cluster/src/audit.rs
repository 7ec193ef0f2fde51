//! What was asked of the API server, read from its audit log.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde::Deserialize;

/// From an answer to its line in the log.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// The requests from one moment on. What the control plane asks of itself is not among them.
pub struct AuditLog {
    path: PathBuf,
    from: u64,
    client: Client,
}

/// One request: a watch when it began, any other when it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// When it came in.
    pub at: Timestamp,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`; of a path that is no
    /// resource, the method in lower case.
    pub verb: String,
    /// Such as `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// What the program called itself.
    pub user_agent: String,
    /// The path with its query.
    pub uri: String,
    /// The API group; empty for the core's.
    pub group: String,
    /// The plural; empty when it was no resource.
    pub resource: String,
    /// Such as `status`; mostly empty.
    pub subresource: String,
    /// Empty for what is in none, and for all at once.
    pub namespace: String,
    /// Empty when the request named none.
    pub name: String,
    /// HTTP's.
    pub code: u16,
    /// Whether RBAC let it through.
    pub allowed: bool,
}

impl AuditEntry {
    /// Whether it asked for a change.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
    }
}

impl AuditLog {
    pub(crate) fn begin(path: PathBuf, client: Client) -> Result<Self> {
        let from = fs::metadata(&path)
            .with_context(|| format!("there is no audit log {}", path.display()))?
            .len();
        Ok(Self { path, from, client })
    }

    /// Every request that was answered since this log was begun, and every watch that has begun since, in the order in
    /// which they were written down.
    pub async fn entries(&self) -> Result<Vec<AuditEntry>> {
        // Once a later request is in the log, so are those before it.
        let marker = format!("audit-{:016x}", rand::random::<u64>());
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), "default");
        api.get_opt(&marker).await?;
        let began = Instant::now();
        loop {
            if let Some(entries) = self.until(&marker)? {
                return Ok(entries);
            }
            if began.elapsed() >= PATIENCE {
                bail!("the audit log does not show a request within {PATIENCE:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Those of one user: a service account is `system:serviceaccount:NAMESPACE:NAME`.
    pub async fn entries_of(&self, user: &str) -> Result<Vec<AuditEntry>> {
        let mut entries = self.entries().await?;
        entries.retain(|entry| entry.user == user);
        Ok(entries)
    }

    fn until(&self, marker: &str) -> Result<Option<Vec<AuditEntry>>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.from))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        let mut complete = false;
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            if line.contains(marker) {
                complete = true;
                continue;
            }
            let event: Event = serde_json::from_str(line).context("a line of the audit log is no event")?;
            // A watch has a second line when it ends.
            if seen.insert(event.audit_id.clone()) && !event.object_ref.name.starts_with("audit-") {
                entries.push(event.into());
            }
        }
        Ok(complete.then_some(entries))
    }
}

/// A line of the log, as `audit.k8s.io/v1` has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(rename = "auditID")]
    audit_id: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: ObjectRef,
    response_status: Option<ResponseStatus>,
    request_received_timestamp: Timestamp,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    code: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "authorization.k8s.io/decision")]
    decision: String,
}

impl From<Event> for AuditEntry {
    fn from(event: Event) -> Self {
        Self {
            at: event.request_received_timestamp,
            verb: event.verb,
            user: event.user.username,
            user_agent: event.user_agent,
            uri: event.request_uri,
            group: event.object_ref.api_group,
            resource: event.object_ref.resource,
            subresource: event.object_ref.subresource,
            namespace: event.object_ref.namespace,
            name: event.object_ref.name,
            code: event.response_status.and_then(|status| status.code).unwrap_or_default(),
            allowed: event.annotations.decision == "allow",
        }
    }
}
