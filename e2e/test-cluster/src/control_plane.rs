//! The processes of a cluster: etcd, the API server and the controller manager, on loopback. Their files and their logs
//! are in one folder, which goes with them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::json;
use todo_test_tools::{ControlPlane, Leash, Ports};

use crate::access::Access;
use crate::certificates::{Authority, SigningKey};

/// How much of a log is shown when its program fails.
const LAST_LINES: usize = 30;

/// One process of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// Where everything is kept.
    Etcd,
    /// `kube-apiserver`
    ApiServer,
    /// `kube-controller-manager`
    ControllerManager,
}

/// What runs, and all that is needed to run it again.
pub(crate) struct Processes {
    programs: ControlPlane,
    folder: PathBuf,
    ports: Ports,
    running: BTreeMap<Program, Child>,
    leash: Leash,
}

impl Program {
    const ALL: [Self; 3] = [Self::ControllerManager, Self::ApiServer, Self::Etcd];
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
        })
    }
}

impl Processes {
    /// Nothing runs yet. Makes what the programs read, and takes their ports.
    pub(crate) fn prepare(programs: ControlPlane, folder: &Path) -> Result<(Self, Access)> {
        let mut ports = Ports::default();
        let url = format!("https://127.0.0.1:{}", ports.take("api")?);
        ports.take("etcd")?;
        ports.take("etcd.peers")?;

        let authority = Authority::new()?;
        let server = authority.server(&["localhost", "127.0.0.1", "kubernetes", "kubernetes.default.svc"])?;
        let access = Access::new(url, &authority, folder)?;
        let controllers = authority.user("system:kube-controller-manager", None)?;
        write_private(&folder.join("ca.pem"), authority.pem())?;
        write_private(&folder.join("server.pem"), &server.certificate)?;
        write_private(&folder.join("server.key"), &server.key)?;
        let accounts = SigningKey::new()?;
        write_private(&folder.join("accounts.key"), &accounts.private)?;
        write_private(&folder.join("accounts.pub"), &accounts.public)?;
        write_private(
            &folder.join("controllers.kubeconfig"),
            &access.with_certificate(&controllers)?,
        )?;
        write_private(&folder.join("audit.policy"), &audit_policy().to_string())?;

        let processes = Self {
            programs,
            folder: folder.to_owned(),
            ports,
            running: BTreeMap::new(),
            leash: Leash::with_folder(folder)?,
        };
        Ok((processes, access))
    }

    /// Where the audit log is.
    pub(crate) fn audit_log(folder: &Path) -> PathBuf {
        folder.join("audit.log")
    }

    /// Starts a program that does not run. It is not ready yet.
    pub(crate) fn start(&mut self, program: Program) -> Result<()> {
        ensure!(!self.running.contains_key(&program), "{program} runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.log(program))?;
        let mut command = self.command(program)?;
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A group of its own, out of reach of Ctrl-C: the leash ends it.
            .process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        self.leash.began(child.id())?;
        self.running.insert(program, child);
        Ok(())
    }

    /// Kills a program: it gets no chance to tidy up. Nothing happens to one that does not run.
    pub(crate) fn kill(&mut self, program: Program) -> Result<()> {
        let Some(mut child) = self.running.remove(&program) else {
            return Ok(());
        };
        let group = child.id();
        let _may_be_gone = killpg(pid(&child), Signal::SIGKILL);
        child.wait()?;
        self.leash.ended(group)
    }

    /// Sends a signal to a program that runs.
    pub(crate) fn signal(&self, program: Program, signal: Signal) -> Result<()> {
        let child = self
            .running
            .get(&program)
            .with_context(|| format!("{program} does not run"))?;
        Ok(kill(pid(child), signal)?)
    }

    /// How a program ended that was not killed here; `None` while it runs.
    pub(crate) fn ended(&mut self, program: Program) -> Result<Option<ExitStatus>> {
        match self.running.get_mut(&program) {
            Some(child) => Ok(child.try_wait()?),
            None => Ok(None),
        }
    }

    /// The end of a program's log.
    pub(crate) fn last_words(&self, program: Program) -> String {
        let log = fs::read_to_string(self.log(program)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    fn log(&self, program: Program) -> PathBuf {
        self.folder.join(format!("{program}.log"))
    }

    fn command(&mut self, program: Program) -> Result<Command> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let etcd = format!("http://127.0.0.1:{}", self.ports.take("etcd")?);
        let peers = format!("http://127.0.0.1:{}", self.ports.take("etcd.peers")?);
        let (path, arguments) = match program {
            Program::Etcd => (
                &self.programs.etcd,
                vec![
                    format!("--data-dir={}", file("etcd")),
                    format!("--listen-client-urls={etcd}"),
                    format!("--advertise-client-urls={etcd}"),
                    format!("--listen-peer-urls={peers}"),
                    format!("--initial-advertise-peer-urls={peers}"),
                    format!("--initial-cluster=default={peers}"),
                    "--log-level=warn".to_owned(),
                    // The data need not outlive a power cut.
                    "--unsafe-no-fsync".to_owned(),
                ],
            ),
            Program::ApiServer => (
                &self.programs.api_server,
                vec![
                    format!("--etcd-servers={etcd}"),
                    "--bind-address=127.0.0.1".to_owned(),
                    "--advertise-address=127.0.0.1".to_owned(),
                    format!("--secure-port={}", self.ports.take("api")?),
                    format!("--tls-cert-file={}", file("server.pem")),
                    format!("--tls-private-key-file={}", file("server.key")),
                    format!("--client-ca-file={}", file("ca.pem")),
                    "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                    format!("--service-account-key-file={}", file("accounts.pub")),
                    format!("--service-account-signing-key-file={}", file("accounts.key")),
                    "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                    "--authorization-mode=RBAC".to_owned(),
                    "--allow-privileged=true".to_owned(),
                    // A Service of its own needs no endpoints here, and loopback is refused as one.
                    "--endpoint-reconciler-type=none".to_owned(),
                    format!("--audit-policy-file={}", file("audit.policy")),
                    format!("--audit-log-path={}", Self::audit_log(&self.folder).display()),
                    // It would wait a minute for watches to end by themselves.
                    "--shutdown-watch-termination-grace-period=2s".to_owned(),
                    // Written before the answer ends, and never rotated away.
                    "--audit-log-mode=blocking".to_owned(),
                    "--audit-log-maxsize=100000".to_owned(),
                ],
            ),
            Program::ControllerManager => (
                &self.programs.controller_manager,
                vec![
                    format!("--kubeconfig={}", file("controllers.kubeconfig")),
                    format!("--root-ca-file={}", file("ca.pem")),
                    format!("--service-account-private-key-file={}", file("accounts.key")),
                    "--use-service-account-credentials=true".to_owned(),
                    "--leader-elect=false".to_owned(),
                    // Nothing asks it anything.
                    "--secure-port=0".to_owned(),
                    // Tests wait for it.
                    "--kube-api-qps=500".to_owned(),
                    "--kube-api-burst=1000".to_owned(),
                ],
            ),
        };
        let mut command = Command::new(path);
        command.args(arguments);
        Ok(command)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for program in Program::ALL {
            let _may_be_gone = self.kill(program);
        }
    }
}

/// Who did what to which object, without the bodies. What the control plane says to itself is left out.
fn audit_policy() -> serde_json::Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            { "level": "None", "users": ["system:apiserver", "system:kube-controller-manager"] },
            { "level": "None", "userGroups": ["system:serviceaccounts:kube-system"] },
            { "level": "Metadata" },
        ],
    })
}

/// Writes a file that only its owner reads.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.write_all(text.as_bytes())?)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}
