//! One process: how it is started, and how to see that it serves.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::HTTP;

/// How long one look may take.
const GLANCE: Duration = Duration::from_secs(2);
/// What a process inherits; everything else that it should know is in its launch.
const INHERITED: [&str; 6] = ["PATH", "HOME", "LANG", "TMPDIR", "TZ", "RUST_LOG"];
/// A log that is longer than this when its part starts is put aside first.
const LONG_LOG: u64 = 16 * 1024 * 1024;

/// How to start a process.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(&'static str, OsString)>,
    /// Its working folder.
    pub(super) folder: PathBuf,
    /// Where what it writes is added.
    pub(super) log: PathBuf,
    /// Where its standard output goes instead, from the start, for its owner's eyes only.
    pub(super) output: Option<PathBuf>,
    /// How to see that it serves.
    pub(super) probe: Probe,
}

/// A question that a part answers when it serves.
#[derive(Clone, Debug)]
pub(super) enum Probe {
    /// A request for this URL succeeds.
    Http(String),
    /// The port accepts connections.
    Port(u16),
    /// Redis answers a ping.
    Redis(u16),
    /// PostgreSQL accepts a login. The file has the URL, once the server has begun to serve.
    Postgres(PathBuf),
}

/// Who owns the processes of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// This process: they end with it.
    Us,
    /// Nobody: each is a session of its own and outlives this process and its terminal.
    Nobody,
}

impl Launch {
    /// Starts it in a process group of its own.
    pub(super) fn spawn(&self, owner: Owner) -> Result<Child> {
        let mut command = match owner {
            Owner::Us => {
                let mut command = Command::new(&self.program);
                command.process_group(0);
                command
            }
            Owner::Nobody => {
                // It makes a session and becomes the program: the process id stays.
                let mut command = Command::new("setsid");
                command.arg(&self.program);
                command
            }
        };
        command.args(&self.arguments).env_clear().current_dir(&self.folder);
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        put_aside(&self.log)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.log)
            .with_context(|| format!("cannot write to {}", self.log.display()))?;
        let output = match &self.output {
            Some(path) => own_file(path)?,
            None => log.try_clone()?,
        };
        // Held open for `--stop-with-stdin`.
        let input = if owner == Owner::Us {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        command
            .stdin(input)
            .stdout(output)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))
    }
}

/// A new empty file that only its owner can read.
pub(super) fn own_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write to {}", path.display()))
}

fn put_aside(log: &Path) -> Result<()> {
    if log.metadata().is_ok_and(|log| log.len() > LONG_LOG) {
        std::fs::rename(log, log.with_extension("log.1"))?;
    }
    Ok(())
}

impl Probe {
    /// Whether the part serves now.
    pub(super) async fn answers(&self) -> bool {
        let asked = async {
            match self {
                Self::Http(url) => HTTP
                    .get(url)
                    .timeout(GLANCE)
                    .send()
                    .await
                    .is_ok_and(|answer| answer.status().is_success()),
                Self::Port(port) => TcpStream::connect(("127.0.0.1", *port)).await.is_ok(),
                Self::Redis(port) => ping(*port).await.is_ok_and(|answer| answer.starts_with("+PONG")),
                Self::Postgres(file) => match url_in(file) {
                    Ok(url) => PgConnection::connect(&url).await.is_ok(),
                    Err(_) => false,
                },
            }
        };
        tokio::time::timeout(GLANCE, asked).await.unwrap_or(false)
    }
}

/// The URL that `todo postgres` has written as its only line.
pub(super) fn url_in(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file)?;
    let line = text
        .strip_suffix('\n')
        .context("PostgreSQL has not given its URL yet")?;
    Ok(line.to_owned())
}

async fn ping(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
