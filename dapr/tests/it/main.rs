//! Promises of what goes through the sidecar, against a server that answers what a sidecar was recorded to
//! answer, and on real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bus;
mod client;
mod events;
mod jobs;
mod jobs_host;
mod sidecar;
mod state;
mod subscription;
