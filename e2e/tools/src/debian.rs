//! What a cluster has from this machine's system: what runs containers and wires them up, and PostgreSQL.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::program::{found_or_installed, program};

/// Where systems keep the plugins that wire up containers: Debian's place, then that of the plugins' makers.
const PLUGINS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];
/// One of them, to tell whether they are there.
const A_PLUGIN: &str = "bridge";

/// The programs under a kubelet.
#[derive(Clone, Debug)]
pub struct Containers {
    /// `containerd`
    pub containerd: PathBuf,
    /// `ctr`, which comes with it.
    pub ctr: PathBuf,
    /// `runc`
    pub runc: PathBuf,
    /// The folder of the plugins that wire up containers (CNI).
    pub plugins: PathBuf,
}

/// The folder of PostgreSQL's programs, where Debian has them. It is installed when it is missing.
pub fn postgres() -> Result<PathBuf> {
    found_or_installed("PostgreSQL", "postgresql", || {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let folders = versions.flatten().map(|version| version.path().join("bin"));
        folders.filter(|folder| folder.join("postgres").is_file()).max()
    })
}

/// What runs containers on this machine. It is installed when it is missing.
pub fn containers() -> Result<Containers> {
    // What kube-proxy and the plugins run by their names.
    program("iptables", "iptables")?;
    program("ip", "iproute2")?;
    program("nsenter", "util-linux")?;
    program("mount", "mount")?;
    Ok(Containers {
        containerd: program("containerd", "containerd")?,
        ctr: program("ctr", "containerd")?,
        runc: program("runc", "runc")?,
        plugins: plugins()?,
    })
}

fn plugins() -> Result<PathBuf> {
    let has_plugins = |folder: &PathBuf| folder.join(A_PLUGIN).is_file();
    found_or_installed("CNI's plugins", "containernetworking-plugins", || {
        PLUGINS.map(PathBuf::from).into_iter().find(has_plugins)
    })
}
