//! The programs of others that tests run, and what keeps them from being left behind.
//!
//! Here: where each program comes from (a file per tool), [`Ports`] that stay one's own while a program comes and goes,
//! and the [`Leash`] that ends programs with whoever started them. Not here: which of them run together and how each is
//! started, which is the business of the stack (`todo-e2e`) and of the test cluster (`todo-test-cluster`).
//!
//! What is pinned is in the folders beside `src/`: Go modules that programs are built from, projects of Maven's, and
//! CRDs of other projects. Redis, and the Java that runs Kafka, are this machine's own; what is missing is installed
//! when that is possible, else one line says what to install. Each can be somebody's own instead: a variable names it.
//!
//! How a tool is made: its pins and its recipe are hashed, and the hash is in the name of the folder that it is kept
//! in, in the user's cache (`cache`).

mod cache;
mod coredns;
mod crds;
mod dapr;
mod debian;
mod go;
mod helm;
mod java;
mod kafka;
mod kubernetes;
mod leash;
mod ports;
mod program;
mod redis;
mod strimzi;

use std::path::{Path, PathBuf};

use anyhow::Result;

pub use self::coredns::{COREDNS, coredns};
pub use self::crds::{CrdGroup, crds};
use self::dapr::dapr_control_plane_folder;
pub use self::dapr::{
    DAPR_CHART, DAPR_CONTROL_PLANE, DAPR_SCHEDULER, DAPRD, Dapr, DaprControlPlane, dapr, dapr_chart,
    dapr_control_plane, dapr_version,
};
pub use self::debian::{Containers, containers, postgres};
pub use self::helm::{HELM, helm};
pub use self::kafka::{KAFKA_LIBS, Kafka, kafka};
pub use self::kubernetes::{
    ControlPlane, KUBEBUILDER_ASSETS, KUBERNETES, Node, control_plane, kubernetes, kubernetes_version, node,
};
pub use self::leash::Leash;
pub use self::ports::{Ports, is_free};
pub use self::redis::{REDIS_SERVER, redis_server};

/// Every tool as a variable and what it should hold, made ready before it is returned.
pub fn variables() -> Result<Vec<(&'static str, PathBuf)>> {
    let dapr = dapr()?;
    let mut variables = vec![
        (DAPRD, dapr.daprd),
        (DAPR_SCHEDULER, dapr.scheduler),
        (DAPR_CHART, dapr_chart()?),
        (KAFKA_LIBS, kafka()?.libs),
        (REDIS_SERVER, redis_server()?),
        (KUBERNETES, kubernetes()?),
        (HELM, helm()?),
        (COREDNS, coredns()?),
        (DAPR_CONTROL_PLANE, dapr_control_plane_folder()?),
    ];
    for group in CrdGroup::ALL {
        variables.push((group.variable(), crds(group)?));
    }
    Ok(variables)
}

/// A folder of pins.
fn pinned(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
