//! A test's own folder, and what runs in it.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::client::{self, Client};
use crate::process::{Process, todo};

/// A first start fetches nothing in a test, but makes a database.
const START_PATIENCE: Duration = Duration::from_mins(1);
const RUN_PATIENCE: Duration = Duration::from_mins(1);

/// A folder that goes away with the test, unless `TODO_E2E_KEEP` is set: what processes said is in it.
#[derive(Debug)]
pub struct Scene {
    folder: TempDir,
}

/// A running `todo up` that has said that it is ready.
#[derive(Debug)]
pub struct Up {
    /// The process.
    pub process: Process,
    /// Where its API is: `http://HOST:PORT`.
    pub base: String,
}

impl Scene {
    /// A new folder. PostgreSQL runs as another account when the test runs as root, and must be able to walk into it.
    pub fn new() -> Result<Self> {
        let mut folder = tempfile::Builder::new().prefix("todo-e2e-").tempdir()?;
        folder.disable_cleanup(std::env::var_os("TODO_E2E_KEEP").is_some());
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        Ok(Self { folder })
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Starts `todo` with these arguments.
    pub fn start<S: AsRef<OsStr>>(&self, name: &str, args: impl IntoIterator<Item = S>) -> Result<Process> {
        Process::start(todo(args), self.folder.path(), name)
    }

    /// Starts `todo up` over this database, with more arguments, and waits until it is ready.
    pub async fn up(&self, name: &str, database: &str, args: &[&str]) -> Result<Up> {
        let mut all = vec!["--database-url", database];
        all.extend(args);
        let process = self.start_up(name, &all)?;
        ready(process).await
    }

    /// Starts `todo up` with a PostgreSQL of its own, and waits until it is ready.
    pub async fn up_alone(&self, name: &str, args: &[&str]) -> Result<Up> {
        let process = self.start_up(name, args)?.with_postgres_in(&self.data_dir());
        ready(process).await
    }

    fn start_up(&self, name: &str, args: &[&str]) -> Result<Process> {
        let data_dir = self.data_dir().display().to_string();
        let mut all = vec!["up", "--listen", "127.0.0.1:0", "--data-dir", data_dir.as_str()];
        all.extend(args);
        self.start(name, all)
    }

    /// The data folder of this scene's `todo up`.
    pub fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// Runs `todo` to its end.
    pub async fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Output> {
        let mut command = tokio::process::Command::from(todo(args));
        command
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .current_dir(self.folder.path());
        Ok(tokio::time::timeout(RUN_PATIENCE, command.output())
            .await
            .context("it does not end")??)
    }

    /// Runs `todo` to its end, which must be a success, and returns its standard output.
    pub async fn run_well<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        let output = self.run(args).await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "it failed ({}): {errors}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A client for a user of this scene's `todo up`, at `base`.
    pub async fn client(&self, base: &str, user: &str) -> Result<Client> {
        let data_dir = self.data_dir();
        let token = self
            .run_well([
                "token".as_ref(),
                "--user".as_ref(),
                user.as_ref(),
                "--data-dir".as_ref(),
                data_dir.as_os_str(),
            ])
            .await?;
        Client::new(base, token.trim())
    }
}

async fn ready(mut process: Process) -> Result<Up> {
    let greeting = process.line_with("is ready at", START_PATIENCE).await?;
    let base = greeting
        .split_whitespace()
        .find(|word| word.starts_with("http://"))
        .with_context(|| format!("no address in {greeting:?}"))?
        .to_owned();
    client::wait_until_ready(&base).await?;
    Ok(Up { process, base })
}

/// A port of 127.0.0.1 that is free now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Whether a folder is missing or empty.
pub fn is_untouched(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}
