//! The whole platform spread out, as on a cluster, on one machine: every part a process of its own, on loopback.
//!
//! What lives here: which processes a stack has (`part`), the exact way each is started (`site`), and looking after
//! them: those that a test owns ([`Stack`]), and those that a developer leaves running ([`detached`]). What does not:
//! what the sidecars load, which is in `dapr/components/`, and where the programs come from ([`todo_test_tools`]).
//!
//! ```text
//! api ── api-daprd        relay ── relay-daprd ─┐                ┌─ audit-daprd ── audit
//!  │                        │                   ├──── kafka ─────┤
//!  └──────── postgres ──────┘                   │                └─ recurring-daprd ── recurring
//!                           └ reminders ── reminders-daprd ── scheduler
//! ```
//!
//! For a test of faults:
//!
//! ```no_run
//! # use todo_e2e::{scene::Scene, stack::{Options, Part, Role, Stack}};
//! # async fn test() -> anyhow::Result<()> {
//! let scene = Scene::new()?;
//! let stack = Stack::start(&scene, Options::default().copies(Role::Audit, 2)).await?;
//! let alice = stack.client(&scene, "alice").await?;
//! stack.kill(Part::Service(Role::Audit, 1)).await?;      // it stays down
//! stack.restart(Part::Service(Role::Audit, 1)).await?;   // until it is started again, and is ready
//! stack.crash(Part::Kafka).await?;                       // it comes back by itself
//! stack.wait_until_ready().await?;
//! stack.pause(Part::Kafka)?;                             // frozen, its connections open
//! stack.resume(Part::Kafka)?;
//! stack.stop().await?;                                   // each drains, in order
//! # Ok(()) }
//! ```
//!
//! A part that ends by itself is started again, as a kubelet does: a sidecar whose Kafka is away ends and comes again
//! until it is there. Every part keeps its ports for the life of the stack. Its log is `LOGS/PART.log`, in the scene's
//! folder; `TODO_E2E_KEEP` keeps it. Nothing outlives the test: a stack that is dropped, also by a panic, kills what
//! runs, and when the test's process itself is killed a shell that watches it does ([`Leash`]).
//!
//! Linux only: what runs is looked up in `/proc`.

pub(crate) mod kafka;
mod keeper;
mod launch;
mod part;
mod site;

pub mod detached;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use todo_test_tools::{Leash, Ports};
use tokio::task::JoinHandle;

use self::keeper::Keeper;
pub use self::part::{Part, Role};
use self::site::{Programs, Site};
use crate::client::{Client, HTTP};
use crate::process::todo_program;
use crate::scene::Scene;

/// Held for as long as there is a stack: two at once starve each other, feel each other's faults, and may take the same
/// ports.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// From the start of a part to its first answer. A JVM on a busy machine takes its time.
const START_PATIENCE: Duration = Duration::from_mins(2);
/// Longer than a drain may take.
const STOP_PATIENCE: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_millis(50);
/// How much of a log is in the error about its part.
const LAST_LINES: usize = 15;

/// What a stack consists of. The default is one copy of each service, alarms on, no Redis.
#[derive(Clone, Debug)]
pub struct Options {
    copies: BTreeMap<Role, usize>,
    alarms: bool,
    redis: bool,
    kafka_heap_megabytes: u32,
    settings: Vec<Setting>,
    /// Whether it outlives the process that starts it.
    detached: bool,
}

/// A setting of services, beside or in place of what a stack gives them.
#[derive(Clone, Debug)]
struct Setting {
    /// Of which service; without one, of all.
    role: Option<Role>,
    name: &'static str,
    value: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            copies: Role::ALL.map(|role| (role, 1)).into(),
            alarms: true,
            redis: false,
            kafka_heap_megabytes: 256,
            settings: vec![],
            detached: false,
        }
    }
}

impl Options {
    /// So many copies of this service, each with its sidecar. None at all is fine.
    #[must_use]
    pub fn copies(mut self, role: Role, copies: usize) -> Self {
        self.copies.insert(role, copies);
        self
    }

    /// Whether reminders set jobs at Dapr's scheduler. Without, there is no scheduler in the stack.
    #[must_use]
    pub fn alarms(mut self, alarms: bool) -> Self {
        self.alarms = alarms;
        self
    }

    /// With a Redis, which the API's sidecar offers as `statestore-redis`.
    #[must_use]
    pub fn with_redis(mut self) -> Self {
        self.redis = true;
        self
    }

