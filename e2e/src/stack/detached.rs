//! A stack for a developer: started and left running, looked at, stopped again (`cargo xtask stack`).
//!
//! What runs is in `DATA/stack/state.json`: each part's process id with the instant at which that process began, so that
//! an id which the system has given to another process since is never taken for ours; and the ports and tokens, which
//! stay. Starting starts what does not run and leaves the rest alone. Nothing watches over the parts: what ends by
//! itself is down until the next start.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, Uid};
use serde_json::{Map, Value, json};
use todo_test_tools::{Ports, is_free};

use super::launch::{Launch, Owner, own_file};
use super::site::{Programs, Site};
use super::{Options, POLL, START_PATIENCE, STOP_PATIENCE, kafka, last_lines, waves};
use super::{Part, Role, site};
use crate::process::{postgres_processes, postmaster};

/// Where the API listens unless told otherwise: where `todo up` does, so that what worked with it works unchanged.
pub const API_PORT: u16 = 8080;

/// The folder in which `todo up` without `--data-dir` keeps the platform `home`.
pub fn default_data_dir() -> Result<PathBuf> {
    let parent = if Uid::effective().is_root() {
        PathBuf::from("/var/lib")
    } else {
        let absolute = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        absolute("XDG_DATA_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".local/share")))
            .context("neither HOME nor XDG_DATA_HOME is set: name a folder with --data-dir")?
    };
    Ok(parent.join("todo-platform/home"))
}

/// A process that has a number, and that no other process with that number is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) process: i32,
    /// The machine's boot, and when in it the process began.
    pub(crate) began: String,
}

/// What is remembered between calls.
#[derive(Debug, Default)]
struct State {
    ports: BTreeMap<String, u16>,
    tokens: BTreeMap<String, String>,
    processes: BTreeMap<String, Known>,
}

/// A stack's folder, locked against other calls.
struct Place {
    data: PathBuf,
    state: State,
    _lock: File,
}

