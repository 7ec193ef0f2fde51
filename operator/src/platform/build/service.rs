//! The Service that people's requests and the operator's go to.
//!
//! It selects whatever answers requests, by a label of its own: on the way from one Deployment to several, and back, old
//! and new pods are behind it together. It is there while the API is suspended, too, so its address stays.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::draft::Draft;
use super::pod;
use crate::child::{Child, Kind};
use crate::names::SERVES_LABEL;

/// The Service's port.
pub(super) const PORT: i32 = 80;

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    let selector = [
        ("app.kubernetes.io/instance", draft.names.platform.as_str()),
        (SERVES_LABEL, "api"),
    ];
    let service = Service {
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(selector.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
            ports: Some(vec![ServicePort {
                name: Some(pod::PORT_NAME.to_owned()),
                port: PORT,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String(pod::PORT_NAME.to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    let object = draft.object(Kind::Service, draft.names.api_service());
    vec![object.component("api").content(&service)]
}
