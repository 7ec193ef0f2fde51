//! A real Kafka of one node, with a listener of each kind, for as long as the test process lives.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use todo_crds::platform::SaslMechanism;
use todo_operator::kafka::{Sasl, Settings, Tls};
use todo_test_tools::{Leash, Ports};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

/// Longer than a broker takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// A user who may do everything.
pub(crate) const ADMIN: (&str, &str) = ("admin", "correct-horse");
/// A user who may do nothing.
pub(crate) const GUEST: (&str, &str) = ("guest", "battery-staple");

/// A broker that is its own controller.
#[derive(Debug)]
pub(crate) struct Broker {
    ports: Ports,
    /// The authority that signed its certificate, in PEM.
    pub(crate) ca: String,
    process: Child,
    // In this order: the leash kills what writes there.
    _leash: Leash,
    folder: TempDir,
}

impl Broker {
    /// The one that tests share.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Broker> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// One of the test's own.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut leash = Leash::with_folder(folder.path()).unwrap();
        let mut ports = Ports::default();
        let ca = certificates(folder.path());
        let settings = folder.path().join("server.properties");
        std::fs::write(&settings, properties(&mut ports, folder.path())).unwrap();

        let mut format = java("kafka.tools.StorageTool");
        format.args(["format", "--standalone", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"]);
        format.arg(&settings);
        for (name, password) in [ADMIN, GUEST] {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                format.arg("--add-scram");
                format.arg(format!("{mechanism}=[name={name},password={password}]"));
            }
        }
        let formatted = format.output().unwrap();
        assert!(formatted.status.success(), "{formatted:?}");

        let log = std::fs::File::create(folder.path().join("kafka.log")).unwrap();
        let process = java("kafka.Kafka")
            .arg(&settings)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        leash.began(process.id()).unwrap();
        let broker = Self {
            ports,
            ca,
            process,
            _leash: leash,
            folder,
        };
        let began = Instant::now();
        while TcpStream::connect(broker.address("SASL_SSL")).await.is_err() {
            assert!(began.elapsed() < PATIENCE, "{}", broker.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        broker
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("kafka.log")).unwrap_or_default()
    }

    /// Where the listener of this kind is.
    pub(crate) fn address(&self, listener: &str) -> String {
        format!("127.0.0.1:{}", self.ports.0[listener])
    }

    /// Without TLS, and nobody logs in.
    pub(crate) fn plain(&self) -> Settings {
        Settings {
            brokers: vec![self.address("PLAINTEXT")],
            tls: None,
            sasl: None,
            timeout: Settings::TIMEOUT,
        }
    }

    /// Over TLS, logged in.
    pub(crate) fn secure(&self, mechanism: SaslMechanism, user: (&str, &str)) -> Settings {
        Settings {
            brokers: vec![self.address("SASL_SSL")],
            tls: Some(Tls::Authorities(self.ca.clone().into_bytes())),
            sasl: Some(sasl(mechanism, user)),
            timeout: Settings::TIMEOUT,
        }
    }

    /// Nothing of it runs, and its connections stay open.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// It goes on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

pub(crate) fn sasl(mechanism: SaslMechanism, (username, password): (&str, &str)) -> Sasl {
    Sasl {
        mechanism,
        username: username.to_owned(),
        password: password.to_owned(),
    }
}

/// An authority, in PEM, that nobody's certificate is signed by.
pub(crate) fn another_authority() -> String {
    authority("another").pem()
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes the broker's key and certificate, and returns the authority.
fn certificates(folder: &Path) -> String {
    let authority = authority("the broker's");
    let key = KeyPair::generate().unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let both = format!("{}{}", key.serialize_pem(), certificate.pem());
    std::fs::write(folder.join("broker.pem"), both).unwrap();
    authority.pem()
}

fn properties(ports: &mut Ports, folder: &Path) -> String {
    let mut port = |listener: &str| ports.take(listener).unwrap();
    let listeners = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
        .map(|listener| format!("{listener}://127.0.0.1:{}", port(listener)))
        .join(",");
    let controller = port("CONTROLLER");
    let logins: String = ["sasl_plaintext", "sasl_ssl"]
        .map(|listener| {
            format!(
                "listener.name.{listener}.scram-sha-256.sasl.jaas.config={SCRAM}
listener.name.{listener}.scram-sha-512.sasl.jaas.config={SCRAM}
listener.name.{listener}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
                 user_{}=\"{}\";
",
                ADMIN.0, ADMIN.1
            )
        })
        .concat();
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={listeners}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
{logins}ssl.keystore.type=PEM
ssl.keystore.location={keystore}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:{admin}
log.dirs={logs}
num.partitions=1
auto.create.topics.enable=true
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
",
        keystore = folder.join("broker.pem").display(),
        admin = ADMIN.0,
        logs = folder.join("logs").display(),
    )
}

const SCRAM: &str = "org.apache.kafka.common.security.scram.ScramLoginModule required;";

fn java(class: &str) -> Command {
    let kafka = todo_test_tools::kafka().unwrap();
    let mut command = Command::new(kafka.java);
    // A quick start counts for more here than speed later.
    command
        .args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(kafka.libs.join("*"))
        .arg(class);
    command
}
