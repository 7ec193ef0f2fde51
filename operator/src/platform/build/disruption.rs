//! Disruption budgets: an eviction takes one pod of a component at a time.
//!
//! Not "at least one stays": with one pod, that would hold up the node's drain for ever.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::draft::Draft;
use crate::child::{Child, Kind, Stage};
use crate::names::Component;

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    if draft.inputs.release.is_none() {
        return vec![];
    }
    let components = draft.components().into_iter();
    let running = components.filter(|component| draft.runs(*component));
    running.map(|component| budget(draft, component)).collect()
}

fn budget(draft: &Draft, component: Component) -> Child {
    let budget = PodDisruptionBudget {
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(draft.names.selector(component)),
                ..LabelSelector::default()
            }),
            // A pod that does not work is nothing to spare.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    };
    draft
        .object(Kind::PodDisruptionBudget, draft.names.component(component))
        .component(component.as_str())
        .stage(Stage::Run)
        .content(&budget)
}