    /// The most memory of Kafka's heap, in MiB.
    #[must_use]
    pub fn kafka_heap(mut self, megabytes: u32) -> Self {
        self.kafka_heap_megabytes = megabytes;
        self
    }

    /// Sets an environment variable of every service.
    #[must_use]
    pub fn set(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        self.settings.push(Setting {
            role: None,
            name,
            value,
        });
        self
    }

    /// Sets an environment variable of one service.
    #[must_use]
    pub fn set_for(mut self, role: Role, name: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        self.settings.push(Setting {
            role: Some(role),
            name,
            value,
        });
        self
    }

    /// The parts, in the order in which they can be started.
    fn parts(&self) -> Vec<Part> {
        let mut parts = vec![Part::Database, Part::Kafka];
        if self.alarms {
            parts.push(Part::Scheduler);
        }
        if self.redis {
            parts.push(Part::Redis);
        }
        for (&role, &copies) in &self.copies {
            for copy in 0..copies {
                parts.extend([Part::Sidecar(role, copy), Part::Service(role, copy)]);
            }
        }
        parts
    }
}

/// A running stack that belongs to a test. Share it by reference; every method takes `&self`.
#[derive(Debug)]
pub struct Stack {
    site: Site,
    scene_data: PathBuf,
    kept: Arc<Mutex<Kept>>,
    tending: JoinHandle<()>,
    _turn: Turn,
}

/// The right to have a stack. Dropped, the next test has its turn.
pub type Turn = tokio::sync::MutexGuard<'static, ()>;

/// Waits for its turn to have a stack. [`Stack::start`] does it; a test that runs one in another way does it itself.
pub async fn turn() -> Turn {
    ONE_AT_A_TIME.lock().await
}

#[derive(Debug)]
struct Kept {
    keepers: BTreeMap<Part, Keeper>,
    leash: Leash,
}

impl Kept {
    fn keeper(&mut self, part: Part) -> Result<(&mut Keeper, &mut Leash)> {
        let keeper = self.keepers.get_mut(&part);
        let keeper = keeper.with_context(|| format!("{part} is not started, or not part of this stack"))?;
        Ok((keeper, &mut self.leash))
    }
}

impl Stack {
    /// Starts a stack in the scene's data folder and waits until all of it is ready. The first one on a machine makes
    /// its tools, which takes minutes: `cargo xtask test` does that before. A process has one stack at a time, and this
    /// waits for the end of the one before: a test that starts a second while it has one waits forever.
    pub async fn start(scene: &Scene, options: Options) -> Result<Self> {
        let turn = turn().await;
        let data = scene.data_dir();
        let site = tokio::task::spawn_blocking({
            let data = data.clone();
            move || {
                let programs = Programs::ready(&todo_program(), &options)?;
                Site::new(&data, programs, options, Ports::default(), BTreeMap::new())
            }
        })
        .await??;
        let kept = Arc::new(Mutex::new(Kept {
            keepers: BTreeMap::new(),
            leash: Leash::new()?,
        }));
        let tending = tokio::spawn(tend(Arc::clone(&kept)));
        let stack = Self {
            site,
            scene_data: data,
            kept,
            tending,
            _turn: turn,
        };
        // What is dropped by an error here ends what it has started.
        stack.start_all(scene).await?;
        Ok(stack)
    }

    async fn start_all(&self, scene: &Scene) -> Result<()> {
        let parts = self.site.options.parts();
        let (first, rest): (Vec<Part>, Vec<Part>) = parts
            .iter()
            .partition(|part| !matches!(part, Part::Service(..) | Part::Sidecar(..)));
        let site = &self.site;
        // Two JVMs at once take longer than one after the other; beside them the database starts.
        self.add(Part::Database)?;
        kafka::format(
            &site.programs().kafka,
            &site.path("kafka"),
            &site.path("kafka.properties"),
        )
        .await?;
        for part in &first[1..] {
            self.add(*part)?;
        }
        self.wait_ready(Part::Database).await?;
        let url = self.database_url()?;
        scene.run_well(["migrate", "--database-url", &url]).await?;
        for part in &first {
            self.wait_ready(*part).await?;
        }
        for part in rest {
            self.add(part)?;
        }
        self.wait_until_ready().await
    }

