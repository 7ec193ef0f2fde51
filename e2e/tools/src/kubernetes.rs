//! Kubernetes and the etcd under it: the control plane, the programs of a node, and `kubectl`.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::go::{GoPrograms, required_version};
use crate::pinned;
use crate::program::named;

/// The variable by which controller-runtime's `setup-envtest` names a folder with `etcd`, `kube-apiserver` and
/// `kubectl`. They go before our own, and `kube-controller-manager` too where it is there.
pub const KUBEBUILDER_ASSETS: &str = "KUBEBUILDER_ASSETS";
/// The variable that names a folder with the programs of Kubernetes, and `etcd`.
pub const KUBERNETES: &str = "TODO_KUBERNETES";

const MODULE: &str = "k8s.io/kubernetes";

/// What serves the API and makes pods of what is asked for.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// Where everything is kept.
    pub etcd: PathBuf,
    /// `kube-apiserver`
    pub api_server: PathBuf,
    /// `kube-controller-manager`
    pub controller_manager: PathBuf,
    /// `kubectl`
    pub kubectl: PathBuf,
}

/// What a cluster with a node has beside its [`ControlPlane`].
#[derive(Clone, Debug)]
pub struct Node {
    /// `kube-scheduler`
    pub scheduler: PathBuf,
    /// `kubelet`
    pub kubelet: PathBuf,
    /// `kube-proxy`
    pub proxy: PathBuf,
}

/// The control plane. The first time takes minutes, unless [`KUBEBUILDER_ASSETS`] names it.
pub fn control_plane() -> Result<ControlPlane> {
    let assets = named(KUBEBUILDER_ASSETS)?;
    let program = |name: &str| match assets.as_ref().map(|folder| folder.join(name)) {
        Some(given) if given.is_file() => Ok(given),
        _ => Ok::<_, anyhow::Error>(kubernetes()?.join(name)),
    };
    Ok(ControlPlane {
        etcd: program("etcd")?,
        api_server: program("kube-apiserver")?,
        controller_manager: program("kube-controller-manager")?,
        kubectl: program("kubectl")?,
    })
}

/// The programs of a node.
pub fn node() -> Result<Node> {
    let folder = kubernetes()?;
    Ok(Node {
        scheduler: folder.join("kube-scheduler"),
        kubelet: folder.join("kubelet"),
        proxy: folder.join("kube-proxy"),
    })
}

/// Kubernetes' version, such as `1.34.4`.
pub fn kubernetes_version() -> Result<String> {
    required_version(&pinned("kubernetes"), MODULE)
}

/// The folder of all programs, each under its own name.
pub fn kubernetes() -> Result<PathBuf> {
    if let Some(given) = named(KUBERNETES)? {
        return Ok(given);
    }
    let module = pinned("kubernetes");
    GoPrograms {
        name: "kubernetes",
        module: &module,
        packages: &[
            "go.etcd.io/etcd/server/v3",
            "k8s.io/kubernetes/cmd/kube-apiserver",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-proxy",
            "k8s.io/kubernetes/cmd/kube-scheduler",
            "k8s.io/kubernetes/cmd/kubectl",
            "k8s.io/kubernetes/cmd/kubelet",
        ],
        tags: "",
        stamp: &stamp()?,
    }
    .built(|folder| Ok(fs::rename(folder.join("server"), folder.join("etcd"))?))
}

/// Without it every program calls itself v0.0.0-master, and clients that compare versions refuse it.
fn stamp() -> Result<String> {
    let version = kubernetes_version()?;
    let mut numbers = version.split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let package = "k8s.io/component-base/version";
    Ok(format!(
        "-X {package}.gitVersion=v{version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    ))
}
