//! Processes and folders that are gone when the test process is, however that ends.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes to start on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Runs its arguments, and kills them when its standard input ends. It waits for nobody before, so that the id is
/// still the child's own when it kills.
const KILL_AT_THE_END: &str = r#""$@" </dev/null & child=$!; while read -r _; do :; done; kill -9 $child; wait"#;

/// Removes its argument when its standard input ends, and whoever writes there had time to be killed.
const REMOVE_AT_THE_END: &str = r#"while read -r _; do :; done; sleep 1; rm -rf "$1""#;

/// A program of the environment's choice.
///
/// # Panics
/// When it is not there: a test that cannot run must not look like one that passed.
pub(crate) fn tool(variable: &str) -> PathBuf {
    let Some(path) = std::env::var_os(variable).map(PathBuf::from) else {
        panic!("{variable} is not set: this test needs the real thing. `cargo xtask test` gets it and runs all tests");
    };
    assert!(path.exists(), "{variable}: {} is not there", path.display());
    path
}

fn shell(script: &str, arguments: &mut dyn Iterator<Item = &std::ffi::OsStr>) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).args(arguments).stdin(Stdio::piped());
    command
}

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    guard: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, with what it says in the file `log`.
    pub(crate) fn start(command: &Command, log: &Path) -> Self {
        let arguments = std::iter::once(command.get_program()).chain(command.get_args());
        let mut shell = shell(KILL_AT_THE_END, &mut arguments.into_iter());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let output = File::options().create(true).append(true).open(log).unwrap();
        let guard = shell
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self {
            guard,
            log: log.to_owned(),
        }
    }

    /// What it has said.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until `ready`.
    ///
    /// # Panics
    /// With what it said last, when that takes too long.
    pub(crate) async fn until(&self, what: &str, mut ready: impl AsyncFnMut() -> bool) {
        let began = Instant::now();
        while !ready().await {
            if began.elapsed() > PATIENCE {
                let said = self.said();
                let last: Vec<_> = said.lines().rev().take(20).collect();
                panic!("{what} is not ready; it said last, newest first:\n{}", last.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    /// Returns when it is gone. Waiting closes the guard's standard input first.
    fn drop(&mut self) {
        let _gone = self.guard.wait();
    }
}

/// A new folder in the place for temporary ones, removed soon after the test process is gone.
pub(crate) fn folder() -> PathBuf {
    let folder = tempfile::tempdir().unwrap().keep();
    let mut guard = shell(REMOVE_AT_THE_END, &mut std::iter::once(folder.as_os_str()));
    // Nobody waits for it: it outlives this process by its nature.
    std::mem::forget(guard.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    folder
}

/// Ports that nothing listens on, all different.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Whether something takes connections there.
pub(crate) async fn listens(port: u16) -> bool {
    tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .is_ok()
}
