//! Many reminders due at the same instant: from the commit that makes them due to the last one recorded as sent, with
//! its event and its row in the user's feed.
//!
//! Twice: due now, and as after two hours of downtime, when they are paced and gathered in digests. The limit is the
//! rows of the first, written by PostgreSQL itself in batches of the same size.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Bench;
use super::figure::{Figure, Target, milliseconds};
use super::process::{Memory, Process, let_it_idle};
use super::progress::Progress;
use super::server::{Database, Load, Server};

const REMINDERS: u64 = 100_000;
const BATCH: u64 = 1_000;

const MAKE: &str = "
CALL bench.make_tasks(100000);
INSERT INTO reminders (id, user_id, task_id, before_seconds, fire_at)
SELECT bench.uuid_v7(), user_id, id, 3600, due_at - interval '1 hour'
FROM tasks;
";

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let server = Server::start(&bench.todo, &bench.data_dir("reminders"))?;
    let on_time = server.database("reminders")?;
    on_time.run(MAKE)?;
    let late = server.copy("reminders", "reminders_late")?;
    let limit = limit(bench, &server.copy("reminders", "reminders_limit")?)?;

    let (sent, memory) = send(bench, &on_time, "now()")?;
    let (sent_late, memory_late) = send(bench, &late, "now() - interval '2 hours'")?;
    Ok(vec![
        Figure::new("on_time_s", sent.end().as_secs_f64())
            .beside(limit.as_secs_f64())
            .with_target(Target::Under(20.0)),
        Figure::new("on_time_p50_ms", milliseconds(sent.done_at(0.5))),
        Figure::new("on_time_p99_ms", milliseconds(sent.done_at(0.99))),
        Figure::new("on_time_per_second", sent.rate()),
        Figure::new("on_time_memory_peak_mib", memory.peak),
        Figure::new("late_s", sent_late.end().as_secs_f64())
            .beside(limit.as_secs_f64())
            .with_target(Target::Under(20.0)),
        Figure::new("late_p50_ms", milliseconds(sent_late.done_at(0.5))),
        Figure::new("late_p99_ms", milliseconds(sent_late.done_at(0.99))),
        Figure::new("late_per_second", sent_late.rate()),
        Figure::new("late_memory_peak_mib", memory_late.peak),
    ])
}

/// Makes all reminders due at an instant while an idle worker is there.
fn come_due(at: &str) -> String {
    format!("BEGIN;\nUPDATE reminders SET fire_at = {at};\nNOTIFY todo_reminders, 'bench';\nCOMMIT;\n")
}

fn send(bench: &Bench, database: &Database, due: &str) -> Result<(Progress, Memory)> {
    database.settle()?;
    let mut session = database.session()?;
    let worker = Process::start(
        Command::new(&bench.todo)
            .args(["worker", "reminders", "--listen", "127.0.0.1:0", "--database-url"])
            .arg(&database.url),
    )?;
    let_it_idle();
    session.row(&format!("{}SELECT 1", come_due(due)))?;
    let sent = Progress::watch(Instant::now(), REMINDERS, Duration::from_millis(25), || {
        let done = session.row(
            // The number of events is cheap to ask for, and runs ahead of the commit by one batch.
            "SELECT CASE
                WHEN last_value < 100000 THEN last_value
                WHEN EXISTS (SELECT FROM reminders WHERE fire_at <= now() AND sent_at IS NULL) THEN 99999
                ELSE 100000
            END FROM outbox_seq",
        )?;
        Ok(done.parse()?)
    })?;
    let memory = worker.memory()?;
    worker.stop()?;
    let rows =
        session.row("SELECT (SELECT count(*) FROM outbox), count(*) FROM notifications WHERE kind = 'reminder'")?;
    ensure!(
        rows == "100000|100000",
        "there are {rows} events and notifications, not 100000 of each"
    );
    Ok((sent, memory))
}

fn limit(bench: &Bench, database: &Database) -> Result<Duration> {
    database.run(&come_due("now()"))?;
    database.settle()?;
    let script = bench.file("send_reminders.sql", include_str!("send_reminders.sql"))?;
    let batches = u32::try_from(REMINDERS / BATCH)?;
    let written = database.pgbench(&script, Load::Transactions(batches), &[])?;
    Ok(Duration::from_secs_f64(written.average_ms / 1e3) * batches)
}
