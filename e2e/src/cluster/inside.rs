//! What runs within the namespaces: the first process, which starts everything else and then waits for what ends.
//!
//! It is process 1 of its process namespace: when it ends, the kernel ends everything in there with it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::sys::wait::wait;
use serde_json::{Value, json};
use todo_test_tools::{self as tools, CrdGroup};

use super::part::{INNER_POSTGRES_PORT, Part, Parts};
use super::{IMAGES, KAFKA_LOGIN_PORT, KAFKA_PORT, NODE_ADDRESS, POSTGRES_PORT, PROCESS, READY, images, network};
use crate::stack::kafka;

const NAMES: &str = include_str!("manifests/names.yaml");
const KAFKA: &str = include_str!("manifests/kafka.yaml");
const NEIGHBOURS: &str = include_str!("manifests/neighbours.yaml");
/// From the start of something to when it serves, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);
const KNOWN_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);
/// Volumes that pods may claim: nobody makes them on demand here.
const VOLUMES: usize = 8;
const VOLUMES_FOLDER: &str = "volumes";

/// Starts a cluster and stays. `folder` is empty; `todo` is a binary of the platform, which runs PostgreSQL.
pub async fn run(folder: &Path, cgroup: &str, todo: &Path) -> Result<()> {
    ensure!(
        std::process::id() == 1,
        "this runs in namespaces of its own only: use `cluster up`"
    );
    let began = Instant::now();
    wait_until_known(folder)?;
    let inside = Inside {
        parts: Parts::find(folder, cgroup, todo)?,
        began,
        running: Mutex::default(),
    };
    inside.prepare()?;
    inside.start().await?;
    fs::write(inside.parts.path(READY), "")?;
    inside.say("everything is ready");
    loop {
        match wait() {
            Ok(status) => {
                let part = status
                    .pid()
                    .and_then(|process| inside.running().remove(&process.as_raw()));
                if let Some(part) = part {
                    inside.say(&format!("{part} has ended: {status:?}"));
                }
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until it is written down which process this is: one that nobody knows of could not be ended.
fn wait_until_known(folder: &Path) -> Result<()> {
    let began = Instant::now();
    while !folder.join(PROCESS).exists() {
        ensure!(began.elapsed() < KNOWN_PATIENCE, "whoever started this is gone");
        thread::sleep(POLL);
    }
    Ok(())
}

struct Inside {
    parts: Parts,
    began: Instant,
    /// Which process is which part.
    running: Mutex<BTreeMap<i32, Part>>,
}

impl Inside {
    /// The network, the mounts and the files.
    fn prepare(&self) -> Result<()> {
        let ip = |line: &str| command("ip", line.split(' '));
        ip("link set lo up")?;
        ip("link add eth0 type veth peer name eth0-peer")?;
        ip(&format!("addr add {NODE_ADDRESS}/24 dev eth0"))?;
        ip("link set eth0 up")?;
        ip("link set eth0-peer up")?;
        ip("route add default dev eth0")?;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;

        // What the programs keep in fixed places is the cluster's own here.
        for (name, place) in [
            ("log", "/var/log"),
            ("kubelet", "/var/lib/kubelet"),
            ("cni-cache", "/var/lib/cni"),
        ] {
            fs::create_dir_all(self.parts.path(name))?;
            fs::create_dir_all(place)?;
            command("mount", ["--bind", &self.parts.path(name).display().to_string(), place])?;
        }
        command("mount", ["-t", "tmpfs", "tmpfs", "/run"])?;
        fs::create_dir_all("/run/lock")?;
        // Images are written three times over until they are unpacked; volumes are written through to the disk with each
        // commit, which costs seconds where others use it. Both go with the cluster.
        for name in [IMAGES, VOLUMES_FOLDER] {
            let folder = self.parts.path(name);
            fs::create_dir(&folder)?;
            command("mount", ["-t", "tmpfs", "tmpfs", &folder.display().to_string()])?;
        }
        self.parts.write_identities()?;
        self.parts.write_settings()
    }

    async fn start(&self) -> Result<()> {
        self.begin(Part::Etcd)?;
        self.begin(Part::Containerd)?;
        self.begin(Part::Postgres)?;
        self.begin(Part::ApiServer)?;
        let data = self.parts.path("kafka");
        kafka::format(&self.parts.kafka, &data, &self.parts.path("kafka.properties")).await?;
        self.begin(Part::Kafka)?;

        self.wait_for(Part::Containerd, || Ok(Parts::containerd_socket().exists()))?;
        self.import(images::first(&self.parts.folder)?)?;
        thread::scope(|scope| {
            let others = scope.spawn(|| self.import_others());
            let begun = self.start_node();
            others
                .join()
                .map_err(|_| anyhow!("the images were not imported"))?
                .and(begun)
        })?;
        self.rolled_out("kube-system", "deployment/coredns")?;
        self.say("names are resolved");
        self.install_dapr()?;
        self.say("Dapr is ready");

        self.lead_to_postgres()?;
        self.wait_for(Part::Kafka, || Ok(connects(KAFKA_PORT)))?;
        self.wait_for(Part::Postgres, || Ok(connects(POSTGRES_PORT)))?;
        let crds = tools::crds(CrdGroup::Strimzi)?.display().to_string();
        self.kubectl(&["apply", "--server-side", "--filename", &crds])?;
        for kind in ["kafkas", "kafkatopics", "kafkausers"] {
            let crd = format!("crd/{kind}.kafka.strimzi.io");
            // One that has no conditions yet is an error for kubectl.
            let established = ["wait", &crd, "--for=condition=Established", "--timeout=60s"];
            self.wait_for(Part::ApiServer, || self.succeeds(&established))?;
        }
        self.apply(KAFKA)?;
        let listener = |name: &str, port: u16| json!({"name": name, "bootstrapServers": format!("events-kafka-bootstrap.kafka.svc:{port}")});
        let listeners = [listener("plain", KAFKA_PORT), listener("login", KAFKA_LOGIN_PORT)];
        let open = json!({"status": {"listeners": listeners}}).to_string();
        let patch = ["--subresource=status", "--type=merge", "--patch", &open];
        self.kubectl(&[&["--namespace", "kafka", "patch", "kafka/events"], patch.as_slice()].concat())?;
        self.begin(Part::Strimzi)
    }

    /// The control plane, and a node that takes pods.
    fn start_node(&self) -> Result<()> {
        self.wait_for(Part::ApiServer, || self.succeeds(&["get", "--raw", "/readyz"]))?;
        self.say("the API server is ready");
        for part in [Part::ControllerManager, Part::Scheduler, Part::Kubelet, Part::Proxy] {
            self.begin(part)?;
        }
        self.apply(NAMES)?;
        self.apply(NEIGHBOURS)?;
        self.apply(&self.volumes()?.to_string())?;
        self.wait_for(Part::Kubelet, || self.succeeds(&["get", "node", "node1"]))?;
        self.kubectl(&["wait", "node/node1", "--for=condition=Ready", "--timeout=180s"])?;
        self.say("the node is ready");
        Ok(())
    }

    fn import_others(&self) -> Result<()> {
        self.import(images::dapr()?)?;
        self.import(vec![images::postgres(&self.parts.path(IMAGES))?])?;
        self.say("the images are there");
        Ok(())
    }

    fn begin(&self, part: Part) -> Result<()> {
        let log = File::create(self.log(part))?;
        let mut command = self.parts.command(part);
        command.stdin(Stdio::null()).stderr(log.try_clone()?);
        match part {
            // Its first line is the database's URL, with the password.
            Part::Postgres => command.stdout(private(&self.parts.path("postgres.url"))?),
            _ => command.stdout(log),
        };
        let child: Child = command.spawn().with_context(|| format!("cannot run {part}"))?;
        self.running().insert(child.id().cast_signed(), part);
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<i32, Part>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, part: Part, serves: impl Fn() -> Result<bool>) -> Result<()> {
        let began = Instant::now();
        while !serves()? {
            if began.elapsed() >= PATIENCE {
                let log = fs::read_to_string(self.log(part)).unwrap_or_default();
                bail!(
                    "{part} does not serve within {PATIENCE:?}:\n{}",
                    crate::stack::last_lines(&log)
                );
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn import(&self, images: Vec<crate::image::Image>) -> Result<()> {
        for image in images {
            images::import(
                &self.parts.containers.ctr,
                &Parts::containerd_socket(),
                &self.parts.path(IMAGES),
                &image,
            )?;
        }
        Ok(())
    }

    fn install_dapr(&self) -> Result<()> {
        let chart = tools::dapr_chart()?.display().to_string();
        let version = tools::dapr_version()?;
        let values = format!(
            "global.registry={},global.tag={version},global.ha.enabled=false,dapr_scheduler.cluster.storageSize=1Gi,\
             global.actors.enabled=false",
            images::DAPR_REGISTRY
        );
        let mut helm = self.with_access(&tools::helm()?);
        helm.args([
            "install",
            "dapr",
            &chart,
            "--namespace",
            "dapr-system",
            "--create-namespace",
        ]);
        finish(helm.args(["--set", &values, "--wait", "--timeout", "5m"]))
    }

    /// Pods reach PostgreSQL, which itself listens on loopback only, by the node's address.
    fn lead_to_postgres(&self) -> Result<()> {
        let listener = TcpListener::bind(format!("{NODE_ADDRESS}:{POSTGRES_PORT}"))?;
        let network = network::network_of(1)?;
        let inner = SocketAddr::from(([127, 0, 0, 1], INNER_POSTGRES_PORT));
        self.wait_for(Part::Postgres, || Ok(std::net::TcpStream::connect(inner).is_ok()))?;
        thread::spawn(move || network::lead(&listener, &network, inner));
        Ok(())
    }

    fn volumes(&self) -> Result<Value> {
        use std::os::unix::fs::PermissionsExt as _;
        let mut volumes = vec![];
        for number in 0..VOLUMES {
            let path = self.parts.path(VOLUMES_FOLDER).join(number.to_string());
            fs::create_dir_all(&path)?;
            // Pods run as users of their own.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
            volumes.push(json!({
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": format!("volume-{number}")},
                "spec": {
                    "capacity": {"storage": "1Gi"},
                    "accessModes": ["ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "hostPath": {"path": path},
                },
            }));
        }
        Ok(json!({"apiVersion": "v1", "kind": "List", "items": volumes}))
    }

    fn apply(&self, manifest: &str) -> Result<()> {
        let file = self.parts.path("applied");
        fs::write(&file, manifest)?;
        self.kubectl(&["apply", "--filename", &file.display().to_string()])
    }

    fn rolled_out(&self, namespace: &str, workload: &str) -> Result<()> {
        self.kubectl(&[
            "--namespace",
            namespace,
            "rollout",
            "status",
            workload,
            "--timeout=180s",
        ])
    }

    fn succeeds(&self, arguments: &[&str]) -> Result<bool> {
        let mut kubectl = self.with_access(&self.parts.control_plane.kubectl);
        Ok(kubectl
            .args(arguments)
            .output()
            .context("cannot run kubectl")?
            .status
            .success())
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<()> {
        finish(self.with_access(&self.parts.control_plane.kubectl).args(arguments))
    }

    fn with_access(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("KUBECONFIG", self.parts.path("admin.kubeconfig"))
            .env("HOME", &self.parts.folder);
        command
    }

    fn log(&self, part: Part) -> PathBuf {
        self.parts.path(&format!("log/{part}.log"))
    }

    fn say(&self, what: &str) {
        eprintln!("{:6.1} s  {what}", self.began.elapsed().as_secs_f64());
    }
}

fn connects(port: u16) -> bool {
    std::net::TcpStream::connect((NODE_ADDRESS, port)).is_ok()
}

fn private(path: &Path) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

fn command<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
    finish(Command::new(program).args(arguments))
}

/// Runs a command to its end; what it said is in the error.
pub(super) fn finish(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    ensure!(
        output.status.success(),
        "{} failed ({}): {}",
        command.get_program().display(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
