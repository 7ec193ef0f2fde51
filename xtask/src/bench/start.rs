//! `todo up` on existing data: from the start of the process until it says that it is ready, and what memory it takes
//! when nobody asks it for anything. The limit is the start of its PostgreSQL alone.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Bench;
use super::api::free_address;
use super::figure::{Figure, Target, median, milliseconds, percentile};
use super::process::{Process, wait_for};
use super::server::Server;
use crate::workspace;

const ROUNDS: usize = 5;
/// When a process that nobody uses counts as idle.
const IDLE: Duration = Duration::from_secs(20);

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let data_dir = bench.data_dir("start");
    {
        let server = Server::start(&bench.todo, &data_dir)?;
        let database = server.platforms_database()?;
        database.run("CALL bench.make_tasks(100000);\nCALL bench.make_events(100000);\n")?;
        database.settle()?;
    }
    // The first start of all: what it makes, and the events that wait, are not what is measured.
    let (first, _) = up(bench, &data_dir)?;
    std::thread::sleep(IDLE);
    first.stop()?;

    let mut alone = Vec::new();
    let mut ready = Vec::new();
    for _ in 0..ROUNDS {
        let server = Server::start(&bench.todo, &data_dir)?;
        alone.push(milliseconds(server.started_in));
        drop(server);
        let (platform, ready_in) = up(bench, &data_dir)?;
        ready.push(milliseconds(ready_in));
        platform.stop()?;
    }
    let (platform, _) = up(bench, &data_dir)?;
    std::thread::sleep(IDLE);
    let idle = platform.memory()?;
    platform.stop()?;

    Ok(vec![
        Figure::new("ready_p50_ms", median(&ready))
            .beside(median(&alone))
            .with_target(Target::Under(2000.0)),
        Figure::new("ready_p99_ms", percentile(&ready, 0.99)),
        Figure::new("memory_idle_mib", idle.now).with_target(Target::Under(60.0)),
        Figure::new("memory_peak_mib", idle.peak),
    ])
}

/// Starts the platform of the sample manifest; with it comes how long that took.
fn up(bench: &Bench, data_dir: &Path) -> Result<(Process, Duration)> {
    let address = free_address()?;
    let begun = Instant::now();
    let platform = Process::start(
        Command::new(&bench.todo)
            .args(["up", "--listen", &address, "--file"])
            .arg(workspace::root().join("config/samples/platform.yaml"))
            .arg("--data-dir")
            .arg(data_dir)
            .env_remove("DATABASE_URL"),
    )?;
    let ready = wait_for("a ready platform", Duration::from_millis(5), || {
        Ok(is_ready(&address).then(|| begun.elapsed()))
    })?;
    Ok((platform, ready))
}

/// Whether the process that listens there says that it is ready.
pub(super) fn is_ready(address: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        write!(
            stream,
            "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}
