//! What tests may rely on from a cluster, held to a running one.

mod controllers;
mod server;
mod strimzi;
