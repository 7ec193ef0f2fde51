//! Promises of what goes through the sidecar, against the real one: daprd, its scheduler, Kafka, Redis and
//! PostgreSQL. What the other tests take for a sidecar's answer is seen here to be one.
//!
//! Each test starts the sidecars that it needs, with app ids and topics of its own; the servers behind them are
//! started once. All of it listens on loopback only, and is gone when this process is.
//!
//! Where the programs are is in `TODO_DAPRD`, `TODO_DAPR_SCHEDULER`, `TODO_KAFKA_LIBS` (a folder of jars) and
//! `TODO_REDIS_SERVER`; PostgreSQL in `TODO_TEST_DATABASE_URL`. `cargo xtask test` sets them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod app;
mod broker;
mod client;
mod daprd;
mod delivery;
mod jobs;
mod platform;
mod prefixes;
mod process;
mod publish;
mod resources;
mod stack;
mod state;
