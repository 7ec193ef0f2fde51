//! A real Kubernetes on one machine, without a container engine: etcd, the control plane, one node with its kubelet,
//! containerd and kube-proxy, `CoreDNS`, Dapr's control plane, Strimzi's CRDs, and beside the pods a Kafka and a
//! PostgreSQL.
//!
//! All of it is in namespaces of its own (network, mounts, processes), so nothing of it is seen on the machine or can
//! stay behind: when the first process in there ends, however it does, the kernel ends the others and undoes the mounts
//! and the network. That process is [`inside`]; what each process beside the pods is started with is in `part`, the
//! images are in `images`, and [`strimzi`] has doubles of its operators over the real Kafka. From outside one gets in by
//! ports of loopback that lead into the network (`network`).
//!
//! Not here: the platform. Its image is imported with [`load`] and its operator is installed with `helm`.
//!
//! A cluster belongs to a test ([`Cluster::start`]) or to a developer ([`detached`]). Both need root.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use serde_json::{Value, json};
use todo_test_tools::{self as tools, Leash};

use crate::stack::detached::Known;
use crate::stack::last_lines;

pub mod detached;
mod images;
pub mod inside;
mod network;
mod part;
pub mod strimzi;

/// The node's address within the network, where Kafka and PostgreSQL are for pods, too.
pub const NODE_ADDRESS: &str = "172.30.0.1";
/// Kafka's port there.
pub const KAFKA_PORT: u16 = 9092;
/// Where Kafka asks for a login, by SCRAM-SHA-512 and without TLS.
pub const KAFKA_LOGIN_PORT: u16 = 9094;
/// PostgreSQL's port there.
pub const POSTGRES_PORT: u16 = 5432;

/// An image of PostgreSQL that is there from the start, for databases of the operator's own.
pub const POSTGRES_IMAGE: &str = "localhost/todo-cluster/postgres:1";

/// The file that is there when everything serves.
const READY: &str = "ready";
/// The file that says which process is the first of a cluster.
const PROCESS: &str = "process";
/// The folder of images, in memory.
const IMAGES: &str = "images";
const CGROUPS: &str = "/sys/fs/cgroup";
/// The file that names the cluster's control group.
const CGROUP: &str = "cgroup";
/// What the names of all control groups of clusters begin with.
const CGROUP_PREFIX: &str = "todo-cluster-";
/// Programs are made ready before; this is for starting them, and Dapr's pods, on a busy machine.
const START_PATIENCE: Duration = Duration::from_mins(10);
const STOP_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// A running cluster of one owner: it ends with this value, and with this process.
pub struct Cluster {
    site: Site,
    shell: Child,
    leash: Option<Leash>,
    kubeconfig: PathBuf,
}

/// Why no cluster can be made here; `None` when one can.
pub fn obstacle() -> Option<String> {
    if !Uid::effective().is_root() {
        return Some("a cluster of one's own needs root".to_owned());
    }
    let tried = Command::new("unshare").args(NAMESPACES).arg("true").output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "this machine gives out no namespaces: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Some(format!("cannot run unshare: {error}")),
    }
}

/// The namespaces; the first process in there ends when `unshare` does.
const NAMESPACES: [&str; 6] = ["--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"];

impl Cluster {
    /// Starts one, and waits until all of it serves. `cluster` is the program of that name, `todo` the platform's.
    pub async fn start(cluster: &Path, todo: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("todo-cluster-").tempdir()?.keep();
        let mut leash = Leash::with_folder(&folder)?;
        let site = Site::prepare(&folder)?;
        let mut shell = site.command(cluster, todo)?.process_group(0).spawn()?;
        leash.began(shell.id())?;
        let init = site.first_process(&mut shell).await?;
        site.wait_until_ready(&init, |_| {}).await?;
        let network = network::network_of(init.process)?;
        let api = network::leading_to(network, SocketAddr::from(([127, 0, 0, 1], 6443)))?;
        let kubeconfig = site.write_access(api)?;
        Ok(Self {
            site,
            shell,
            leash: Some(leash),
            kubeconfig,
        })
    }

    /// `kubectl`, as the administrator.
    pub fn kubectl<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Command> {
        Ok(self
            .site
            .with_access(&tools::control_plane()?.kubectl, &self.kubeconfig, arguments))
    }

    /// `helm`, as the administrator.
    pub fn helm<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Command> {
        Ok(self.site.with_access(&tools::helm()?, &self.kubeconfig, arguments))
    }

    /// An address of loopback that leads to one within the cluster: of a Service, of a pod, or of the node.
    pub fn leading_to(&self, inner: SocketAddr) -> Result<SocketAddr> {
        network::leading_to(network::network_of(self.process()?)?, inner)
    }

    /// Where everything of it is.
    pub fn folder(&self) -> &Path {
        &self.site.folder
    }

    /// Its first process.
    pub fn process(&self) -> Result<i32> {
        Ok(self.site.init()?.process)
    }

