//! The server process: its settings, and starting, watching and stopping it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection};
use tokio::process::Child;

use super::account::Account;
use super::binaries::Binaries;
use super::cluster::{Cluster, ROLE, program};
use super::log::LogKeeper;
use super::{Options, Progress};

/// How often a starting server is asked whether it answers.
const POLL: Duration = Duration::from_millis(10);

/// After an unclean stop the server first replays its log: this long it may take.
const START_PATIENCE: Duration = Duration::from_mins(15);

/// After this time the user is told why nothing happens.
const TELL_AFTER: Duration = Duration::from_secs(2);

/// Starts that fail for a reason that passes are tried this often.
const ATTEMPTS: u32 = 20;

const STOP_FAST: Duration = Duration::from_mins(1);
const STOP_IMMEDIATE: Duration = Duration::from_secs(10);

/// A server process that answered, or, inside [`Server::start`], is about to.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    /// Also its process group: it has one of its own, so that Ctrl-C in the terminal reaches this process only, which
    /// drains first.
    pid: Pid,
    connect: PgConnectOptions,
    password: String,
}

impl Server {
    /// Starts the server and returns when it answers and the platform's database is there.
    pub(super) async fn start(
        binaries: &Binaries,
        account: &Account,
        cluster: &Cluster,
        log: &LogKeeper,
        options: &Options,
        progress: Progress<'_>,
    ) -> Result<Self> {
        let password = cluster.password()?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let written = log.len();
            let port = options.port.map_or_else(free_port, Ok)?;
            let mut command = program(binaries, account, "postgres", cluster.home());
            command.arg("-D").arg(cluster.data());
            for (name, value) in settings(port, options.fast_unsafe) {
                command.arg("-c").arg(format!("{name}={value}"));
            }
            let child = command
                .process_group(0)
                .stdout(Stdio::null())
                .stderr(log.append()?)
                .spawn()
                .with_context(|| format!("cannot run {}", binaries.program("postgres").display()))?;
            let pid = child.id().context("the server has no process id")?;
            let connect = PgConnectOptions::new_without_pgpass()
                .host("127.0.0.1")
                .port(port)
                .ssl_mode(PgSslMode::Disable)
                .username(ROLE)
                .password(&password)
                .database(ROLE);
            let mut server = Self {
                child,
                pid: Pid::from_raw(pid.cast_signed()),
                connect,
                password: password.clone(),
            };
            match server.wait_until_ready(cluster, progress).await? {
                Started::Ready => return Ok(server),
                Started::Ended(status) => {
                    let said = log.since(written);
                    if attempt == ATTEMPTS || !passes(&said, options.port.is_some()) {
                        bail!("PostgreSQL does not start ({status}): {}", log.reason_since(written));
                    }
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            }
        }
    }

    /// Where to connect.
    pub(super) fn url(&self) -> String {
        format!(
            "postgres://{ROLE}:{}@127.0.0.1:{}/{ROLE}",
            self.password,
            self.connect.get_port()
        )
    }

    /// Completes when the server has ended.
    pub(super) async fn wait(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Stops the server: fast, then, when it does not end, immediately, then by force. Committed data is safe in each.
    pub(super) async fn stop(mut self) -> Result<()> {
        let steps = [(Signal::SIGINT, STOP_FAST), (Signal::SIGQUIT, STOP_IMMEDIATE)];
        for (signal, patience) in steps {
            let _already_gone = kill(self.pid, signal);
            if let Ok(ended) = tokio::time::timeout(patience, self.child.wait()).await {
                ended?;
                return Ok(());
            }
            tracing::warn!(%signal, "PostgreSQL does not stop");
        }
        let _already_gone = killpg(self.pid, Signal::SIGKILL);
        self.child.wait().await?;
        Ok(())
    }

    async fn wait_until_ready(&mut self, cluster: &Cluster, progress: Progress<'_>) -> Result<Started> {
        let pid_file = cluster.data().join("postmaster.pid");
        let started = Instant::now();
        let mut told = false;
        while started.elapsed() < START_PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Started::Ended(status));
            }
            // Asking the port instead would fill the log with refusals, and until the server listens another one may
            // have the port.
            let says_ready = fs::read_to_string(&pid_file).is_ok_and(|text| is_ready(&text, self.pid));
            if says_ready {
                return self.open_database().await.map(|()| Started::Ready);
            }
            if !told && started.elapsed() > TELL_AFTER {
                told = true;
                progress("waiting for PostgreSQL, which recovers from an unclean stop");
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("PostgreSQL did not become ready within {START_PATIENCE:?}");
    }