    fn add(&self, part: Part) -> Result<()> {
        let keeper = Keeper::new(part, self.site.launch(part)?, self.site.data().to_owned());
        let mut kept = self.kept();
        let Kept { keepers, leash } = &mut *kept;
        keepers.entry(part).or_insert(keeper).start(leash)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parts, in the order in which they were started.
    pub fn parts(&self) -> Vec<Part> {
        self.site.options.parts()
    }

    /// Kills a part (SIGKILL) and leaves it down until [`Stack::restart`].
    pub async fn kill(&self, part: Part) -> Result<()> {
        self.kept().keeper(part)?.0.kill(false)?;
        self.wait_for_end(part).await?;
        Ok(())
    }

    /// Kills a part (SIGKILL), which then comes back by itself, as on a cluster. It is down when this returns, or on its
    /// way up again.
    pub async fn crash(&self, part: Part) -> Result<()> {
        let before = {
            let mut kept = self.kept();
            let keeper = kept.keeper(part)?.0;
            let process = keeper.process();
            keeper.kill(true)?;
            process
        };
        let began = Instant::now();
        while self.process(part) == before && before.is_some() {
            ensure!(
                began.elapsed() < STOP_PATIENCE,
                "{part} does not end: {}",
                self.last_words(part)
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Asks a part to end (SIGTERM), waits until it has, and leaves it down until [`Stack::restart`].
    pub async fn end(&self, part: Part) -> Result<ExitStatus> {
        self.kept().keeper(part)?.0.ask_to_end()?;
        self.wait_for_end(part).await
    }

    /// Starts a part that was killed or ended, and waits until it is ready. One that runs is ended first.
    pub async fn restart(&self, part: Part) -> Result<()> {
        if self.process(part).is_some() {
            self.end(part).await?;
        }
        self.begin(part)?;
        self.wait_ready(part).await
    }

    /// Starts a part that was killed or ended, without waiting for it.
    pub fn begin(&self, part: Part) -> Result<()> {
        let mut kept = self.kept();
        let (keeper, leash) = kept.keeper(part)?;
        keeper.start(leash)
    }

    /// Freezes a part (SIGSTOP): it keeps its connections and answers nothing.
    pub fn pause(&self, part: Part) -> Result<()> {
        self.kept().keeper(part)?.0.signal(Signal::SIGSTOP)
    }

    /// Lets a frozen part go on (SIGCONT).
    pub fn resume(&self, part: Part) -> Result<()> {
        self.kept().keeper(part)?.0.signal(Signal::SIGCONT)
    }

    /// Waits until a part serves.
    pub async fn wait_ready(&self, part: Part) -> Result<()> {
        let probe = self.kept().keeper(part)?.0.probe();
        let began = Instant::now();
        while !probe.answers().await {
            if began.elapsed() >= START_PATIENCE {
                bail!(
                    "{part} is not ready within {START_PATIENCE:?}; it says:\n{}",
                    self.last_words(part)
                );
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until every part serves, those that a test has left down excepted.
    pub async fn wait_until_ready(&self) -> Result<()> {
        for part in self.parts() {
            if self.process(part).is_some() {
                self.wait_ready(part).await?;
            }
        }
        Ok(())
    }

    /// Whether a part serves now.
    pub async fn is_ready(&self, part: Part) -> Result<bool> {
        let probe = self.kept().keeper(part)?.0.probe();
        Ok(probe.answers().await)
    }

    /// The process id of a part; `None` while it is down.
    pub fn process(&self, part: Part) -> Option<u32> {
        self.kept().keepers.get(&part).and_then(Keeper::process)
    }

    /// How often a part was started again because it had ended by itself or was crashed.
    pub fn restarts(&self, part: Part) -> u32 {
        self.kept().keepers.get(&part).map_or(0, Keeper::restarts)
    }

    async fn wait_for_end(&self, part: Part) -> Result<ExitStatus> {
        let began = Instant::now();
        loop {
            {
                let mut kept = self.kept();
                let (keeper, leash) = kept.keeper(part)?;
                if let Some(status) = keeper.ended(leash)? {
                    return Ok(status);
                }
            }
            ensure!(
                began.elapsed() < STOP_PATIENCE,
                "{part} does not end: {}",
                self.last_words(part)
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks everything to end, in order: services, their sidecars, then what they stand on. Fails at a service that
    /// did not end well.
    pub async fn stop(&self) -> Result<()> {
        for wave in waves(&self.parts()) {
            for part in &wave {
                self.kept().keeper(*part)?.0.ask_to_end()?;
            }
            for part in wave {
                let status = self.wait_for_end(part).await?;
                ensure!(
                    status.success() || !part.is_service(),
                    "{part} stopped with {status}: {}",
                    self.last_words(part)
                );
            }
        }
        Ok(())
    }

    /// Where the API is: `http://HOST:PORT`, of the first copy.
    pub fn api_base(&self) -> String {
        self.base(Role::Api, 0)
    }

    /// Where a service is: `http://HOST:PORT`.
    pub fn base(&self, role: Role, copy: usize) -> String {
        let port = self.site.main_port(Part::Service(role, copy));
        format!("http://127.0.0.1:{port}")
    }

    /// Where a sidecar's API is: `http://HOST:PORT`.
    pub fn sidecar_base(&self, role: Role, copy: usize) -> String {
        let port = self.site.main_port(Part::Sidecar(role, copy));
        format!("http://127.0.0.1:{port}")
    }

    /// What this service and its sidecar show each other as `dapr-api-token`.
    pub fn sidecar_token(&self, role: Role) -> &str {
        self.site.token(role)
    }

    /// Where the database is.
    pub fn database_url(&self) -> Result<String> {
        self.site.database_url()
    }

    /// Where Kafka is: `HOST:PORT`.
    pub fn brokers(&self) -> String {
        self.site.brokers()
    }

    /// The folder of the logs.
    pub fn logs(&self) -> PathBuf {
        self.site.logs()
    }

    /// What a part has written since the stack began.
    pub fn log(&self, part: Part) -> String {
        fs::read_to_string(self.site.log(part)).unwrap_or_default()
    }

    fn last_words(&self, part: Part) -> String {
        last_lines(&self.log(part))
    }

    /// A client of the API's first copy for this user.
    pub async fn client(&self, scene: &Scene, user: &str) -> Result<Client> {
        debug_assert_eq!(scene.data_dir(), self.scene_data, "a scene has one stack");
        scene.client(&self.api_base(), user).await
    }

    /// The metrics of a service, in Prometheus' text format.
    pub async fn metrics(&self, role: Role, copy: usize) -> Result<String> {
        let answer = HTTP.get(format!("{}/metrics", self.base(role, copy))).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// Runs a program of Kafka's, by its class, with `--bootstrap-server` before the arguments, and returns what it
    /// wrote: `org.apache.kafka.tools.TopicCommand`, `…tools.consumer.group.ConsumerGroupCommand`,
    /// `…tools.ConsoleProducer` (which reads `input`). Each takes a second or two.
    pub async fn kafka_tool(&self, main: &str, arguments: &[&str], input: &str) -> Result<String> {
        let brokers = self.brokers();
        let mut all = vec!["--bootstrap-server", &brokers];
        all.extend(arguments);
        kafka::tool(&self.site.programs().kafka, main, &all, input).await
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.tending.abort();
        let mut kept = self.kept();
        let Kept { keepers, leash } = &mut *kept;
        for keeper in keepers.values_mut() {
            keeper.destroy(leash);
        }
    }
}

async fn tend(kept: Arc<Mutex<Kept>>) {
    loop {
        tokio::time::sleep(POLL).await;
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { keepers, leash } = &mut *kept;
        for (part, keeper) in keepers {
            if let Err(error) = keeper.tend(leash) {
                eprintln!("{part}: {error:#}");
            }
        }
    }
}

/// The order of an orderly end: a service before its sidecar, which it needs to drain; both before what they stand on.
fn waves(parts: &[Part]) -> [Vec<Part>; 3] {
    let those = |wanted: fn(&Part) -> bool| parts.iter().copied().filter(wanted).collect();
    [
        those(|part| matches!(part, Part::Service(..))),
        those(|part| matches!(part, Part::Sidecar(..))),
        those(|part| !matches!(part, Part::Service(..) | Part::Sidecar(..))),
    ]
}

pub(crate) fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

/// The command lines of the processes that work in this folder or below it: what a stack there has left behind.
pub fn left_behind(folder: &Path) -> Vec<String> {
    let Ok(folder) = folder.canonicalize() else {
        return vec![];
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|process| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder)))
        .filter_map(|process| fs::read_to_string(process.join("cmdline")).ok())
        .map(|line| line.replace('\0', " "))
        .collect()
}
