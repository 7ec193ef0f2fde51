//! The reconciler of `TodoPlatform`.
//!
//! Here: what one pass knows of the world ([`Inputs`]), what stands in its way ([`Problem`]), every child made of it
//! ([`build`]), what the cluster then says about them ([`seen`]), and the status made of that ([`status`]).

mod brokers;
pub mod build;
mod context;
mod deletion;
pub mod dereference;
mod inputs;
mod problem;
mod progress;
mod reconcile;
pub mod release;
pub mod seen;
pub mod status;
pub mod validate;

pub use brokers::{Brokers, Found};
pub use context::Context;
pub use deletion::Departures;
pub use inputs::{
    DatabaseFacts, Drawn, Inputs, InternalKey, KafkaFacts, KafkaListener, Release, SecretFacts, VolumeFacts,
};
pub use problem::{Problem, Severity};
pub use progress::Progress;
pub use reconcile::{Done, reconcile};
