//! What a pod says to get a sidecar, and what makes it need a new one.
//!
//! Names and values are those that Dapr 1.16's injector reads; all values are text.

use std::collections::BTreeMap;

use serde_json::Value;

use super::build;
use crate::child::Kind;
use crate::names::Component;
use crate::platform::build::draft::{Draft, fingerprint};
use crate::platform::build::{pod, secrets};
use todo_crds::LogFormat;

/// The sidecar's gRPC port for other sidecars.
pub(in crate::platform::build) const INTERNAL_PORT: i32 = 50002;
/// The sidecar's port for Prometheus.
pub(in crate::platform::build) const METRICS_PORT: i32 = 9090;

/// How long the sidecar still serves its app after both were told to go: the app has things on their way.
const STAYS: &str = "10s";
/// How long its own end may take then.
const GRACE_SECONDS: &str = "20";

/// So often in a row, six seconds apart, the sidecar may not answer before it is started anew. It does not as long as it
/// connects to what it loads, which slow brokers draw out, and each start anew would begin that again, later each time.
/// What cannot be connected to at all, it ends over by itself.
const MISSES: &str = "20";

/// The annotations of a component's pods.
pub(in crate::platform::build) fn annotations(draft: &Draft, component: Component) -> BTreeMap<String, String> {
    let names = &draft.names;
    let log_as_json = draft.spec.observability.log_format != Some(LogFormat::Text);
    [
        ("enabled", "true".to_owned()),
        ("app-id", names.component(component)),
        ("app-port", pod::PORT.to_string()),
        ("app-protocol", "http".to_owned()),
        ("config", names.dapr()),
        ("api-token-secret", names.dapr_token()),
        ("app-token-secret", names.app_token()),
        ("log-as-json", log_as_json.to_string()),
        ("enable-metrics", "true".to_owned()),
        ("metrics-port", METRICS_PORT.to_string()),
        ("graceful-shutdown-seconds", GRACE_SECONDS.to_owned()),
        ("block-shutdown-duration", STAYS.to_owned()),
        ("sidecar-liveness-probe-threshold", MISSES.to_owned()),
        // The pod has no token with which the sidecar could ask for Secrets.
        ("disable-builtin-k8s-secret-store", "true".to_owned()),
        ("sidecar-seccomp-profile-type", "RuntimeDefault".to_owned()),
        ("sidecar-cpu-request", "50m".to_owned()),
        ("sidecar-memory-request", "96Mi".to_owned()),
    ]
    .map(|(name, value)| (format!("dapr.io/{name}"), value))
    .into()
}

/// Changes when anything changes that the sidecar of this component loads at its start: what is meant for its app, with
/// the Secrets in it. Before 1.18 a sidecar takes notice of nothing that changes later.
pub(in crate::platform::build) fn hash(draft: &Draft, component: Component) -> String {
    let app = Value::from(draft.names.component(component));
    let mut loaded = vec![];
    for child in build(draft) {
        let scopes = child.body["scopes"].as_array();
        if !draft.inputs.capabilities.has(child.key.kind) || scopes.is_some_and(|scopes| !scopes.contains(&app)) {
            continue;
        }
        if child.key.kind == Kind::Component {
            loaded.extend(secrets_of(draft, &child.body).map(Value::from));
        }
        loaded.push(child.body["spec"].clone());
    }
    fingerprint(&loaded)
}

/// The hashes of the Secrets that a component refers to.
fn secrets_of<'a>(draft: &'a Draft, component: &'a Value) -> impl Iterator<Item = String> + 'a {
    let metadata = component.pointer("/spec/metadata").and_then(Value::as_array);
    metadata
        .into_iter()
        .flatten()
        .filter_map(|item| item.pointer("/secretKeyRef/name")?.as_str())
        .map(|name| secrets::hash_of(draft, name).unwrap_or_default())
}
