//! The way in from outside. Only what people use: not the internal API, not health and metrics, not what sidecars call.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};

use serde_json::json;
use todo_crds::platform;

use super::draft::Draft;
use super::{pod, service};
use crate::child::{Child, Kind};

/// The paths that people use, and whether what is below them is meant too. `/` itself leads to the documentation.
const PATHS: [(&str, &str); 4] = [
    ("/", "Exact"),
    ("/api", "Prefix"),
    ("/docs", "Prefix"),
    ("/openapi.json", "Exact"),
];

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    let api = &draft.spec.api;
    let ingress = api.ingress.as_ref().map(|asked| ingress(draft, asked));
    let route = api.http_route.as_ref().map(|asked| route(draft, asked));
    ingress.into_iter().chain(route).collect()
}

fn ingress(draft: &Draft, asked: &platform::Ingress) -> Child {
    let paths = PATHS.map(|(path, kind)| HTTPIngressPath {
        path: Some(path.to_owned()),
        path_type: kind.to_owned(),
        backend: IngressBackend {
            service: Some(IngressServiceBackend {
                name: draft.names.api_service(),
                port: Some(ServiceBackendPort {
                    name: Some(pod::PORT_NAME.to_owned()),
                    ..ServiceBackendPort::default()
                }),
            }),
            ..IngressBackend::default()
        },
    });
    let tls = asked.tls_secret_name.as_ref().map(|secret| {
        vec![IngressTLS {
            hosts: Some(vec![asked.host.clone()]),
            secret_name: Some(secret.clone()),
        }]
    });
    let ingress = Ingress {
        spec: Some(IngressSpec {
            ingress_class_name: asked.class_name.clone(),
            tls,
            rules: Some(vec![IngressRule {
                host: Some(asked.host.clone()),
                http: Some(HTTPIngressRuleValue { paths: paths.into() }),
            }]),
            ..IngressSpec::default()
        }),
        ..Ingress::default()
    };
    let object = draft.object(Kind::Ingress, draft.names.api_service());
    object.component("api").content(&ingress)
}

fn route(draft: &Draft, asked: &platform::HttpRoute) -> Child {
    let matches = PATHS.map(|(path, kind)| {
        let kind = if kind == "Prefix" { "PathPrefix" } else { kind };
        json!({"path": {"type": kind, "value": path}})
    });
    let object = draft.object(Kind::HttpRoute, draft.names.api_service());
    object.component("api").content(&json!({"spec": {
        "parentRefs": asked.parent_refs,
        "hostnames": [asked.host],
        "rules": [{
            "matches": matches,
            "backendRefs": [{"name": draft.names.api_service(), "port": service::PORT}],
        }],
    }}))
}