    /// Connects once, and makes the platform's database when it is missing: the last step of a first start, done again
    /// if that was interrupted.
    async fn open_database(&self) -> Result<()> {
        const INVALID_CATALOG_NAME: &str = "3D000"; // PostgreSQL, appendix A
        let connection = match self.connect.connect().await {
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(INVALID_CATALOG_NAME) => {
                let mut connection = self.connect.clone().database("postgres").connect().await?;
                sqlx::query("CREATE DATABASE todo")
                    .execute(&mut connection)
                    .await
                    .context("cannot make the database")?;
                connection
            }
            connected => connected.context("cannot connect to PostgreSQL")?,
        };
        connection.close().await?;
        Ok(())
    }
}

impl Drop for Server {
    /// For the paths that end without [`Server::stop`], such as an error during the start: do not leave it running.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _already_gone = kill(self.pid, Signal::SIGINT);
        }
    }
}

enum Started {
    Ready,
    Ended(ExitStatus),
}

/// Whether `postmaster.pid` says that the server `pid` takes connections: its eighth line holds the state since
/// PostgreSQL 10.
fn is_ready(pid_file: &str, pid: Pid) -> bool {
    let mut lines = pid_file.lines().map(str::trim);
    lines.next() == Some(&pid.to_string()) && lines.nth(6) == Some("ready")
}

/// Whether a start that failed with this log may go well when tried again: the port was taken in between, or the last
/// processes of a killed server are still ending.
fn passes(log: &str, fixed_port: bool) -> bool {
    (log.contains("could not bind") && !fixed_port) || log.contains("pre-existing shared memory block")
}

/// A port that is free now. Another process can take it before the server does; then the start is tried again.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free TCP port")?;
    Ok(listener.local_addr()?.port())
}

/// All settings that differ from PostgreSQL's own. They are given on the command line, so that a newer version of this
/// program changes them without touching files.
fn settings(port: u16, fast_unsafe: bool) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("port", port.to_string()),
        // No second way in, and no limit on the length of the data folder's path.
        ("unix_socket_directories", String::new()),
        ("timezone", "UTC".to_owned()),
        ("log_timezone", "UTC".to_owned()),
        // Modest beside a browser and an editor, and enough to keep a person's tasks in memory.
        ("shared_buffers", "64MB".to_owned()),
        ("effective_cache_size", "1GB".to_owned()),
        ("max_connections", "100".to_owned()),
        // Laptops have solid-state disks; queries are short, so neither compiling nor parallel workers pay.
        ("random_page_cost", "1.1".to_owned()),
        ("jit", "off".to_owned()),
        ("max_parallel_workers_per_gather", "0".to_owned()),
        // Fewer checkpoints, so fewer full pages in the write-ahead log. A recovery replays at most this much.
        ("checkpoint_timeout", "15min".to_owned()),
        ("max_wal_size", "1GB".to_owned()),
        // A request that died with its process must not hold back the outbox's horizon for long.
        ("client_connection_check_interval", "10s".to_owned()),
        // What users wrote stays out of the log: no statements, no values.
        ("log_min_error_statement", "panic".to_owned()),
        ("log_error_verbosity", "terse".to_owned()),
        ("log_checkpoints", "off".to_owned()),
        ("log_line_prefix", "%m [%p] ".to_owned()),
    ];
    if fast_unsafe {
        settings.extend([
            ("fsync", "off".to_owned()),
            ("synchronous_commit", "off".to_owned()),
            ("full_page_writes", "off".to_owned()),
            ("max_connections", "300".to_owned()),
        ]);
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_is_only_given_up_on_request() {
        let durable = settings(1, false);
        for name in ["fsync", "synchronous_commit", "full_page_writes"] {
            assert!(durable.iter().all(|(set, _)| *set != name), "{name}");
        }
        let unsafe_settings = settings(1, true);
        assert!(unsafe_settings.contains(&("fsync", "off".to_owned())));
        let last = unsafe_settings.iter().rfind(|(set, _)| *set == "max_connections");
        assert_eq!(last.unwrap().1, "300", "the last one given wins");
    }

    #[test]
    fn a_server_is_ready_when_its_own_pid_file_says_so() {
        let file = |state| format!("7\n/data\n1790000000\n5432\n\n127.0.0.1\n  1 2\n{state}\n");
        assert!(is_ready(&file("ready   "), Pid::from_raw(7)));
        assert!(!is_ready(&file("ready   "), Pid::from_raw(8)), "left by another server");
        assert!(!is_ready(&file("starting"), Pid::from_raw(7)));
        assert!(!is_ready("7\n/data\n", Pid::from_raw(7)), "still being written");
    }

    #[test]
    fn only_passing_reasons_are_tried_again() {
        let taken = "LOG:  could not bind IPv4 address \"127.0.0.1\": Address already in use";
        assert!(passes(taken, false));
        assert!(!passes(taken, true), "the user wants that port");
        assert!(passes(
            "FATAL:  pre-existing shared memory block (key 1) is still in use",
            true
        ));
        assert!(!passes("FATAL:  could not open file", false));
    }
}
