//! The processes beside the pods: what each is started with, and the files that it reads.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;
use todo_test_cluster::{Authority, SigningKey};
use todo_test_tools as tools;

use super::{IMAGES, KAFKA_LOGIN_PORT, KAFKA_PORT, NODE_ADDRESS, access, images};
use crate::stack::kafka;

/// Where PostgreSQL itself listens, on loopback within.
pub(super) const INNER_POSTGRES_PORT: u16 = 15_432;
const KAFKA_CONTROLLER_PORT: u16 = 9093;
const NODE: &str = "node1";
const PODS: &str = "10.244.0.0/16";
const NODE_PODS: &str = "10.244.0.0/24";
const SERVICES: &str = "10.96.0.0/16";
const NAME_SERVICE: &str = "10.96.0.10";

/// A process beside the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Etcd,
    ApiServer,
    ControllerManager,
    Scheduler,
    Containerd,
    Kubelet,
    Proxy,
    Kafka,
    Postgres,
    Strimzi,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
            Self::Kafka => "kafka",
            Self::Postgres => "postgres",
            Self::Strimzi => "strimzi",
        })
    }
}

/// The programs, and the folder of everything that they write.
pub(super) struct Parts {
    pub(super) folder: PathBuf,
    /// Below every controller's root.
    pub(super) cgroup: String,
    pub(super) control_plane: tools::ControlPlane,
    node: tools::Node,
    pub(super) containers: tools::Containers,
    pub(super) kafka: tools::Kafka,
    todo: PathBuf,
}

impl Parts {
    /// Finds every program; the first time takes minutes.
    pub(super) fn find(folder: &Path, cgroup: &str, todo: &Path) -> Result<Self> {
        Ok(Self {
            folder: folder.to_owned(),
            cgroup: cgroup.to_owned(),
            control_plane: tools::control_plane()?,
            node: tools::node()?,
            containers: tools::containers()?,
            kafka: tools::kafka()?,
            todo: todo.to_owned(),
        })
    }

    /// A file of the cluster.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Where containerd listens.
    pub(super) fn containerd_socket() -> PathBuf {
        PathBuf::from("/run/containerd/containerd.sock")
    }

    /// Writes the certificates, and who speaks to the API server as whom. The administrator's file works from within.
    pub(super) fn write_identities(&self) -> Result<()> {
        let authority = Authority::new()?;
        let server = authority.server(&[
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "127.0.0.1",
            "10.96.0.1",
            NODE_ADDRESS,
        ])?;
        let accounts = SigningKey::new()?;
        self.write("ca.pem", authority.pem())?;
        self.write("server.pem", &server.certificate)?;
        self.write("server.key", &server.key)?;
        self.write("accounts.key", &accounts.private)?;
        self.write("accounts.pub", &accounts.public)?;
        let node = format!("system:node:{NODE}");
        for (name, user, group) in [
            ("admin", "administrator", Some("system:masters")),
            ("controllers", "system:kube-controller-manager", None),
            ("scheduler", "system:kube-scheduler", None),
            ("kubelet", node.as_str(), Some("system:nodes")),
            ("proxy", "system:kube-proxy", None),
        ] {
            let identity = authority.user(user, group)?;
            self.write(&format!("{name}.pem"), &identity.certificate)?;
            self.write(&format!("{name}.key"), &identity.key)?;
            let access = access(&self.folder, name, &format!("https://{NODE_ADDRESS}:6443"));
            self.write(&format!("{name}.kubeconfig"), &access.to_string())?;
        }
        Ok(())
    }

    /// Writes the files that the programs read, beside their identities.
    pub(super) fn write_settings(&self) -> Result<()> {
        self.write("kubelet.json", &self.kubelet_settings().to_string())?;
        self.write("proxy.json", &self.proxy_settings().to_string())?;
        self.write("containerd.toml", &self.containerd_settings())?;
        fs::create_dir(self.path("cni"))?;
        self.write("cni/pods.conflist", &pod_network().to_string())?;
        let kafka_folder = self.path("kafka");
        fs::create_dir(&kafka_folder)?;
        let settings = kafka::properties(&kafka_folder, NODE_ADDRESS, KAFKA_PORT, KAFKA_CONTROLLER_PORT);
        self.write("kafka.properties", &with_logins(&settings))
    }

