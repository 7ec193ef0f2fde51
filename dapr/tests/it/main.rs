//! Promises of the sidecar's client, against a server that answers what a sidecar was recorded to answer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod jobs;
mod sidecar;
mod state;
