//! A cluster: started until it answers, and everything that a test asks of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use kube::api::GetParams;
use kube::{Client, Config};
use nix::sys::signal::Signal;
use todo_test_tools::{CrdGroup, control_plane, crds};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use crate::access::{Access, token};
use crate::audit::AuditLog;
use crate::control_plane::{Processes, Program, write_private};
use crate::crds::install;
use crate::namespace::Namespace;
use crate::options::Options;

/// From the start of the API server to its first answer, on a busy machine.
const START_PATIENCE: Duration = Duration::from_mins(2);
/// From SIGTERM to the end of a program.
const STOP_PATIENCE: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(50);

/// The clusters that tests of this process share, by what is in them. They are never dropped.
static SHARED: LazyLock<Mutex<BTreeMap<Options, &'static OnceCell<Cluster>>>> = LazyLock::new(Mutex::default);

/// A running control plane.
pub struct Cluster {
    processes: Mutex<Processes>,
    access: Access,
    folder: PathBuf,
    kubectl: PathBuf,
}

impl Cluster {
    /// The cluster that all tests of this process share, with the CRDs of every project. The first caller starts it.
    pub async fn shared() -> Result<&'static Self> {
        Self::shared_with(Options::ALL).await
    }

    /// Another one that they share, with the CRDs of these projects only.
    pub async fn shared_with(options: Options) -> Result<&'static Self> {
        let cell: &'static OnceCell<Self> = {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            shared
                .entry(options)
                .or_insert_with(|| Box::leak(Box::new(OnceCell::new())))
        };
        cell.get_or_try_init(|| Self::start(options)).await
    }

    /// One of this caller's own.
    pub async fn start(options: Options) -> Result<Self> {
        // Making the programs takes minutes the first time.
        let (programs, groups) = spawn_blocking(move || {
            let groups: Result<Vec<PathBuf>> = options.groups().map(crds).collect();
            anyhow::Ok((control_plane()?, groups?))
        })
        .await??;
        let kubectl = programs.kubectl.clone();
        // The leash removes it, also when this process is killed.
        let folder = tempfile::Builder::new().prefix("todo-test-cluster-").tempdir()?.keep();
        let (processes, access) = Processes::prepare(programs, &folder)?;
        let cluster = Self {
            processes: Mutex::new(processes),
            access,
            folder,
            kubectl,
        };
        cluster.start_program(Program::Etcd).await?;
        cluster.start_program(Program::ApiServer).await?;
        let client = cluster.client().await?;
        install(&client, &own_crds()).await?;
        for folder in groups {
            install(&client, &folder).await?;
        }
        // After the CRDs: its garbage collector looks for new ones only every half minute.
        cluster.start_program(Program::ControllerManager).await?;
        Ok(cluster)
    }

    /// Makes the CRDs of a project that the cluster was started without. The controller manager's garbage collector
    /// sees them within half a minute.
    pub async fn install(&self, group: CrdGroup) -> Result<()> {
        let folder = spawn_blocking(move || crds(group)).await??;
        install(&self.client().await?, &folder).await
    }

    /// A new namespace. `hint` says whose it is: lower case letters, digits and hyphens.
    pub async fn namespace(&self, hint: &str) -> Result<Namespace> {
        Namespace::new(self.client().await?, hint).await
    }

    /// A client that may do everything, for the runtime that it is made on.
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::try_from(self.config().await?)?)
    }

    /// The settings of that client, to be changed.
    pub async fn config(&self) -> Result<Config> {
        self.access.admin_config().await
    }

    /// A client that may do what the roles of this service account allow. The account must be there.
    pub async fn client_for_service_account(&self, namespace: &str, name: &str) -> Result<Client> {
        Ok(Client::try_from(
            self.config_for_service_account(namespace, name).await?,
        )?)
    }

    /// The settings of that client.
    pub async fn config_for_service_account(&self, namespace: &str, name: &str) -> Result<Config> {
        let token = token(self.client().await?, namespace, name).await?;
        self.access.config_with_token(&token).await
    }

    /// The file by which programs reach the cluster as its administrator.
    pub fn kubeconfig(&self) -> &Path {
        self.access.admin_file()
    }

    /// Writes such a file for a service account; the path of it.
    pub async fn kubeconfig_for_service_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = token(self.client().await?, namespace, name).await?;
        let suffix: u32 = rand::random();
        let file = self.folder.join(format!("{namespace}.{name}.{suffix:08x}.kubeconfig"));
        write_private(&file, &self.access.with_token(&token)?)?;
        Ok(file)
    }

    /// `kubectl`, as the administrator of this cluster.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", &self.folder);
        command
    }

    /// What is asked of the API server from now on.
    pub async fn audit_log(&self) -> Result<AuditLog> {
        AuditLog::begin(Processes::audit_log(&self.folder), self.client().await?)
    }

    /// Starts a program that was stopped or killed, and waits until it serves. Etcd serves when the API server does.
    pub async fn start_program(&self, program: Program) -> Result<()> {
        self.processes().start(program)?;
        match program {
            Program::ApiServer => self.wait_until_ready().await,
            Program::Etcd | Program::ControllerManager => Ok(()),
        }
    }

    /// Kills a program.
    pub fn kill_program(&self, program: Program) -> Result<()> {
        self.processes().kill(program)
    }

    /// Kills a program and starts it again over what it left, and waits until the API server answers.
    pub async fn restart_program(&self, program: Program) -> Result<()> {
        self.kill_program(program)?;
        self.start_program(program).await?;
        self.wait_until_ready().await
    }

    /// Asks a program to end (SIGTERM) and waits. The API server ends its watches first.
    pub async fn stop_program(&self, program: Program) -> Result<()> {
        self.processes().signal(program, Signal::SIGTERM)?;
        let began = Instant::now();
        while self.is_running(program)? {
            if began.elapsed() >= STOP_PATIENCE {
                bail!(
                    "{program} does not end within {STOP_PATIENCE:?}:\n{}",
                    self.last_words(program)
                );
            }
            tokio::time::sleep(POLL).await;
        }
        self.kill_program(program)
    }

    /// Freezes a program with its connections open.
    pub fn pause_program(&self, program: Program) -> Result<()> {
        self.processes().signal(program, Signal::SIGSTOP)
    }

    /// Lets a frozen program go on.
    pub fn resume_program(&self, program: Program) -> Result<()> {
        self.processes().signal(program, Signal::SIGCONT)
    }

    /// The end of a program's log.
    pub fn last_words(&self, program: Program) -> String {
        self.processes().last_words(program)
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let mut config = self.config().await?;
        // It would wait for seconds between two tries.
        config.default_retry = false;
        let client = Client::try_from(config)?;
        let began = Instant::now();
        loop {
            let request = kube::core::Request::new("").get("readyz", &GetParams::default())?;
            if client.request_text(request).await.is_ok() {
                return Ok(());
            }
            for program in [Program::ApiServer, Program::Etcd] {
                // In a statement of its own: the lock must not be held when the log is read.
                let ended = self.processes().ended(program)?;
                if let Some(status) = ended {
                    bail!("{program} ended with {status}:\n{}", self.last_words(program));
                }
            }
            if began.elapsed() >= START_PATIENCE {
                bail!(
                    "the API server is not ready within {START_PATIENCE:?}:\n{}",
                    self.last_words(Program::ApiServer)
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn is_running(&self, program: Program) -> Result<bool> {
        Ok(self.processes().ended(program)?.is_none())
    }

    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Our own CRDs, as they are shipped.
fn own_crds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/crd")
}
