//! What must hold in the database once all is quiet, whatever happened before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{oracle, wait_for};

/// Each promise, and the query that selects what breaks it, as text. None selects anything.
///
/// Reminders do not raise a task's version, so the order of versions is that of the other events.
const PROMISES: [(&str, &str); 20] = [
    (
        "a task's versions are 1 to n, without a gap or a repeat",
        "SELECT subject || ' has the versions ' || array_agg(version ORDER BY version)::text
         FROM outbox
         WHERE event_type <> 'reminder'
         GROUP BY subject
         HAVING min(version) <> 1
             OR max(version) <> count(*)
             OR count(DISTINCT version) <> count(*)",
    ),
    (
        "a task is at the version of its last event",
        "SELECT COALESCE(t.id, e.subject) || ' is at ' || COALESCE(t.version, 0) || ', its events at ' || COALESCE(e.version, 0)
         FROM tasks AS t
         FULL JOIN (
             SELECT subject, max(version) AS version
             FROM outbox
             WHERE event_type <> 'reminder'
             GROUP BY subject
         ) AS e ON e.subject = t.id
         WHERE t.version IS DISTINCT FROM e.version",
    ),
    (
        "a task is deleted when its last event says so, and only then",
        "SELECT t.id || ' ends with ' || e.event_type
         FROM tasks AS t
         JOIN outbox AS e ON e.subject = t.id AND e.version = t.version AND e.event_type <> 'reminder'
         WHERE (t.deleted_at IS NOT NULL) <> (e.event_type = 'deleted')",
    ),
    (
        "commit order is version order",
        "SELECT subject || ' has ' || version || ' after ' || former
         FROM (
             SELECT subject, version, lag(version) OVER (PARTITION BY subject ORDER BY xid, seq) AS former
             FROM outbox
             WHERE event_type <> 'reminder'
         ) AS e
         WHERE version <= former",
    ),
    (
        "an event is there once",
        "SELECT id::text
         FROM outbox
         GROUP BY id
         HAVING count(*) > 1",
    ),
    (
        "the audit log has exactly the events",
        "SELECT COALESCE(o.id, a.event_id)::text || CASE WHEN o.id IS NULL THEN ' is no event' ELSE ' is not recorded' END
         FROM outbox AS o
         FULL JOIN audit AS a ON a.event_id = o.id
         WHERE o.id IS NULL
             OR a.event_id IS NULL",
    ),
    (
        "the audit log says what the events say",
        "SELECT a.event_id::text
         FROM audit AS a
         JOIN outbox AS o ON o.id = a.event_id
         WHERE (a.task_id, a.user_id, a.actor, a.event_type, a.version, a.after, a.occurred_at)
                 IS DISTINCT FROM (o.subject, o.user_id, o.actor, o.event_type, o.version, o.data, o.created_at)
             OR a.before IS DISTINCT FROM o.previous",
    ),
    (
        "the audit log was written in version order",
        "SELECT task_id || ' has ' || version || ' after ' || former
         FROM (
             SELECT task_id, version, lag(version) OVER (PARTITION BY task_id ORDER BY seq) AS former
             FROM audit
             WHERE event_type <> 'reminder'
         ) AS a
         WHERE version <= former",
    ),
    (
        "audit has applied each event once",
        "SELECT COALESCE(o.id, i.event_id)::text
         FROM outbox AS o
         FULL JOIN (SELECT event_id FROM inbox WHERE consumer = 'audit') AS i ON i.event_id = o.id
         WHERE o.id IS NULL
             OR i.event_id IS NULL",
    ),
    (
        "recurring has applied each event of a task once",
        "SELECT COALESCE(o.id, i.event_id)::text
         FROM outbox AS o
         FULL JOIN (SELECT event_id FROM inbox WHERE consumer = 'recurring') AS i ON i.event_id = o.id
         WHERE o.id IS NULL
             OR i.event_id IS NULL",
    ),
    (
        "there are no dead letters",
        "SELECT consumer || ' has ' || event_id || ': ' || error
         FROM dead_letters",
    ),
    (
        "each reminder is told of and is an event, both once for each instant",
        "SELECT COALESCE(n.reminder_id, e.reminder_id) || ' at ' || COALESCE(n.fire_at, e.fire_at)
             || ' has ' || COALESCE(n.count, 0) || ' notifications and ' || COALESCE(e.count, 0) || ' events'
         FROM (
             SELECT reminder_id, scheduled_for AS fire_at, count(*) AS count
             FROM notifications
             WHERE kind = 'reminder'
             GROUP BY reminder_id, scheduled_for
         ) AS n
         FULL JOIN (
             SELECT
                 (data -> 'reminder' ->> 'id')::uuid AS reminder_id,
                 (data -> 'reminder' ->> 'fire_at')::timestamptz AS fire_at,
                 count(*) AS count
             FROM outbox
             WHERE event_type = 'reminder'
             GROUP BY 1, 2
         ) AS e USING (reminder_id, fire_at)
         WHERE n.count IS DISTINCT FROM 1
             OR e.count IS DISTINCT FROM 1",
    ),
    (
        "a reminder that was sent was told of",
        "SELECT r.id::text
         FROM reminders AS r
         LEFT JOIN notifications AS n ON n.reminder_id = r.id AND n.scheduled_for = r.fire_at
         WHERE r.sent_at IS NOT NULL
             AND (n.id IS NULL OR n.created_at <> r.sent_at OR n.late <> r.late)",
    ),
    (
        "no reminder is early, and one is late when it is more than a minute behind",
        "SELECT id || ' for ' || scheduled_for || ' at ' || created_at
         FROM notifications
         WHERE kind = 'reminder'
             AND (created_at < scheduled_for OR late <> (created_at - scheduled_for >= interval '60 seconds'))",
    ),
    (
        "no reminder that is due waits",
        "SELECT id || ' since ' || fire_at
         FROM reminders
         WHERE fire_at <= now()
             AND sent_at IS NULL",
    ),
    (
        // Reopened tasks take up only what lies ahead, so only those that were never completed. The tests' zone is UTC.
        "an open task's reminders went out",
        "SELECT r.id || ' of ' || t.id
         FROM reminders AS r
         JOIN tasks AS t ON t.id = r.task_id
         WHERE t.status = 'open'
             AND t.deleted_at IS NULL
             AND r.sent_at IS NULL
             AND COALESCE(t.due_at - r.before_seconds * interval '1 second', r.at_local AT TIME ZONE 'UTC') <= now()
             AND NOT EXISTS (
                 SELECT
                 FROM audit AS a
                 WHERE a.task_id = t.id
                     AND a.event_type = 'completed'
             )",
    ),
    (
        "a task that repeats has its next one when it was completed, and only then",
        "SELECT COALESCE(c.subject, n.previous_id)::text
         FROM (
             SELECT DISTINCT subject
             FROM outbox
             WHERE event_type = 'completed'
                 AND data -> 'recurrence' <> 'null'
         ) AS c
         FULL JOIN (SELECT previous_id FROM tasks WHERE previous_id IS NOT NULL) AS n ON n.previous_id = c.subject
         WHERE c.subject IS NULL
             OR n.previous_id IS NULL",
    ),
    (
        "what was made by itself has an event that says so, once",
        "SELECT t.id::text
         FROM tasks AS t
         JOIN outbox AS o ON o.subject = t.id AND o.version = 1 AND o.event_type <> 'reminder'
         WHERE (o.event_type = 'recurring_spawn') <> (num_nonnulls(t.schedule_id, t.previous_id) = 1)",
    ),
    (
        "an occurrence and its task belong together",
        "SELECT COALESCE(o.task_id, t.id)::text
         FROM occurrences AS o
         FULL JOIN (SELECT id, schedule_id, occurrence_at FROM tasks WHERE schedule_id IS NOT NULL) AS t
             ON t.id = o.task_id
             AND t.schedule_id = o.schedule_id
             AND t.occurrence_at = o.scheduled_for
         WHERE o.task_id IS NULL
             OR t.id IS NULL",
    ),
    (
        "a digest counts its reminders",
        "SELECT d.id || ' says ' || d.reminder_count || ' and has ' || count(n.id)
         FROM notifications AS d
         LEFT JOIN notifications AS n ON n.digest_id = d.id
         WHERE d.kind = 'digest'
         GROUP BY d.id
         HAVING count(n.id) <> d.reminder_count",
    ),
];

