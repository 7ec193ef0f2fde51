//! Every child of a platform, as data: a pure function of what a pass knows.
//!
//! Here: one file for each subject, each answering a list of children. [`Draft`] is what they share: what is known, what
//! follows from it for more than one of them, and the one way in which an object gets its labels and its owner. Not
//! here: what is wrong with the inputs (`validate`), and in which order what is built may be applied (`child`, `apply`).
//!
//! What the cluster does not serve is not built; everything else is.

mod accounts;
mod autoscaling;
mod dapr;
mod database;
mod disruption;
mod draft;
mod ingress;
mod kafka;
mod migration;
mod monitoring;
mod pod;
mod policies;
mod promql;
mod secrets;
mod service;
mod settings;
mod workload;

use super::Inputs;
use crate::child::Children;

pub(crate) use autoscaling::ignored_lag;
pub(crate) use database::{Place, is_own_database, place};
pub(crate) use draft::{Draft, ROLES};
pub use kafka::topics;
pub(crate) use pod::DATABASE_URL;
pub(crate) use settings::least_connections;

/// Every child that `inputs` ask for, in the order in which they are applied.
///
/// As long as it is not known how the brokers are reached, what speaks to them is left as it is: pods, and all of Dapr.
/// The children are not [complete](Children::is_complete) then.
pub fn build(inputs: &Inputs) -> Children {
    let draft = Draft::new(inputs);
    let mut parts = vec![
        accounts::build(&draft),
        settings::build(&draft),
        secrets::build(&draft),
        policies::build(&draft),
        database::build(&draft),
        kafka::build(&draft),
        service::build(&draft),
        ingress::build(&draft),
        monitoring::build(&draft),
        migration::build(&draft),
    ];
    let mut children = Children::default();
    if draft.is_spread() && kafka::brokers(&draft).is_none() {
        children.leave_rest();
    } else {
        parts.extend([
            dapr::build(&draft),
            workload::build(&draft),
            autoscaling::build(&draft),
            disruption::build(&draft),
        ]);
    }
    for child in parts.into_iter().flatten() {
        if inputs.capabilities.has(child.key.kind) {
            children.add(child);
        }
    }
    children
}
