//! This machine's Redis.

use std::path::PathBuf;

use anyhow::Result;

use crate::program::{named, program};

/// The variable that names a `redis-server`.
pub const REDIS_SERVER: &str = "TODO_REDIS_SERVER";

/// This machine's Redis.
pub fn redis_server() -> Result<PathBuf> {
    match named(REDIS_SERVER)? {
        Some(given) => Ok(given),
        None => program("redis-server", "redis-server"),
    }
}