    /// Imports an image.
    pub fn load(&self, image: &crate::image::Image) -> Result<()> {
        let archive = self.site.folder.join("loaded.tar");
        image.write(&archive)?;
        let loaded = load(&self.site.folder, &archive);
        fs::remove_file(&archive)?;
        loaded
    }

    /// The topics of the Kafka beside the pods, asked by its own command line.
    pub fn kafka_topics(&self) -> Result<Vec<String>> {
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.process()?.to_string(), "--net"]);
        let listed = enter
            .arg("--")
            .args(strimzi::topic_command(&tools::kafka()?, &["--list"]))
            .output()?;
        ensure!(
            listed.status.success(),
            "the topics are not listed: {}",
            String::from_utf8_lossy(&listed.stderr).trim()
        );
        Ok(String::from_utf8(listed.stdout)?.lines().map(str::to_owned).collect())
    }

    /// The URL of the PostgreSQL beside the pods, as the server's administrator on loopback within: its port is not the
    /// one that pods use.
    pub fn postgres_url(&self) -> Result<String> {
        self.site.postgres_url()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.site.end() {
            eprintln!("{error:#}");
        }
        let _reaped = self.shell.wait();
        if let Some(mut leash) = self.leash.take() {
            let _told = leash.ended(self.shell.id());
        }
    }
}

/// The image of a built program, with the libraries that it is linked with, if it is.
pub fn image_of(name: &str, program: &Path) -> Result<crate::image::Image> {
    images::linked(name, program)
}

/// Imports an archive of an image into the cluster that is in the folder.
pub fn load(folder: &Path, archive: &Path) -> Result<()> {
    let site = Site::at(folder);
    let process = site.init()?.process;
    // In the mounts of the cluster, where its containerd listens.
    let mut enter = Command::new("nsenter");
    enter.args(["--target", &process.to_string(), "--mount"]);
    enter.arg(tools::containers()?.ctr);
    enter.arg("--address").arg(part::Parts::containerd_socket());
    enter.args(["--namespace", "k8s.io", "images", "import"]).arg(archive);
    inside::finish(&mut enter)
}

/// A cluster's folder.
struct Site {
    folder: PathBuf,
}