/// Starts what does not run, and waits until everything serves. Progress goes to standard error.
///
/// The API listens on `port` of 127.0.0.1; one that runs already stays where it is.
pub async fn up(data: &Path, todo: &Path, port: u16) -> Result<()> {
    let began = Instant::now();
    let mut place = Place::enter(data)?;
    let options = Options {
        detached: true,
        ..Options::default()
    }
    .set_for(Role::Api, "TODO_STATE_STORE", "statestore");
    let site = place.site(todo, options, port)?;
    let parts = site.options.parts();
    place.end_outdated(&parts).await?;
    let (first, rest): (Vec<Part>, Vec<Part>) = parts
        .iter()
        .partition(|part| !matches!(part, Part::Service(..) | Part::Sidecar(..)));

    kafka::format(
        &site.programs().kafka,
        &site.path("kafka"),
        &site.path("kafka.properties"),
    )
    .await?;
    place.start(&site, &first).await?;
    migrate(todo, &site.database_url()?).await?;
    place.start(&site, &rest).await?;

    let address = format!("http://127.0.0.1:{}", site.main_port(Part::Service(Role::Api, 0)));
    println!(
        "the stack is ready at {address} after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    println!("data: {}", site.data().display());
    println!("docs: {address}/docs");
    println!("logs: {}", site.logs().display());
    println!("It runs without a manifest: schedules are what the API and earlier runs made.");
    println!(
        "A token: {} token --user alice --data-dir {}",
        todo.display(),
        site.data().display()
    );
    Ok(())
}

/// Stops everything: services first, the database last.
pub async fn down(data: &Path) -> Result<()> {
    if !data.join("stack/state.json").exists() {
        println!("no stack has run in {}", data.display());
        return Ok(());
    }
    let mut place = Place::enter(data)?;
    for wave in waves(&every_part()) {
        place.end(&wave).await?;
    }
    place.end_orphaned_server().await?;
    println!("the stack is down; its data stays in {}", place.data.display());
    Ok(())
}

/// Prints what runs. Whether all of it is ready.
pub async fn status(data: &Path) -> Result<bool> {
    if !data.join("stack/state.json").exists() {
        println!("no stack has run in {}", data.display());
        return Ok(false);
    }
    let place = Place::enter(data)?;
    let ports = &place.state.ports;
    let folder = data.join("stack");
    println!("{:<18} {:>8} {:>6}  {:<9}  log", "part", "process", "port", "state");
    let mut all_ready = true;
    for part in every_part() {
        let process = place.alive(part);
        let state = match (process, site::probe(part, ports, &folder)) {
            (Some(_), Some(probe)) if probe.answers().await => "ready",
            (Some(_), _) => "not ready",
            (None, _) => "down",
        };
        all_ready &= state == "ready";
        println!(
            "{part:<18} {:>8} {:>6}  {state:<9}  {}",
            process.map_or_else(|| "-".to_owned(), |process| process.to_string()),
            site::main_port(part, ports).map_or_else(|| "-".to_owned(), |port| port.to_string()),
            folder.join("logs").join(format!("{part}.log")).display(),
        );
    }
    Ok(all_ready)
}

/// What a developer's stack consists of.
fn every_part() -> Vec<Part> {
    Options::default().parts()
}

impl Place {
    fn enter(data: &Path) -> Result<Self> {
        let folder = data.join("stack");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let lock =
            File::create(folder.join("lock")).with_context(|| format!("cannot write to {}", folder.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another call is at work on the stack in {}", data.display()),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        Ok(Self {
            data: data.to_owned(),
            state: State::load(&folder.join("state.json"))?,
            _lock: lock,
        })
    }

    /// The site with the ports of the last time, where nobody has taken them since.
    fn site(&mut self, todo: &Path, options: Options, port: u16) -> Result<Site> {
        let api = Part::Service(Role::Api, 0);
        let mut ports = self.state.ports.clone();
        if options.parts().iter().all(|part| self.alive(*part).is_none()) {
            ports.retain(|_, port| is_free(*port));
        }
        if self.alive(api).is_none() {
            ensure!(
                is_free(port),
                "127.0.0.1:{port} is in use: stop what listens there, such as a `cargo xtask up`"
            );
            ports.insert(format!("{api}.http"), port);
        }
        let programs = Programs::ready(todo, &options)?;
        let site = Site::new(&self.data, programs, options, Ports(ports), self.state.tokens.clone())?;
        self.state.ports.clone_from(site.ports());
        self.state.tokens.clone_from(site.tokens());
        self.save()?;
        Ok(site)
    }

    fn save(&self) -> Result<()> {
        self.state.save(&self.data.join("stack/state.json"))
    }

    /// The process of a part, when it runs.
    fn alive(&self, part: Part) -> Option<i32> {
        let known = self.state.processes.get(&part.to_string())?;
        (Known::of(known.process).as_ref() == Some(known)).then_some(known.process)
    }

    /// Ends the services whose binary was built anew since they began.
    async fn end_outdated(&mut self, parts: &[Part]) -> Result<()> {
        let outdated: Vec<Part> = parts
            .iter()
            .copied()
            .filter(|part| part.is_service() && self.alive(*part).is_some_and(is_outdated))
            .collect();
        if !outdated.is_empty() {
            eprintln!("todo was built anew: its services are started anew");
        }
        self.end(&outdated).await
    }

    /// Starts those that do not run, and waits until all of them serve.
    async fn start(&mut self, site: &Site, parts: &[Part]) -> Result<()> {
        let mut launches: Vec<(Part, Launch)> = Vec::with_capacity(parts.len());
        for &part in parts {
            let launch = site.launch(part)?;
            if self.alive(part).is_none() {
                eprintln!("starting {part}");
                let child = launch.spawn(Owner::Nobody)?;
                let known = Known::of(child.id().cast_signed());
                let known = known.with_context(|| format!("{part} ended as it began: {}", words_of(&launch)))?;
                self.state.processes.insert(part.to_string(), known);
                self.save()?;
            }
            launches.push((part, launch));
        }
        for (part, launch) in launches {
            self.wait_ready(part, &launch).await?;
        }
        Ok(())
    }

    async fn wait_ready(&self, part: Part, launch: &Launch) -> Result<()> {
        let began = Instant::now();
        while !launch.probe.answers().await {
            ensure!(
                self.alive(part).is_some(),
                "{part} has ended; it said, in {}:\n{}",
                launch.log.display(),
                words_of(launch)
            );
            ensure!(
                began.elapsed() < START_PATIENCE,
                "{part} is not ready within {START_PATIENCE:?}; it says, in {}:\n{}",
                launch.log.display(),
                words_of(launch)
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Asks these to end, all at once, and waits; those that do not are killed.
    async fn end(&mut self, parts: &[Part]) -> Result<()> {
        let running: Vec<(Part, Pid)> = parts
            .iter()
            .filter_map(|part| Some((*part, Pid::from_raw(self.alive(*part)?))))
            .collect();
        for (part, process) in &running {
            eprintln!("stopping {part}");
            let _may_be_gone = kill(*process, Signal::SIGTERM);
        }
        let began = Instant::now();
        for (part, process) in running {
            while self.alive(part).is_some() {
                if began.elapsed() >= STOP_PATIENCE {
                    eprintln!("{part} does not end: killing it");
                    let _may_be_gone = killpg(process, Signal::SIGKILL);
                }
                tokio::time::sleep(POLL).await;
            }
            self.state.processes.remove(&part.to_string());
            self.save()?;
        }
        Ok(())
    }

    /// Stops a PostgreSQL whose `todo postgres` was killed. One that a `todo up` runs there now has an owner.
    async fn end_orphaned_server(&self) -> Result<()> {
        let Ok(server) = postmaster(&self.data) else {
            return Ok(());
        };
        let is_owned = File::open(self.data.join("lock")).is_ok_and(|lock| lock.try_lock().is_err());
        if is_owned || !postgres_processes(&self.data).contains(&server) {
            return Ok(());
        }
        eprintln!("stopping the PostgreSQL of a todo that was killed");
        kill(server, Signal::SIGINT)?;
        let began = Instant::now();
        while !postgres_processes(&self.data).is_empty() {
            ensure!(
                began.elapsed() < STOP_PATIENCE,
                "PostgreSQL (process {server}) does not end"
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

fn words_of(launch: &Launch) -> String {
    last_lines(&fs::read_to_string(&launch.log).unwrap_or_default())
}

/// Whether the file that the process runs is not there any more.
fn is_outdated(process: i32) -> bool {
    fs::read_link(format!("/proc/{process}/exe")).is_ok_and(|program| program.to_string_lossy().ends_with(" (deleted)"))
}

async fn migrate(todo: &Path, url: &str) -> Result<()> {
    let mut command = tokio::process::Command::from(Command::new(todo));
    command.arg("migrate").env("DATABASE_URL", url);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().await.context("cannot run todo migrate")?;
    ensure!(status.success(), "the database cannot be migrated ({status})");
    Ok(())
}

impl Known {
    /// The process with this number; `None` when there is none, or only what is left of one that nobody waited for.
    pub(crate) fn of(process: i32) -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let began = began(&stat)?;
        Some(Self {
            process,
            began: format!("{}/{began}", boot.trim()),
        })
    }
}

/// When the process began, in ticks since the boot (`proc_pid_stat(5)`, field 22), unless it is a zombie.
fn began(stat: &str) -> Option<u64> {
    // The second field is the program's name in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl State {
    fn load(path: &Path) -> Result<Self> {
        let Ok(text) = fs::read_to_string(path) else {
            return Ok(Self::default());
        };
        let state: Value = serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
        let entries = |name: &str| state[name].as_object().cloned().unwrap_or_default();
        let ports = entries("ports");
        let tokens = entries("tokens");
        let processes = entries("processes");
        Ok(Self {
            ports: known(&ports, |port| u16::try_from(port.as_u64()?).ok()),
            tokens: known(&tokens, |token| Some(token.as_str()?.to_owned())),
            processes: known(&processes, |entry| {
                Some(Known {
                    process: i32::try_from(entry["process"].as_i64()?).ok()?,
                    began: entry["began"].as_str()?.to_owned(),
                })
            }),
        })
    }

    /// Written aside and renamed: a call that is killed leaves the old state or the new one.
    fn save(&self, path: &Path) -> Result<()> {
        let processes: Map<String, Value> = self
            .processes
            .iter()
            .map(|(part, known)| (part.clone(), json!({"process": known.process, "began": known.began})))
            .collect();
        let state = json!({"ports": self.ports, "tokens": self.tokens, "processes": processes});
        let draft = path.with_extension("draft");
        own_file(&draft)?.write_all(format!("{state:#}\n").as_bytes())?;
        Ok(fs::rename(&draft, path)?)
    }
}

fn known<T>(entries: &Map<String, Value>, read: impl Fn(&Value) -> Option<T>) -> BTreeMap<String, T> {
    let pairs = entries
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), read(value)?)));
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_process_is_known_by_when_it_began() -> Result<()> {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 2000";
        assert_eq!(began(stat), Some(987_654));
        assert_eq!(began(&stat.replace(") S ", ") Z ")), None);

        let mut child = Command::new("sleep").arg("600").spawn()?;
        let process = child.id().cast_signed();
        let known = Known::of(process).context("it runs")?;
        assert_eq!(Known::of(process), Some(known));
        child.kill()?;
        // A zombie until it is waited for.
        while fs::read_to_string(format!("/proc/{process}/stat"))?.contains(") R")
            || fs::read_to_string(format!("/proc/{process}/stat"))?.contains(") S")
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(Known::of(process), None);
        child.wait()?;
        Ok(())
    }

    #[test]
    fn the_state_is_what_was_saved() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("state.json");
        let mut state = State::default();
        state.ports.insert("kafka.broker".to_owned(), 29_092);
        state.tokens.insert("todo-api".to_owned(), "a token".to_owned());
        let known = Known {
            process: 42,
            began: "boot/1".to_owned(),
        };
        state.processes.insert("kafka".to_owned(), known.clone());
        state.save(&path)?;
        let loaded = State::load(&path)?;
        assert_eq!(loaded.ports, state.ports);
        assert_eq!(loaded.tokens, state.tokens);
        assert_eq!(loaded.processes["kafka"], known);
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        Ok(())
    }
}
