//! A cluster for a developer: started and left running, and stopped again (`cargo xtask cluster`).
//!
//! There is one. Its folder holds everything that it has, and goes when it is stopped.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use todo_test_tools::{self as tools, Ports};

use super::{Known, POSTGRES_IMAGE, READY, Site, load as import, network, remember, remembered};

/// Whoever uses it is root.
const FOLDER: &str = "/var/lib/todo-platform/cluster";
const API_PORT: u16 = 6443;
/// The file that says which process leads to the API server.
const LEAD: &str = "lead.process";

/// Starts a cluster, unless it runs. What a crash has left of one goes first.
pub async fn up(cluster: &Path, todo: &Path) -> Result<()> {
    let folder = PathBuf::from(FOLDER);
    let _lock = lock()?;
    let running = Site::at(&folder).init().ok().filter(|_| folder.join(READY).exists());
    let init = match running {
        Some(init) => init,
        None => start(&folder, cluster, todo).await?,
    };
    if remembered(&folder.join(LEAD)).is_none() {
        let api = lead(cluster, &folder, init.process)?;
        Site::at(&folder).write_access(api)?;
    }
    println!("the cluster is ready; its logs are in {}", folder.join("log").display());
    let programs = [tools::control_plane()?.kubectl, tools::helm()?];
    let folders: Vec<String> = programs
        .iter()
        .filter_map(|program| Some(program.parent()?.display().to_string()))
        .collect();
    println!("  export KUBECONFIG={}", folder.join("kubeconfig").display());
    println!("  export PATH=$PATH:{}    # kubectl and helm", folders.join(":"));
    println!("  kubectl get pods --all-namespaces");
    println!("  cargo xtask cluster load    # makes the platform's image, and imports it");
    println!("  helm install todo-operator-crds charts/todo-operator-crds");
    println!("  helm install todo-operator charts/todo-operator --namespace todo-system --create-namespace \\");
    println!("      --set evaluationPostgresImage={POSTGRES_IMAGE}");
    println!("  kubectl apply -f config/samples/platform.yaml");
    Ok(())
}

async fn start(folder: &Path, cluster: &Path, todo: &Path) -> Result<Known> {
    sweep(folder)?;
    fs::create_dir(folder).with_context(|| format!("cannot make the folder {FOLDER}"))?;
    let site = Site::prepare(folder)?;
    let unshare = site.command(cluster, todo)?;
    // A session of its own: it outlives this process and its terminal.
    let mut session = Command::new("setsid");
    session.arg(unshare.get_program()).args(unshare.get_args());
    let log = File::options().append(true).open(site.log())?;
    session.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut shell = session.spawn().context("cannot run setsid")?;
    let init = site.first_process(&mut shell).await?;
    site.wait_until_ready(&init, |words| eprint!("{words}")).await?;
    Ok(init)
}

/// Ends the cluster, and removes what it has.
pub fn down() -> Result<()> {
    let _lock = lock()?;
    sweep(Path::new(FOLDER))?;
    println!("the cluster is gone");
    Ok(())
}

/// Imports an archive of an image.
pub fn load(archive: &Path) -> Result<()> {
    import(Path::new(FOLDER), archive)?;
    println!("it is imported; pods that run the one before go on with it: kubectl rollout restart, or delete them");
    Ok(())
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
    let log = File::create(folder.join("log/lead.log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command.spawn().context("cannot run setsid")?;
    let known = Known::of(child.id().cast_signed()).context("it ended as it began")?;
    remember(&folder.join(LEAD), &known)?;
    Ok(SocketAddr::from(([127, 0, 0, 1], port)))
}

fn sweep(folder: &Path) -> Result<()> {
    Site::at(folder).end()?;
    if let Some(lead) = remembered(&folder.join(LEAD)) {
        let _may_be_gone = kill(Pid::from_raw(lead.process), Signal::SIGTERM);
    }
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Held until it is dropped: one call at a time.
fn lock() -> Result<File> {
    let parent = Path::new(FOLDER).parent().context("it has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make the folder {}", parent.display()))?;
    let lock = File::create(parent.join("cluster.lock")).context("a cluster of one's own needs root")?;
    ensure!(lock.try_lock().is_ok(), "another call is at work on the cluster");
    Ok(lock)
}
