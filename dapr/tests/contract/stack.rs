//! What the sidecars need: a Kafka broker, Dapr's scheduler and Redis, each started once when the first test asks.

use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::sync::OnceCell;

use crate::process::{Process, folder, free_ports, listens, tool};

/// A server that all tests share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Where it listens: `127.0.0.1:PORT`.
    pub(crate) address: String,
    _process: Process,
}

/// A Kafka broker without topics that makes those that somebody asks for, with two partitions.
pub(crate) async fn kafka() -> &'static Shared {
    static KAFKA: OnceCell<Shared> = OnceCell::const_new();
    KAFKA.get_or_init(start_kafka).await
}

async fn start_kafka() -> Shared {
    let kafka = Kafka::new();
    Shared {
        address: kafka.address.clone(),
        _process: kafka.start().await,
    }
}

/// A broker that keeps what it has while it does not run.
#[derive(Debug)]
pub(crate) struct Kafka {
    /// Where it listens: `127.0.0.1:PORT`.
    pub(crate) address: String,
    port: u16,
    folder: PathBuf,
}

impl Kafka {
    pub(crate) fn new() -> Self {
        let folder = folder();
        let [port, controller] = free_ports();
        let settings = format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={logs}
num.partitions=2
auto.create.topics.enable=true
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
",
            logs = folder.join("logs").display(),
        );
        std::fs::write(folder.join("server.properties"), settings).unwrap();
        let formatted = java("kafka.tools.StorageTool")
            .args(["format", "--standalone", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
            .arg(folder.join("server.properties"))
            .output()
            .unwrap();
        assert!(formatted.status.success(), "{formatted:?}");
        Self {
            address: format!("127.0.0.1:{port}"),
            port,
            folder,
        }
    }

    /// Returns when it takes connections.
    pub(crate) async fn start(&self) -> Process {
        let mut broker = java("kafka.Kafka");
        broker.arg(self.folder.join("server.properties"));
        let process = Process::start(&broker, &self.folder.join("kafka.log"));
        process.until("Kafka", async || listens(self.port).await).await;
        process
    }
}

fn java(class: &str) -> Command {
    let libraries = tool("TODO_KAFKA_LIBS").join("*");
    let mut command = Command::new("java");
    // A quick start counts for more here than speed later.
    command
        .args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(libraries)
        .arg(class);
    command
}

/// Dapr's scheduler.
pub(crate) async fn scheduler() -> &'static Shared {
    static SCHEDULER: OnceCell<Shared> = OnceCell::const_new();
    SCHEDULER.get_or_init(|| start_scheduler(folder())).await
}

async fn start_scheduler(folder: PathBuf) -> Shared {
    let [port, health, metrics, client, peer] = free_ports();
    let data = folder.join("etcd");
    let mut command = Command::new(tool("TODO_DAPR_SCHEDULER"));
    command
        .args(["--id=scheduler-0", "--mode=standalone", "--listen-address=127.0.0.1"])
        .args([
            "--healthz-listen-address=127.0.0.1",
            "--metrics-listen-address=127.0.0.1",
        ])
        .arg(format!("--port={port}"))
        .arg(format!("--healthz-port={health}"))
        .arg(format!("--metrics-port={metrics}"))
        .arg(format!("--etcd-data-dir={}", data.display()))
        .arg(format!("--etcd-client-port={client}"))
        .arg(format!("--etcd-initial-cluster=scheduler-0=http://127.0.0.1:{peer}"))
        .arg(format!("--identity-directory-write={}", folder.join("tls").display()))
        .env("NAMESPACE", "default");
    let process = Process::start(&command, &folder.join("scheduler.log"));
    process.until("the scheduler", || listens(port)).await;
    Shared {
        address: format!("127.0.0.1:{port}"),
        _process: process,
    }
}

/// A Redis that keeps nothing.
pub(crate) async fn redis() -> &'static Shared {
    static REDIS: OnceCell<Shared> = OnceCell::const_new();
    REDIS.get_or_init(|| start_redis(folder())).await
}

async fn start_redis(folder: PathBuf) -> Shared {
    let [port] = free_ports();
    let mut command = Command::new(tool("TODO_REDIS_SERVER"));
    command
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
        .arg(port.to_string())
        .arg("--dir")
        .arg(Path::new(&folder));
    let process = Process::start(&command, &folder.join("redis.log"));
    process.until("Redis", || listens(port)).await;
    Shared {
        address: format!("127.0.0.1:{port}"),
        _process: process,
    }
}
