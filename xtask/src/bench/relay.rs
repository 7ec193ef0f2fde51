//! Events from a full outbox to one consumer, the audit log: from the first look at the outbox until the consumer's
//! place in it is behind the last one.
//!
//! Twice, with few waiting and with many: an event must not cost more because others wait. The limit is the consumer's
//! rows, written by PostgreSQL itself in batches of the same size.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Bench;
use super::figure::{Figure, Target, milliseconds};
use super::process::{Memory, Process, wait_for};
use super::progress::Progress;
use super::server::{Database, Load, Server};

const FEW: u64 = 10_000;
const MANY: u64 = 200_000;
const BATCH: u64 = 1_000;

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let server = Server::start(&bench.todo, &bench.data_dir("relay"))?;
    let few = server.database("relay_few")?;
    few.run("CALL bench.make_tasks(10000);\n")?;
    let many = server.copy("relay_few", "relay_many")?;
    few.run(&format!("CALL bench.make_events({FEW});\n"))?;
    many.run(&format!("CALL bench.make_events({MANY});\n"))?;
    let limit = limit(bench, &server.copy("relay_many", "relay_limit")?)?;

    let (relayed_few, _) = relay(bench, &few, FEW)?;
    let (relayed, memory) = relay(bench, &many, MANY)?;
    Ok(vec![
        Figure::new("events_per_second", relayed.rate())
            .beside(limit)
            .with_target(Target::AtLeast(10_000.0)),
        Figure::new("p50_ms", milliseconds(relayed.done_at(0.5))),
        Figure::new("p99_ms", milliseconds(relayed.done_at(0.99))),
        Figure::new("event_us_of_10000", 1e6 / relayed_few.rate()),
        Figure::new("event_us_of_200000", 1e6 / relayed.rate()),
        Figure::new("memory_peak_mib", memory.peak),
    ])
}

fn relay(bench: &Bench, database: &Database, events: u64) -> Result<(Progress, Memory)> {
    database.settle()?;
    let mut session = database.session()?;
    let worker = Process::start(
        Command::new(&bench.todo)
            .args(["worker", "relay", "audit", "--listen", "127.0.0.1:0", "--database-url"])
            .arg(&database.url),
    )?;
    // The first thing that a relay does is to make its place, before the first event.
    let mut place = || session.row("SELECT (SELECT seq FROM relay_cursor WHERE name = 'audit')");
    wait_for("the relay's start", Duration::from_millis(2), || {
        Ok((!place()?.is_empty()).then_some(()))
    })?;
    let relayed = Progress::watch(Instant::now(), events, Duration::from_millis(10), || {
        Ok(place()?.parse()?)
    })?;
    let memory = worker.memory()?;
    worker.stop()?;
    let rows = session.row("SELECT (SELECT count(*) FROM inbox), count(*) FROM audit")?;
    ensure!(
        rows == format!("{events}|{events}"),
        "there are {rows} rows of inbox and audit, not {events} of each"
    );
    Ok((relayed, memory))
}

/// Events per second.
#[allow(clippy::cast_precision_loss, reason = "a batch is far smaller than 2^52")]
fn limit(bench: &Bench, database: &Database) -> Result<f64> {
    database.run("INSERT INTO relay_cursor (name) VALUES ('bench');\n")?;
    database.settle()?;
    let script = bench.file("record_events.sql", include_str!("record_events.sql"))?;
    let written = database.pgbench(&script, Load::Transactions(u32::try_from(MANY / BATCH)?), &[])?;
    Ok(written.per_second * BATCH as f64)
}
