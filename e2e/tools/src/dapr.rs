//! Dapr: the sidecar and the scheduler, which a stack runs by itself, and the rest of the control plane, which a
//! cluster runs too; its Helm chart, and the CRDs in it.

use std::path::PathBuf;

use anyhow::Result;

use crate::cache::{cache_folder, cached};
use crate::go::{GoPrograms, required_version, source};
use crate::pinned;
use crate::program::{copy_folder, named};

/// The variable that names a `daprd` to run.
pub const DAPRD: &str = "TODO_DAPRD";
/// The variable that names Dapr's `scheduler`.
pub const DAPR_SCHEDULER: &str = "TODO_DAPR_SCHEDULER";
/// The variable that names a folder with Dapr's `sentry`, `injector`, `operator` and `placement`.
pub const DAPR_CONTROL_PLANE: &str = "TODO_DAPR_CONTROL_PLANE";
/// The variable that names the folder of Dapr's Helm chart.
pub const DAPR_CHART: &str = "TODO_DAPR_CHART";

const MODULE: &str = "github.com/dapr/dapr";

/// Dapr's programs that run without a cluster.
#[derive(Clone, Debug)]
pub struct Dapr {
    /// The sidecar.
    pub daprd: PathBuf,
    /// The control plane's part that keeps jobs.
    pub scheduler: PathBuf,
}

/// Dapr's programs that only a cluster runs.
#[derive(Clone, Debug)]
pub struct DaprControlPlane {
    /// The authority that gives sidecars their certificates.
    pub sentry: PathBuf,
    /// The webhook that adds sidecars to pods.
    pub injector: PathBuf,
    /// What hands components and subscriptions to sidecars.
    pub operator: PathBuf,
    /// Where actors are.
    pub placement: PathBuf,
}

/// Dapr. The first time takes minutes.
pub fn dapr() -> Result<Dapr> {
    if let (Some(daprd), Some(scheduler)) = (named(DAPRD)?, named(DAPR_SCHEDULER)?) {
        return Ok(Dapr { daprd, scheduler });
    }
    let folder = built(
        "dapr",
        &["github.com/dapr/dapr/cmd/daprd", "github.com/dapr/dapr/cmd/scheduler"],
    )?;
    Ok(Dapr {
        daprd: folder.join("daprd"),
        scheduler: folder.join("scheduler"),
    })
}

/// What a cluster runs beside [`dapr`].
pub fn dapr_control_plane() -> Result<DaprControlPlane> {
    let folder = dapr_control_plane_folder()?;
    Ok(DaprControlPlane {
        sentry: folder.join("sentry"),
        injector: folder.join("injector"),
        operator: folder.join("operator"),
        placement: folder.join("placement"),
    })
}

/// The folder of those programs.
pub(crate) fn dapr_control_plane_folder() -> Result<PathBuf> {
    if let Some(given) = named(DAPR_CONTROL_PLANE)? {
        return Ok(given);
    }
    built(
        "dapr-control-plane",
        &[
            "github.com/dapr/dapr/cmd/injector",
            "github.com/dapr/dapr/cmd/operator",
            "github.com/dapr/dapr/cmd/placement",
            "github.com/dapr/dapr/cmd/sentry",
        ],
    )
}

/// The folder of Dapr's Helm chart. Its CRDs are in `crds/`.
pub fn dapr_chart() -> Result<PathBuf> {
    if let Some(given) = named(DAPR_CHART)? {
        return Ok(given);
    }
    let module = pinned("dapr");
    let pins = [module.join("go.mod"), module.join("go.sum")];
    cached(&cache_folder()?, "dapr-chart", &pins, "", |draft| {
        copy_folder(&source("dapr", &module, MODULE)?.join("charts/dapr"), draft)
    })
}

/// Dapr's version, such as `1.16.0`.
pub fn dapr_version() -> Result<String> {
    required_version(&pinned("dapr"), MODULE)
}

/// `name` is of the tool and of the folder of its go.mod. The sidecar's is by itself: it has some hundred modules that
/// nothing else needs.
fn built(name: &str, packages: &[&str]) -> Result<PathBuf> {
    GoPrograms {
        name,
        module: &pinned(name),
        packages,
        // Without it a sidecar knows no component at all.
        tags: "stablecomponents",
        // Without its version the sidecar calls itself "edge".
        stamp: &format!("-X {MODULE}/pkg/buildinfo.version={}", dapr_version()?),
    }
    .built(|_| Ok(()))
}
