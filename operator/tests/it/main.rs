//! The operator's parts on real ones: API servers, brokers.
//!
//! A broker is started once for all tests that need none of their own; it listens on loopback only and is gone when this
//! process is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apply;
mod build;
mod built;
mod connection;
mod discovery;
mod events;
mod helm;
mod install;
mod kafka;
mod lease;
mod live;
mod platforms;
mod prune;
mod rights;
mod scene;
mod schedules;
mod schema;
mod specs;
mod status;
