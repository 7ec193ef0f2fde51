//! Promises of the events crate, on real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cursors;
mod dead_letters;
mod host;
mod lag;
mod measure;
mod outbox;
mod partitions;
mod relay;
mod replay;
mod restore;
mod support;
mod waker;
