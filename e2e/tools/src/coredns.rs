//! `CoreDNS`, the name service of a cluster.

use std::path::PathBuf;

use anyhow::Result;

use crate::go::GoPrograms;
use crate::pinned;
use crate::program::named;

/// The variable that names a `coredns`.
pub const COREDNS: &str = "TODO_COREDNS";

/// `CoreDNS`. The first time takes minutes.
pub fn coredns() -> Result<PathBuf> {
    if let Some(given) = named(COREDNS)? {
        return Ok(given);
    }
    let folder = GoPrograms {
        name: "coredns",
        module: &pinned("coredns"),
        packages: &["github.com/coredns/coredns"],
        tags: "",
        stamp: "",
    }
    .built(|_| Ok(()))?;
    Ok(folder.join("coredns"))
}
