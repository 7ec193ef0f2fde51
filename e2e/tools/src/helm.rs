//! Helm, which installs charts.

use std::path::PathBuf;

use anyhow::Result;

use crate::go::{GoPrograms, required_version};
use crate::pinned;
use crate::program::named;

/// The variable that names a `helm`.
pub const HELM: &str = "TODO_HELM";

/// Helm. The first time takes minutes.
pub fn helm() -> Result<PathBuf> {
    if let Some(given) = named(HELM)? {
        return Ok(given);
    }
    let module = pinned("helm");
    let version = required_version(&module, "helm.sh/helm/v4")?;
    let folder = GoPrograms {
        name: "helm",
        module: &module,
        packages: &["helm.sh/helm/v4/cmd/helm"],
        tags: "",
        // Charts may ask for a version of Helm.
        stamp: &format!("-X helm.sh/helm/v4/internal/version.version=v{version}"),
    }
    .built(|_| Ok(()))?;
    Ok(folder.join("helm"))
}
