//! A cluster for a developer: started and left running, and stopped again (`cargo xtask cluster`).
//!
//! There is one. Its folder holds everything that it has, and goes when it is stopped.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use todo_test_tools::Ports;

use super::{Known, Site, load as import, network, remove_cgroups};

/// Whoever uses it is root.
const FOLDER: &str = "/var/lib/todo-platform/cluster";
const API_PORT: u16 = 6443;

/// Starts a cluster, unless it runs. What a crash has left of one goes first.
pub async fn up(cluster: &Path, todo: &Path) -> Result<()> {
    let folder = PathBuf::from(FOLDER);
    if Site::at(&folder).init().is_err() || !folder.join("kubeconfig").exists() {
        sweep(&folder)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {FOLDER}"))?;
        let site = Site::prepare(&folder)?;
        // A session of its own: it outlives this process and its terminal.
        let mut start = Command::new("setsid");
        let unshare = site.command(cluster, todo)?;
        start.arg(unshare.get_program()).args(unshare.get_args());
        let log = fs::File::options().append(true).open(site.log())?;
        start.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut shell = start.spawn().context("cannot run setsid")?;
        let init = site.first_process(&mut shell).await?;
        site.wait_until_ready(&init, |words| eprint!("{words}")).await?;
        let api = lead(cluster, &folder, init.process)?;
        site.write_access(api)?;
    }
    println!("the cluster is ready; its logs are in {}", folder.join("log").display());
    println!("  export KUBECONFIG={}", folder.join("kubeconfig").display());
    println!("  kubectl get pods --all-namespaces");
    println!("  cargo xtask cluster load    # builds the platform's image, and imports it");
    Ok(())
}

/// Ends the cluster, and removes what it has.
pub fn down() -> Result<()> {
    sweep(Path::new(FOLDER))?;
    println!("the cluster is gone");
    Ok(())
}

/// Imports an archive of an image.
pub fn load(archive: &Path) -> Result<()> {
    import(Path::new(FOLDER), archive)
}

/// Where the file is by which `kubectl` reaches the cluster.
pub fn kubeconfig() -> Result<PathBuf> {
    let path = Path::new(FOLDER).join("kubeconfig");
    if !path.exists() {
        bail!("no cluster runs: `cargo xtask cluster up` starts one");
    }
    Ok(path)
}

/// Leads a port of loopback into the cluster, until the process is ended.
pub fn lead_to_api(port: u16, process: i32) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let inner = SocketAddr::from(([127, 0, 0, 1], API_PORT));
    network::lead(&listener, &network::network_of(process)?, inner)
}

/// Starts a process that does so.
fn lead(cluster: &Path, folder: &Path, process: i32) -> Result<SocketAddr> {
    let port = Ports::default().take("api")?;
    let mut command = Command::new("setsid");
    command.arg(cluster).arg("lead");
    command.args(["--port", &port.to_string(), "--process", &process.to_string()]);
    let log = fs::File::create(folder.join("log/lead.log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command.spawn().context("cannot run setsid")?;
    let known = Known::of(child.id().cast_signed()).context("it ended as it began")?;
    let text = json!({"process": known.process, "began": known.began}).to_string();
    fs::write(folder.join("lead.process"), text)?;
    Ok(SocketAddr::from(([127, 0, 0, 1], port)))
}

fn sweep(folder: &Path) -> Result<()> {
    Site::at(folder).end()?;
    end_lead(folder)?;
    remove_cgroups();
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

fn end_lead(folder: &Path) -> Result<()> {
    let Ok(text) = fs::read_to_string(folder.join("lead.process")) else {
        return Ok(());
    };
    let written: Value = serde_json::from_str(&text)?;
    let process = i32::try_from(written["process"].as_i64().context("a number")?)?;
    if Known::of(process).is_some_and(|known| written["began"] == known.began) {
        let _may_be_gone = kill(Pid::from_raw(process), Signal::SIGTERM);
    }
    Ok(())
}
