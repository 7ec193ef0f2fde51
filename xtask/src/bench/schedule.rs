//! Many schedules due at the same instant, as at midnight: from the commit that makes them due to the last one's task.
//!
//! The worker is idle before and is woken as another process wakes it, by a notification. The limit is the same rows
//! written by PostgreSQL itself, in batches of the same size. In turns, and medians of them.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Bench;
use super::figure::{Figure, Target, median, milliseconds};
use super::process::{Memory, Process, let_it_idle};
use super::progress::Progress;
use super::server::{Database, Load, Server};

const SCHEDULES: u64 = 10_000;
const BATCH: u64 = 1_000;
const ROUNDS: u32 = 5;

/// What each makes is a task with a due date, a tag and a reminder.
const MAKE: &str = r#"
INSERT INTO schedules (id, user_id, name, rule, template, anchor_at, cursor_at, next_at)
SELECT
    bench.uuid_v7(), 'user-' || n % 1000, 'review-' || n, '{"cron": "0 * * * *", "time_zone": "Europe/Berlin"}',
    '{
        "title": "Weekly review {{date}}", "priority": "high", "tags": ["review"], "due_in": "8h",
        "reminders": [{"before": "30m"}]
    }',
    now() - interval '1 day', date_trunc('hour', now()), date_trunc('hour', now()) + interval '1 year'
FROM generate_series(1, 10000) AS n;
"#;

/// Due is the hour that began last.
const COME_DUE: &str = "
BEGIN;
UPDATE schedules
SET cursor_at = date_trunc('hour', now()) - interval '1 minute',
    next_at = date_trunc('hour', now());
NOTIFY todo_schedules, 'bench';
COMMIT;
";

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let server = Server::start(&bench.todo, &bench.data_dir("schedule"))?;
    server.database("schedule")?.run(MAKE)?;
    let mut limits = Vec::new();
    let mut all = Vec::new();
    let mut halves = Vec::new();
    let mut nearly_all = Vec::new();
    let mut peaks = Vec::new();
    for round in 1..=ROUNDS {
        let limit = limit(bench, &server.copy("schedule", &format!("limit_{round}"))?)?;
        let (made, memory) = make(bench, &server.copy("schedule", &format!("made_{round}"))?)?;
        eprintln!(
            "  {:.0} ms, limit {:.0} ms",
            milliseconds(made.end()),
            milliseconds(limit)
        );
        limits.push(milliseconds(limit));
        all.push(milliseconds(made.end()));
        halves.push(milliseconds(made.done_at(0.5)));
        nearly_all.push(milliseconds(made.done_at(0.99)));
        peaks.push(memory.peak);
    }
    let all = median(&all);
    Ok(vec![
        Figure::new("all_made_ms", all)
            .beside(median(&limits))
            .with_target(Target::Under(2000.0)),
        Figure::new("p50_ms", median(&halves)),
        Figure::new("p99_ms", median(&nearly_all)),
        Figure::new("tasks_per_second", 1e7 / all),
        Figure::new("memory_peak_mib", median(&peaks)),
    ])
}

/// Lets an idle worker make the tasks.
fn make(bench: &Bench, database: &Database) -> Result<(Progress, Memory)> {
    database.settle()?;
    let mut session = database.session()?;
    let worker = Process::start(
        Command::new(&bench.todo)
            .args(["worker", "recurring", "--listen", "127.0.0.1:0", "--database-url"])
            .arg(&database.url),
    )?;
    let_it_idle();
    session.row(&format!("{COME_DUE}SELECT 1"))?;
    let made = Progress::watch(Instant::now(), SCHEDULES, Duration::from_millis(10), || {
        let done = session.row(
            // The number of events is cheap to ask for, and runs ahead of the commit by one batch.
            "SELECT CASE
                WHEN last_value < 10000 THEN last_value
                WHEN EXISTS (SELECT FROM schedules WHERE next_at <= now()) THEN 9999
                ELSE 10000
            END FROM outbox_seq",
        )?;
        Ok(done.parse()?)
    })?;
    let memory = worker.memory()?;
    worker.stop()?;
    let rows = session.row("SELECT (SELECT count(*) FROM tasks), count(*) FROM occurrences")?;
    ensure!(
        rows == "10000|10000",
        "there are {rows} tasks and occurrences, not 10000 of each"
    );
    Ok((made, memory))
}

fn limit(bench: &Bench, database: &Database) -> Result<Duration> {
    database.run(COME_DUE)?;
    database.settle()?;
    let script = bench.file("make_due.sql", include_str!("make_due.sql"))?;
    let batches = u32::try_from(SCHEDULES / BATCH)?;
    let written = database.pgbench(&script, Load::Transactions(batches), &[])?;
    Ok(Duration::from_secs_f64(written.average_ms / 1e3) * batches)
}
