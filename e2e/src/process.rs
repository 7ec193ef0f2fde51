//! Processes of the built binary: started with their output in files, stopped or killed by their id, never left behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than a drain may take.
const STOP_PATIENCE: Duration = Duration::from_secs(40);
/// How long a failed test waits for a PostgreSQL to stop by itself.
const DROP_PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(given) = std::env::var_os("TODO_BIN") {
        return given.into();
    }
    // target/PROFILE/deps/it-HASH, and next to `deps` the binary.
    let test = std::env::current_exe().unwrap_or_default();
    let binary = test.ancestors().nth(2).unwrap_or(Path::new("")).join("todo");
    assert!(
        binary.is_file(),
        "no binary to test: build it with `cargo build -p todo`, or name it in TODO_BIN ({} is not there)",
        binary.display()
    );
    binary
});

/// The binary under test.
pub fn todo_program() -> PathBuf {
    BINARY.clone()
}

/// A command of the binary under test, without what the environment would tell it.
pub fn todo<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(&*BINARY);
    command.args(args);
    for variable in ["DATABASE_URL", "TODO_TOKEN_SECRET", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    /// The data folder of the PostgreSQL that it runs: that must not outlive it.
    postgres: Option<PathBuf>,
}

impl Process {
    /// Starts `command` with its output in `folder`, in files that begin with `name`.
    pub fn start(mut command: Command, folder: &Path, name: &str) -> Result<Self> {
        let (stdout, stderr) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        // Held open: `--stop-with-stdin` ends with the test, however that ends.
        let child = command
            .stdin(Stdio::piped())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        Ok(Self {
            child,
            stdout,
            stderr,
            postgres: None,
        })
    }

    /// Says that it runs a PostgreSQL of its own over this data folder.
    #[must_use]
    pub fn with_postgres_in(mut self, data_dir: &Path) -> Self {
        self.postgres = Some(data_dir.to_owned());
        self
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Its id, by which the kernel tells of it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Kills it: it gets no chance to tidy up.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.end(STOP_PATIENCE).await
    }

    /// Waits for its end.
    pub async fn end(&mut self, within: Duration) -> Result<ExitStatus> {
        let began = Instant::now();
        while began.elapsed() < within {
            if let Some(status) = self.ended()? {
                // It has looked after its PostgreSQL itself, and what runs there from now on is another's.
                self.postgres = None;
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("it does not end within {within:?}; it said: {}", self.stderr());
    }

    /// Waits until a whole line of its standard output has `text` in it, and returns that line.
    pub async fn line_with(&mut self, text: &str, within: Duration) -> Result<String> {
        let began = Instant::now();
        while began.elapsed() < within {
            let said = self.stdout();
            if let Some(line) = said
                .split_inclusive('\n')
                .find(|line| line.ends_with('\n') && line.contains(text))
            {
                return Ok(line.trim_end().to_owned());
            }
            if let Some(status) = self.ended()? {
                bail!("it ended ({status}) before it said {text:?}: {}", self.stderr());
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("it does not say {text:?} within {within:?}: {}", self.stderr());
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(data_dir) = self.postgres.clone() {
            let began = Instant::now();
            let _may_be_gone = self.signal(Signal::SIGTERM);
            while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < DROP_PATIENCE {
                std::thread::sleep(POLL);
            }
            for server in postgres_processes(&data_dir) {
                let _may_be_gone = kill(server, Signal::SIGKILL);
            }
        }
        let _may_be_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The postmaster that `postmaster.pid` names.
pub fn postmaster(data_dir: &Path) -> Result<Pid> {
    let text = fs::read_to_string(data_dir.join("postgres/data/postmaster.pid"))?;
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
    Ok(Pid::from_raw(pid.context("postmaster.pid begins with no process id")?))
}

/// Every PostgreSQL process over this data folder: all of them work in it.
pub fn postgres_processes(data_dir: &Path) -> Vec<Pid> {
    let Ok(data) = data_dir.join("postgres/data").canonicalize() else {
        return Vec::new();
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .collect()
}
