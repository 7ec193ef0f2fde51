//! The operator: what makes and keeps the platforms that resources of a cluster describe.
//!
//! Here: the reconcilers of `TodoPlatform` ([`platform`]) and what they share: children as data ([`child`]), their
//! names ([`names`]), and what the cluster offers ([`capabilities`]). Not here: the resource types and what their
//! fields mean (`todo-crds`), and what a platform does when it runs.
//!
//! The way of a platform: dereference (reads only) → validate → build (no client: every child as data) → apply → prune →
//! status. `todo plan` goes the same way without the last three.

pub mod announce;
pub mod apply;
pub mod backoff;
pub mod capabilities;
pub mod child;
pub mod connection;
pub mod discovery;
pub mod error;
pub mod events;
pub mod health;
pub mod kafka;
pub mod lease;
pub mod live;
pub mod metrics;
pub mod names;
pub mod pace;
pub mod plan;
pub mod platform;
pub mod prune;
mod record;
mod relist;
pub mod resources;
pub mod run;
pub mod schedule;
pub mod settings;
pub mod waiting;