/// Waits until nothing is left to do: consumers have seen every event, and no reminder or schedule is due within a
/// minute. Call when nothing is written any more, and schedules that fire often are paused.
pub async fn wait_until_quiet(pool: &PgPool, within: Duration) -> Result<()> {
    wait_for("the platform to be quiet", within, || async {
        let is_quiet: bool = sqlx::query_scalar(
            "SELECT NOT EXISTS (
                 SELECT
                 FROM outbox AS o
                 CROSS JOIN unnest(ARRAY['audit', 'recurring']) AS consumer (name)
                 LEFT JOIN inbox AS i ON i.consumer = consumer.name AND i.event_id = o.id
                 LEFT JOIN dead_letters AS d ON d.consumer = consumer.name AND d.event_id = o.id
                 WHERE i.event_id IS NULL
                     AND d.event_id IS NULL
             ) AND NOT EXISTS (
                 SELECT
                 FROM reminders
                 WHERE fire_at < now() + interval '1 minute'
                     AND sent_at IS NULL
             ) AND NOT EXISTS (
                 SELECT
                 FROM schedules
                 WHERE next_at < now() + interval '1 second'
                     AND NOT suspended
                     AND deleted_at IS NULL
             )",
        )
        .fetch_one(pool)
        .await?;
        Ok(is_quiet.then_some(()))
    })
    .await
}

