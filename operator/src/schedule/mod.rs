//! The reconciler of `RecurringSchedule`: what a resource declares is brought to its platform, and what the platform says
//! of it is brought back.
//!
//! Here: the calls ([`internal_api`]), what platforms say ([`states`]) and how it is kept up to date ([`follow`]), one pass
//! ([`reconcile`]) and the status made of it ([`status`]). Not here: making tasks. That is the platform's, also when no
//! operator runs.

mod access;
pub mod follow;
pub mod internal_api;
pub mod reconcile;
pub mod states;
pub mod status;

pub use reconcile::{Context, reconcile};