    fn kubelet_settings(&self) -> serde_json::Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": false}, "x509": {"clientCAFile": self.text("ca.pem")}},
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", self.cgroup),
            "failSwapOn": false,
            "failCgroupV1": false,
            "enforceNodeAllocatable": [],
            "containerRuntimeEndpoint": format!("unix://{}", Self::containerd_socket().display()),
            "clusterDNS": [NAME_SERVICE],
            "clusterDomain": "cluster.local",
            "resolvConf": "",
            // What is on the disk beside the cluster is no reason to end pods.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            // Tests wait for them.
            "syncFrequency": "5s",
            "configMapAndSecretChangeDetectionStrategy": "Watch",
            "shutdownGracePeriod": "0s",
        })
    }

    fn proxy_settings(&self) -> serde_json::Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": self.text("proxy.kubeconfig")},
            "mode": "iptables",
            "clusterCIDR": PODS,
            "hostnameOverride": NODE,
            "conntrack": {"maxPerCore": 0},
            "iptables": {"minSyncPeriod": "100ms"},
        })
    }

    fn containerd_settings(&self) -> String {
        let text = |path: &Path| serde_json::Value::from(path.display().to_string()).to_string();
        format!(
            r#"version = 2
root = {root}
state = "/run/containerd"
[grpc]
  address = {socket}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # A machine may not let anybody lower it.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {plugins}
    conf_dir = {networks}
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = {runc}
      SystemdCgroup = false
"#,
            root = text(&self.path(IMAGES).join("containerd")),
            socket = text(&Self::containerd_socket()),
            pause = images::PAUSE,
            plugins = text(&self.containers.plugins),
            networks = text(&self.path("cni")),
            runc = text(&self.containers.runc),
        )
    }

    /// How a part is started.
    pub(super) fn command(&self, part: Part) -> Command {
        let kubeconfig = |name: &str| format!("--kubeconfig={}", self.text(&format!("{name}.kubeconfig")));
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.text(name));
        let (program, arguments): (&Path, Vec<String>) = match part {
            Part::Etcd => (
                &self.control_plane.etcd,
                vec![
                    file("data-dir", "etcd"),
                    // It goes with the cluster.
                    "--unsafe-no-fsync".to_owned(),
                    "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
                    "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
                    "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
                ],
            ),
            Part::ApiServer => (
                &self.control_plane.api_server,
                vec![
                    "--etcd-servers=http://127.0.0.1:2379".to_owned(),
                    "--secure-port=6443".to_owned(),
                    format!("--advertise-address={NODE_ADDRESS}"),
                    file("client-ca-file", "ca.pem"),
                    file("tls-cert-file", "server.pem"),
                    file("tls-private-key-file", "server.key"),
                    file("kubelet-client-certificate", "admin.pem"),
                    file("kubelet-client-key", "admin.key"),
                    "--kubelet-preferred-address-types=InternalIP".to_owned(),
                    "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                    file("service-account-key-file", "accounts.pub"),
                    file("service-account-signing-key-file", "accounts.key"),
                    "--authorization-mode=Node,RBAC".to_owned(),
                    "--enable-admission-plugins=NodeRestriction".to_owned(),
                    format!("--service-cluster-ip-range={SERVICES}"),
                    "--allow-privileged=true".to_owned(),
                ],
            ),
            Part::ControllerManager => (
                &self.control_plane.controller_manager,
                vec![
                    kubeconfig("controllers"),
                    file("root-ca-file", "ca.pem"),
                    file("service-account-private-key-file", "accounts.key"),
                    "--use-service-account-credentials=true".to_owned(),
                    "--leader-elect=false".to_owned(),
                ],
            ),
            Part::Scheduler => (
                &self.node.scheduler,
                vec![
                    kubeconfig("scheduler"),
                    "--leader-elect=false".to_owned(),
                    // It may miss that a claim was bound, and would look again after five minutes.
                    "--pod-max-in-unschedulable-pods-duration=5s".to_owned(),
                ],
            ),
            Part::Containerd => (&self.containers.containerd, vec![file("config", "containerd.toml")]),
            Part::Kubelet => (
                &self.node.kubelet,
                vec![
                    kubeconfig("kubelet"),
                    file("config", "kubelet.json"),
                    format!("--hostname-override={NODE}"),
                    format!("--node-ip={NODE_ADDRESS}"),
                ],
            ),
            Part::Proxy => (&self.node.proxy, vec![file("config", "proxy.json")]),
            Part::Kafka => {
                let mut command = Command::new(&self.kafka.java);
                command.args(kafka::java_options(&self.kafka, 512)).arg("kafka.Kafka");
                command.arg(self.path("kafka.properties"));
                return command;
            }
            // This program itself.
            Part::Strimzi => (
                Path::new("/proc/self/exe"),
                vec!["strimzi".to_owned(), kubeconfig("admin")],
            ),
            Part::Postgres => (
                &self.todo,
                vec![
                    "postgres".to_owned(),
                    file("data-dir", "postgres"),
                    format!("--port={INNER_POSTGRES_PORT}"),
                    "--fast-unsafe".to_owned(),
                ],
            ),
        };
        let mut command = Command::new(program);
        command.args(arguments);
        command
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(file.write_all(text.as_bytes())?)
    }
}

/// A broker's settings with one listener more, where users log in.
fn with_logins(settings: &str) -> String {
    let lists = ["listeners", "advertised.listeners", "listener.security.protocol.map"];
    let more = [
        format!(",LOGIN://{NODE_ADDRESS}:{KAFKA_LOGIN_PORT}"),
        format!(",LOGIN://{NODE_ADDRESS}:{KAFKA_LOGIN_PORT}"),
        ",LOGIN:SASL_PLAINTEXT".to_owned(),
    ];
    let lines = settings.lines().map(|line| {
        let name = line.split('=').next().unwrap_or_default();
        let more = lists.iter().zip(&more).find(|(list, _)| **list == name);
        format!("{line}{}\n", more.map_or("", |(_, more)| more))
    });
    let logins = [
        "listener.name.login.sasl.enabled.mechanisms=SCRAM-SHA-512\n",
        "listener.name.login.scram-sha-512.sasl.jaas.config=\
         org.apache.kafka.common.security.scram.ScramLoginModule required;\n",
    ];
    lines.chain(logins.map(str::to_owned)).collect()
}

fn pod_network() -> serde_json::Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": false, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": "/run/cni",
                    "ranges": [[{"subnet": NODE_PODS}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}