/// Holds the database to the promises.
pub async fn promises(pool: &PgPool) -> Result<()> {
    let broken = broken_promises(&mut *pool.acquire().await?).await?;
    ensure!(broken.is_empty(), "broken promises:\n{}", broken.join("\n"));
    Ok(())
}

/// The promises that do not hold, each with how often and an example.
pub async fn broken_promises(connection: &mut PgConnection) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for (promise, counterexamples) in PROMISES {
        let found: Vec<String> = sqlx::query_scalar(counterexamples).fetch_all(&mut *connection).await?;
        if let Some(first) = found.first() {
            broken.push(format!("{promise}: {} times not, as in {first}", found.len()));
        }
    }
    Ok(broken)
}

/// A schedule, and what it did.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// Its rule, as the API takes it.
    pub rule: Value,
    /// Whether it skips while a task of it is open.
    pub skips: bool,
    /// Where an interval counts from.
    pub anchor: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// The last instant that it dealt with.
    pub cursor: Timestamp,
    /// Its counters.
    pub made: i64,
    /// Its counters.
    pub missed: i64,
    /// Its counters.
    pub skipped: i64,
    /// The occurrences that have a task, each with the instant at which it was made.
    pub occurrences: BTreeMap<Timestamp, Timestamp>,
}

#[derive(sqlx::FromRow)]
struct ScheduleRow {
    id: Uuid,
    name: String,
    rule: Value,
    overlap: String,
    anchor_at: jiff_sqlx::Timestamp,
    created_at: jiff_sqlx::Timestamp,
    cursor_at: jiff_sqlx::Timestamp,
    made: i64,
    missed: i64,
    skipped: i64,
}

/// Every schedule, in the order in which they were made.
pub async fn schedules(pool: &PgPool) -> Result<Vec<Schedule>> {
    let rows: Vec<ScheduleRow> = sqlx::query_as(
        "SELECT id, name, rule, overlap, anchor_at, created_at, cursor_at, made, missed, skipped
         FROM schedules
         ORDER BY id",
    )
    .fetch_all(pool)
    .await?;
    let mut schedules = Vec::with_capacity(rows.len());
    for row in rows {
        let occurrences: Vec<(jiff_sqlx::Timestamp, jiff_sqlx::Timestamp)> = sqlx::query_as(
            "SELECT scheduled_for, made_at
             FROM occurrences
             WHERE schedule_id = $1",
        )
        .bind(row.id)
        .fetch_all(pool)
        .await?;
        schedules.push(Schedule {
            name: row.name,
            rule: row.rule,
            skips: row.overlap == "skip",
            anchor: row.anchor_at.to_jiff(),
            created_at: row.created_at.to_jiff(),
            cursor: row.cursor_at.to_jiff(),
            made: row.made,
            missed: row.missed,
            skipped: row.skipped,
            occurrences: occurrences
                .into_iter()
                .map(|(at, made_at)| (at.to_jiff(), made_at.to_jiff()))
                .collect(),
        });
    }
    Ok(schedules)
}

impl Schedule {
    /// The occurrences that have a task.
    pub fn made_for(&self) -> BTreeSet<Timestamp> {
        self.occurrences.keys().copied().collect()
    }

    /// The occurrences that the rule has after `after` and up to the cursor.
    pub fn expected(&self, after: Timestamp) -> Result<BTreeSet<Timestamp>> {
        oracle::occurrences(&self.rule, self.anchor, after, self.cursor)
    }
}

/// Holds each schedule that was never away for long to its rule: each occurrence since it was made has exactly one
/// task, or was skipped because one was open. Returns how many occurrences there were, and how many were skipped.
pub async fn schedules_are_complete(pool: &PgPool) -> Result<(usize, i64)> {
    let (mut all, mut all_skipped) = (0, 0);
    for schedule in schedules(pool).await? {
        let (expected, made) = (schedule.expected(schedule.created_at)?, schedule.made_for());
        let name = &schedule.name;
        ensure!(
            i64::try_from(made.len())? == schedule.made,
            "{name} counts {} and made {} tasks",
            schedule.made,
            made.len()
        );
        ensure!(schedule.missed == 0, "{name} missed {} occurrences", schedule.missed);
        let (doubtful, without): (Vec<_>, Vec<_>) = (
            made.difference(&expected).collect(),
            expected.difference(&made).collect(),
        );
        ensure!(
            doubtful.is_empty(),
            "{name} made tasks at {doubtful:?}, where its rule has nothing"
        );
        let skipped = i64::try_from(without.len())?;
        ensure!(
            skipped == schedule.skipped,
            "{name} counts {} skipped, but {without:?} have no task",
            schedule.skipped
        );
        ensure!(schedule.skips || skipped == 0, "{name} made no tasks at {without:?}");
        all += expected.len();
        all_skipped += skipped;
    }
    Ok((all, all_skipped))
}
