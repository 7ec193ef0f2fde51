//! The platform's processes: starting and stopping them, and what memory they take.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// A process that is stopped when it is dropped.
pub(crate) struct Process(Child);

impl Process {
    /// Starts it without anything on standard input, and with its log thrown away.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        Ok(Self(child))
    }

    /// Its memory now and at its peak, in MiB.
    pub(crate) fn memory(&self) -> Result<Memory> {
        Memory::of(self.0.id())
    }

    /// Asks it to end as Ctrl-C does, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.terminate()
    }

    fn terminate(&mut self) -> Result<()> {
        if self.0.try_wait()?.is_none() {
            workspace::status(Command::new("kill").args(["-s", "TERM", &self.0.id().to_string()]))?;
            self.0.wait()?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.terminate() {
            eprintln!("warning: process {} may be left behind: {error:#}", self.0.id());
        }
    }
}

/// A process's memory in MiB, without what PostgreSQL's processes take.
pub(crate) struct Memory {
    pub(crate) now: f64,
    pub(crate) peak: f64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status =
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}: has the process ended?"))?;
        Self::read(&status).with_context(|| format!("{path} says nothing of memory: has the process ended?"))
    }

    /// Reads `VmRSS:    1234 kB` and `VmHWM:    2345 kB` (proc(5)).
    fn read(status: &str) -> Option<Self> {
        let mebibytes = |field: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
            let kibibytes: f64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kibibytes / 1024.0)
        };
        Some(Self {
            now: mebibytes("VmRSS:")?,
            peak: mebibytes("VmHWM:")?,
        })
    }
}

/// Asks again and again until there is an answer.
pub(crate) fn wait_for<T>(what: &str, pause: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        std::thread::sleep(pause);
    }
    bail!("{what} did not happen within {} s", PATIENCE.as_secs())
}

/// Waits until a worker that has just started has nothing more to do than to wait.
pub(crate) fn let_it_idle() {
    std::thread::sleep(Duration::from_secs(2));
}

/// What a command prints. Its mistakes are the error's text.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed ({}): {}", output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed what is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_mebibytes() {
        let memory = Memory::read("Name:\ttodo\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\nThreads:\t4\n").unwrap();
        assert!((memory.now - 10.0).abs() < 1e-9 && (memory.peak - 20.0).abs() < 1e-9);
        assert!(Memory::read("Name:\tgone\n").is_none());
    }
}
