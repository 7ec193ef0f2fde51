//! Dapr: components of events and of state, subscriptions, resiliency, the sidecars' configuration, and what pods say
//! to get a sidecar.
//!
//! There is no secret store among the components. The processes' secrets are files, and what components need of Secrets
//! Dapr's own control plane puts in; a store would only give every sidecar's account the right to read Secrets.

mod component;
mod configuration;
mod resiliency;
mod sidecar;
mod subscription;

pub(super) use component::state_store;
pub(super) use sidecar::{INTERNAL_PORT, METRICS_PORT, annotations, hash};

use super::draft::Draft;
use crate::child::Child;

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    if !draft.wants_sidecars() {
        return vec![];
    }
    let mut children = component::build(draft);
    children.extend(subscription::build(draft));
    children.push(resiliency::build(draft));
    children.push(configuration::build(draft));
    children
}

/// The app ids of every component that has pods of its own.
fn app_ids(draft: &Draft) -> Vec<String> {
    let components = draft.components().into_iter();
    components.map(|component| draft.names.component(component)).collect()
}