impl Site {
    fn at(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Makes everything ready that takes long, and the folder, which must be empty.
    fn prepare(folder: &Path) -> Result<Self> {
        if let Some(obstacle) = obstacle() {
            bail!(obstacle);
        }
        make_programs()?;
        remove_old_cgroups();
        // PostgreSQL runs as another user. What is secret has rights of its own.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        fs::create_dir(folder.join("log"))?;
        Ok(Self::at(folder))
    }

    /// What starts the first process, with its words in `log/cluster.log`.
    fn command(&self, cluster: &Path, todo: &Path) -> Result<Command> {
        let cgroup = format!("{CGROUP_PREFIX}{:08x}", rand::random::<u32>());
        fs::write(self.folder.join(CGROUP), &cgroup)?;
        make_cgroups(&cgroup)?;
        let log = File::create(self.log())?;
        let mut command = Command::new("unshare");
        command.args(NAMESPACES).arg("--").arg(cluster).arg("inside");
        command.arg("--folder").arg(&self.folder).args(["--cgroup", &cgroup]);
        command.arg("--todo").arg(todo);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    /// Finds out which process `unshare` has made, and writes it down.
    async fn first_process(&self, shell: &mut Child) -> Result<Known> {
        let began = Instant::now();
        loop {
            let children = format!("/proc/{0}/task/{0}/children", shell.id());
            let children = fs::read_to_string(children).context("the kernel does not tell a process' children")?;
            let first = children.split_whitespace().next().and_then(|id| id.parse().ok());
            if let Some(known) = first.and_then(Known::of) {
                remember(&self.folder.join(PROCESS), &known)?;
                return Ok(known);
            }
            ensure!(
                shell.try_wait()?.is_none() && began.elapsed() < STOP_PATIENCE,
                "the namespaces are not made: {}",
                self.words()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// The first process, when it runs.
    fn init(&self) -> Result<Known> {
        remembered(&self.folder.join(PROCESS)).context("no cluster runs here")
    }

    async fn wait_until_ready(&self, init: &Known, mut say: impl FnMut(&str)) -> Result<()> {
        let began = Instant::now();
        let mut said = 0;
        loop {
            let words = fs::read_to_string(self.log()).unwrap_or_default();
            say(&words[said..]);
            said = words.len();
            if self.folder.join(READY).exists() {
                return Ok(());
            }
            ensure!(
                Known::of(init.process).as_ref() == Some(init),
                "the cluster does not start; its logs are in {}:\n{}",
                self.folder.join("log").display(),
                self.words()
            );
            ensure!(
                began.elapsed() < START_PATIENCE,
                "the cluster is not ready within {START_PATIENCE:?}:\n{}",
                self.words()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends everything in the cluster and waits until it is gone.
    fn end(&self) -> Result<()> {
        if let Ok(init) = self.init() {
            // It is the first process of its namespace: the kernel ends all others with it.
            let _may_be_gone = kill(Pid::from_raw(init.process), Signal::SIGKILL);
            let began = Instant::now();
            while Known::of(init.process).as_ref() == Some(&init) {
                ensure!(began.elapsed() < STOP_PATIENCE, "the cluster does not end");
                std::thread::sleep(POLL);
            }
        }
        if let Ok(cgroup) = fs::read_to_string(self.folder.join(CGROUP)) {
            for root in hierarchies()? {
                remove_cgroup(&root.join(&cgroup));
            }
        }
        Ok(())
    }

    /// Writes the administrator's file for an address of this machine; its path.
    fn write_access(&self, api: SocketAddr) -> Result<PathBuf> {
        let path = self.folder.join("kubeconfig");
        let text = format!("{:#}\n", access(&self.folder, "admin", &format!("https://{api}")));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&path)?.write_all(text.as_bytes())?;
        Ok(path)
    }

    fn with_access<S: AsRef<OsStr>>(
        &self,
        program: &Path,
        kubeconfig: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", &self.folder);
        command
    }

    fn postgres_url(&self) -> Result<String> {
        let text = fs::read_to_string(self.folder.join("postgres.url"))?;
        Ok(text.lines().next().context("PostgreSQL has given no URL")?.to_owned())
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log/cluster.log")
    }

    fn words(&self) -> String {
        last_lines(&fs::read_to_string(self.log()).unwrap_or_default())
    }
}

/// Writes down which process it is, to be found again by another one.
fn remember(path: &Path, known: &Known) -> Result<()> {
    // Whole or not at all.
    let draft = path.with_extension("draft");
    fs::write(
        &draft,
        json!({"process": known.process, "began": known.began}).to_string(),
    )?;
    Ok(fs::rename(draft, path)?)
}

/// The process that is written down, when it still runs.
fn remembered(path: &Path) -> Option<Known> {
    let written: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
    let known = Known::of(i32::try_from(written["process"].as_i64()?).ok()?)?;
    (written["began"] == known.began).then_some(known)
}

/// A kubeconfig for the holder of `NAME.pem` and `NAME.key`.
fn access(folder: &Path, name: &str, url: &str) -> Value {
    let file = |name: String| folder.join(name);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "todo", "cluster": {
            "server": url,
            "certificate-authority": file("ca.pem".to_owned()),
        }}],
        "users": [{"name": name, "user": {
            "client-certificate": file(format!("{name}.pem")),
            "client-key": file(format!("{name}.key")),
        }}],
        "contexts": [{"name": "todo", "context": {"cluster": "todo", "user": name}}],
        "current-context": "todo",
    })
}

/// Finds or builds every program, so that those within find them in the cache.
fn make_programs() -> Result<()> {
    tools::control_plane()?;
    tools::node()?;
    tools::containers()?;
    tools::coredns()?;
    tools::dapr()?;
    tools::dapr_control_plane()?;
    tools::dapr_chart()?;
    tools::helm()?;
    tools::kafka()?;
    tools::postgres()?;
    tools::crds(tools::CrdGroup::Strimzi)?;
    Ok(())
}

/// Makes the group below which kubelet makes those of pods. With the first version of control groups there is one for
/// each controller.
fn make_cgroups(name: &str) -> Result<()> {
    for root in hierarchies()? {
        let group = root.join(name);
        fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
        // A new group has none, and nothing can run in it then.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read_to_string(root.join(file)) {
                fs::write(group.join(file), all)?;
            }
        }
    }
    Ok(())
}

/// Removes groups that clusters have left whose owners were killed. A young one may be of a cluster that starts.
fn remove_old_cgroups() {
    for root in hierarchies().unwrap_or_default() {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let made = entry.metadata().and_then(|group| group.modified());
            let is_old = made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > START_PATIENCE));
            let is_ours = entry.file_name().to_string_lossy().starts_with(CGROUP_PREFIX);
            if is_ours && is_old && !is_used(&entry.path()) {
                remove_cgroup(&entry.path());
            }
        }
    }
}

/// Whether a process is in the group or in one below it.
fn is_used(group: &Path) -> bool {
    let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut below = fs::read_dir(group).into_iter().flatten().flatten();
    !processes.is_empty() || below.any(|entry| entry.path().is_dir() && is_used(&entry.path()))
}

fn remove_cgroup(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    // One in which something runs stays.
    let _may_be_busy = fs::remove_dir(group);
}

/// The roots of control groups: one, or one for each controller.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = PathBuf::from(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root]);
    }
    let mut roots = vec![];
    for entry in fs::read_dir(&root).context("this machine has no control groups")? {
        let path = entry?.path();
        // Some are links to others.
        if path.is_dir() && !path.is_symlink() {
            roots.push(path);
        }
    }
    Ok(roots)
}
