//! Keeps one part of a stack running, as a kubelet keeps a container: what ends by itself is started again, later each
//! time; what a test has stopped stays down.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use todo_test_tools::Leash;

use super::launch::{Launch, Owner, Probe};
use super::part::Part;
use crate::process::{postgres_processes, postmaster};

/// The waits before a part is started again: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// A part that ran for so long has started well: the waits begin anew.
const WELL_STARTED: Duration = Duration::from_secs(10);

/// One part. All but the database are on the leash: `todo postgres` ends by itself when its owner is gone, and killed it
/// could not stop the server first.
#[derive(Debug)]
pub(super) struct Keeper {
    part: Part,
    launch: Launch,
    /// The folder that the database keeps its data in.
    data: PathBuf,
    running: Option<Running>,
    /// How it ended the last time.
    last: ExitStatus,
    /// Whether it is to run; a test that kills it says no.
    wanted: bool,
    again_at: Instant,
    failures: u32,
    restarts: u32,
}

#[derive(Debug)]
struct Running {
    child: Child,
    since: Instant,
}

impl Keeper {
    pub(super) fn new(part: Part, launch: Launch, data: PathBuf) -> Self {
        Self {
            part,
            launch,
            data,
            running: None,
            last: ExitStatus::default(),
            wanted: false,
            again_at: Instant::now(),
            failures: 0,
            restarts: 0,
        }
    }

    pub(super) fn probe(&self) -> Probe {
        self.launch.probe.clone()
    }

    pub(super) fn process(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    /// How often it had to be started again because it ended by itself.
    pub(super) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Starts it when it does not run, and keeps it running from now on.
    pub(super) fn start(&mut self, leash: &mut Leash) -> Result<()> {
        self.wanted = true;
        self.failures = 0;
        if self.running.is_some() {
            return Ok(());
        }
        self.spawn(leash)
    }

    fn spawn(&mut self, leash: &mut Leash) -> Result<()> {
        let child = self.launch.spawn(Owner::Us)?;
        if self.part != Part::Database {
            leash.began(child.id())?;
        }
        self.running = Some(Running {
            child,
            since: Instant::now(),
        });
        Ok(())
    }

    /// Looks after it. To be called again and again.
    pub(super) fn tend(&mut self, leash: &mut Leash) -> Result<()> {
        if let Some(status) = self.reap(leash)?
            && self.wanted
        {
            let wait = LONGEST_WAIT.min(FIRST_WAIT * 2_u32.saturating_pow(self.failures));
            self.failures += 1;
            self.again_at = Instant::now() + wait;
            self.note(&format!(
                "it ended by itself ({status}); it is started again in {wait:?}"
            ));
        }
        if self.wanted && self.running.is_none() && Instant::now() >= self.again_at {
            self.restarts += 1;
            self.spawn(leash)?;
        }
        Ok(())
    }

    /// How it ended, if it did since this was asked last.
    fn reap(&mut self, leash: &mut Leash) -> Result<Option<ExitStatus>> {
        let Some(running) = &mut self.running else {
            return Ok(None);
        };
        let Some(status) = running.child.try_wait()? else {
            return Ok(None);
        };
        if running.since.elapsed() >= WELL_STARTED {
            self.failures = 0;
        }
        leash.ended(running.child.id())?;
        self.running = None;
        self.last = status;
        Ok(Some(status))
    }

    /// Kills it at once, and everything that it started. It is not waited for.
    ///
    /// With `keep` it is started again, as after a crash on a cluster; without, it stays down.
    pub(super) fn kill(&mut self, keep: bool) -> Result<()> {
        self.wanted = keep;
        if self.running.is_none() {
            return Ok(());
        }
        self.note("killed by the test");
        if self.part == Part::Database {
            // `todo postgres` only watches over the server, and ends with it.
            return match postmaster(&self.data) {
                Ok(server) => gone_is_fine(kill(server, Signal::SIGKILL)),
                Err(_) => self.signal_group(Signal::SIGKILL),
            };
        }
        self.signal_group(Signal::SIGKILL)
    }

    /// Asks it to end (SIGTERM). It is not waited for, and stays down.
    pub(super) fn ask_to_end(&mut self) -> Result<()> {
        self.wanted = false;
        match self.process() {
            Some(process) => gone_is_fine(kill(Pid::from_raw(process.cast_signed()), Signal::SIGTERM)),
            None => Ok(()),
        }
    }

    /// How it ended, when it does not run any more.
    pub(super) fn ended(&mut self, leash: &mut Leash) -> Result<Option<ExitStatus>> {
        self.reap(leash)?;
        Ok(self.running.is_none().then_some(self.last))
    }

    /// Freezes it (SIGSTOP) or lets it go on (SIGCONT).
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        if self.part == Part::Database {
            for process in postgres_processes(&self.data) {
                gone_is_fine(kill(process, signal))?;
            }
            return Ok(());
        }
        self.signal_group(signal)
    }

    fn signal_group(&self, signal: Signal) -> Result<()> {
        let process = self.process().with_context(|| format!("{} does not run", self.part))?;
        gone_is_fine(killpg(Pid::from_raw(process.cast_signed()), signal))
    }

    /// Adds a line of the stack's own to the part's log.
    fn note(&self, text: &str) {
        let log = OpenOptions::new().append(true).open(&self.launch.log);
        let _only_a_note = log.and_then(|mut log| writeln!(log, "[stack] {text}"));
    }

    /// Ends it for good, now: nothing of it is left when this returns.
    pub(super) fn destroy(&mut self, leash: &mut Leash) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        let process = Pid::from_raw(running.child.id().cast_signed());
        let _may_be_gone = killpg(process, Signal::SIGKILL);
        if self.part == Part::Database {
            for server in postgres_processes(&self.data) {
                let _may_be_gone = kill(server, Signal::SIGKILL);
            }
        }
        let _reaped = running.child.wait();
        let _watched_or_not = leash.ended(running.child.id());
    }
}

fn gone_is_fine(sent: nix::Result<()>) -> Result<()> {
    match sent {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
