//! Dapr's configuration of the sidecars: who may call, what is traced, what is measured.

use serde_json::json;

use crate::child::{Child, Kind};
use crate::names::MANAGER;
use crate::platform::build::draft::Draft;

pub(super) fn build(draft: &Draft) -> Child {
    let tracing = draft.spec.dapr.as_ref().and_then(|dapr| dapr.tracing.as_ref());
    let tracing = match tracing {
        Some(tracing) => json!({
            "samplingRate": "1",
            "otel": {"endpointAddress": tracing.otlp_endpoint, "isSecure": false, "protocol": "grpc"},
        }),
        // A sidecar that samples would put its own span, which nobody collects, in the place of the request's.
        None => json!({"samplingRate": "0"}),
    };
    let object = draft.object(Kind::Configuration, draft.names.dapr()).component("dapr");
    object.content(&json!({"spec": {
        "tracing": tracing,
        "metrics": {"enabled": true, "http": {"increasedCardinality": false}},
        // A sidecar shows its app the token for every call that it passes on, so it passes on none but the operator's.
        "accessControl": {
            "defaultAction": "deny",
            "trustDomain": "public",
            "policies": [{
                "appId": MANAGER,
                "namespace": draft.inputs.settings.namespace,
                "trustDomain": "public",
                "defaultAction": "deny",
                "operations": [
                    {"name": "/internal/v1/**", "httpVerb": ["GET", "PUT", "DELETE"], "action": "allow"},
                ],
            }],
        },
    }}))
}
