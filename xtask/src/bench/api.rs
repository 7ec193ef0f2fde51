//! Creating tasks over HTTP, beside pgbench doing the two inserts of it, in turns on one database.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Bench;
use super::figure::{Figure, Target, median};
use super::process::{Process, output, wait_for};
use super::server::{Database, Load, Server};
use super::start::is_ready;
use crate::workspace;

const CONNECTIONS: u16 = 32;
/// How many users create tasks: with 100 requests a second each, far more than one machine can do.
const USERS: usize = 256;
const ROUNDS: u64 = 4;
const ROUND: Duration = Duration::from_secs(8);
const SECRET: &str = "a secret for measuring only, of no worth";

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    require_wrk()?;
    let server = Server::start(&bench.todo, &bench.data_dir("api"))?;
    let database = server.database("api")?;
    let api = Api::start(bench, &database)?;
    let tokens = bench.file("tokens", &tokens(&bench.todo)?)?;
    let lua = bench.file("create_task.lua", include_str!("create_task.lua"))?;

    // A task of each user, which also fills every cache.
    load(&api, &lua, &tokens, ROUND)?;
    let sql = include_str!("create_task.sql").replace("EVENT_DATA", &data_of_a_task(&database)?);
    let sql = bench.file("create_task.sql", &sql)?;

    let mut limits = Vec::new();
    let mut loads = Vec::new();
    for round in 0..=ROUNDS {
        let clients = Load::Clients {
            clients: CONNECTIONS,
            time: ROUND,
        };
        let limit = database.pgbench(&sql, clients, &[("count", round << 32)])?;
        let load = load(&api, &lua, &tokens, ROUND)?;
        eprintln!("  {:.0} by pgbench, {:.0} over HTTP", limit.per_second, load.per_second);
        // The first round only warms up.
        if round > 0 {
            limits.push(limit);
            loads.push(load);
        }
    }
    let memory = api.process.memory()?;

    let medians = |value: fn(&Http) -> f64| median(&loads.iter().map(value).collect::<Vec<_>>());
    let limit: Vec<f64> = limits.iter().map(|limit| limit.per_second).collect();
    let limit_average: Vec<f64> = limits.iter().map(|limit| limit.average_ms).collect();
    Ok(vec![
        Figure::new("tasks_per_second", medians(|load| load.per_second))
            .beside(median(&limit))
            .with_target(Target::OfLimit(0.5)),
        Figure::new("p50_ms", medians(|load| load.p50_ms)).beside(median(&limit_average)),
        Figure::new("p99_ms", medians(|load| load.p99_ms)),
        Figure::new("memory_peak_mib", memory.peak),
    ])
}

/// `todo api` over a database.
struct Api {
    address: String,
    process: Process,
}

impl Api {
    fn start(bench: &Bench, database: &Database) -> Result<Self> {
        let address = free_address()?;
        let process = Process::start(
            Command::new(&bench.todo)
                .args(["api", "--listen", &address, "--token-secret", SECRET])
                .args(["--database-connections", &CONNECTIONS.to_string()])
                .args(["--database-url", &database.url]),
        )?;
        wait_for("a ready API", Duration::from_millis(20), || {
            Ok(is_ready(&address).then_some(()))
        })?;
        Ok(Self { address, process })
    }
}

/// An address on this machine whose port is free now.
pub(super) fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free TCP port")?;
    Ok(listener.local_addr()?.to_string())
}

/// A token of each user, one a line.
fn tokens(todo: &Path) -> Result<String> {
    let mut tokens = String::new();
    for user in 0..USERS {
        let user = format!("bench-{user}");
        tokens += &output(Command::new(todo).args(["token", "--secret", SECRET, "--user", &user]))?;
    }
    Ok(tokens)
}

/// What the API puts in the event of a new task, with `TASK_ID` in place of the task's id, as an escape string: pgbench
/// takes what follows a colon for the name of a variable.
fn data_of_a_task(database: &Database) -> Result<String> {
    let data = database.ask("SELECT replace(data::text, subject::text, 'TASK_ID') FROM outbox LIMIT 1;\n")?;
    if data.is_empty() {
        bail!("the API has created no task");
    }
    Ok(escaped(&data))
}

/// The inside of PostgreSQL's E'…' for this text, without any colon.
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('\'', r"\'").replace(':', r"\x3a")
}

/// What wrk has measured.
struct Http {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Http {
    /// Reads the line that the script prints at its end.
    fn read(said: &str) -> Result<Self> {
        let line = said.lines().find_map(|line| line.strip_prefix("result "));
        let numbers: Option<Vec<f64>> = line.and_then(|line| {
            let numbers = line.split_whitespace().map(|number| number.parse().ok());
            numbers.collect()
        });
        let Some(&[requests, microseconds, failures, p50, p99]) = numbers.as_deref() else {
            bail!("wrk says something else than its script: {said}");
        };
        if failures > 0.0 {
            bail!("{failures} of {requests} requests failed");
        }
        Ok(Self {
            per_second: requests / microseconds * 1e6,
            p50_ms: p50 / 1e3,
            p99_ms: p99 / 1e3,
        })
    }
}

fn load(api: &Api, script: &Path, tokens: &Path, time: Duration) -> Result<Http> {
    let mut wrk = Command::new("wrk");
    wrk.args(["--threads", "2", "--connections", &CONNECTIONS.to_string()])
        // Slow is what is measured, and not a failure.
        .args(["--timeout", "60s"])
        .args(["--duration", &format!("{}s", time.as_secs()), "--script"])
        .arg(script)
        .arg(format!("http://{}", api.address))
        .arg("--")
        .arg(tokens);
    Http::read(&output(&mut wrk)?)
}

/// The HTTP client that is used here, because it takes little of the machine that it measures.
fn require_wrk() -> Result<()> {
    // It has no option that only says its version: this one prints that and fails.
    let is_there = || Command::new("wrk").arg("--version").output().is_ok();
    if is_there() {
        return Ok(());
    }
    eprintln!("installing wrk");
    let installed = workspace::status(
        Command::new("apt-get")
            .args(["install", "--yes", "--quiet", "wrk"])
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    if !installed.is_ok_and(|status| status.success()) || !is_there() {
        bail!("wrk, the HTTP client, is not on this machine: as root, apt-get install wrk");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_a_script_has_no_colon_and_ends_nowhere_but_at_its_end() {
        assert_eq!(escaped(r#"{"a": "o'clock\n"}"#), r#"{"a"\x3a "o\'clock\\n"}"#);
    }

    #[test]
    fn what_wrk_measures_is_read_and_a_failed_request_is_no_measurement() {
        let read = Http::read("Running 8s test\nresult 16000 8000000 0 9870 31000\n").unwrap();
        assert!((read.per_second - 2000.0).abs() < 1e-9 && (read.p50_ms - 9.87).abs() < 1e-9);
        assert!(Http::read("result 16000 8000000 3 9870 31000\n").is_err());
        assert!(Http::read("unable to connect\n").is_err());
    }
}
