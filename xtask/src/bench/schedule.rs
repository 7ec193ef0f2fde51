//! Many schedules due at the same instant, as at midnight: from the commit that makes them due to the last one's task.
//!
//! The worker is idle before and is woken as another process wakes it, by a notification. The limit is the same rows
//! written by PostgreSQL itself, in batches of the same size.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Bench;
use super::figure::{Figure, Target, milliseconds};
use super::process::{Process, let_it_idle};
use super::progress::Progress;
use super::server::{Database, Load, Server};

const SCHEDULES: u64 = 10_000;
const BATCH: u64 = 1_000;

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
    let database = server.database("schedule")?;
    database.run(MAKE)?;
    let limit = limit(bench, &server.copy("schedule", "schedule_limit")?)?;

    database.settle()?;
    let mut session = database.session()?;
    let worker = Process::start(
        Command::new(&bench.todo)
            .args(["worker", "recurring", "--database-url"])
            .arg(&database.url),
    )?;
    let_it_idle();
    session.row(&format!("{COME_DUE}SELECT 1"))?;
    let made = Progress::watch(Instant::now(), SCHEDULES, Duration::from_millis(10), || {
        let done = session.row(
            "SELECT CASE WHEN EXISTS (SELECT FROM schedules WHERE next_at <= now() AND deleted_at IS NULL
                AND problem IS NULL AND NOT suspended) THEN least(last_value, 9999) ELSE 10000 END FROM outbox_seq",
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

    Ok(vec![
        Figure::new("all_made_ms", milliseconds(made.end()))
            .beside(milliseconds(limit))
            .with_target(Target::Under(2000.0)),
        Figure::new("p50_ms", milliseconds(made.done_at(0.5))),
        Figure::new("p99_ms", milliseconds(made.done_at(0.99))),
        Figure::new("tasks_per_second", made.rate()),
        Figure::new("memory_peak_mib", memory.peak),
    ])
}

fn limit(bench: &Bench, database: &Database) -> Result<Duration> {
    database.run(COME_DUE)?;
    database.settle()?;
    let script = bench.file("make_due.sql", include_str!("make_due.sql"))?;
    let batches = u32::try_from(SCHEDULES / BATCH)?;
    let written = database.pgbench(&script, Load::Transactions(batches), &[])?;
    Ok(Duration::from_secs_f64(written.average_ms / 1e3) * batches)
}
