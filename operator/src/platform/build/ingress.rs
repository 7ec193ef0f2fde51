//! The way in from outside. Only what people use: not the internal API, not health and metrics, not what sidecars call.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};

use super::draft::Draft;
use super::pod;
use crate::child::{Child, Kind};

/// The paths that people use, and whether what is below them is meant too. `/` itself leads to the documentation.
const PATHS: [(&str, &str); 4] = [
    ("/", "Exact"),
    ("/api", "Prefix"),
    ("/docs", "Prefix"),
    ("/openapi.json", "Exact"),
];

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    let Some(asked) = &draft.spec.api.ingress else {
        return vec![];
    };
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
    vec![object.component("api").content(&ingress)]
}
