//! The judge of all other tests: it must notice each kind of damage, or their verdicts are worth nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use todo_e2e::client::text;
use todo_e2e::scene::Scene;
use todo_e2e::{check, database, wait_for};

/// What is done to a database in order, and the beginning of the promise that it breaks.
const DAMAGE: [(&str, &str); 23] = [
    (
        "DELETE FROM outbox WHERE event_type = 'updated'",
        "a task's versions are 1 to n",
    ),
    (
        "UPDATE tasks SET version = version + 1",
        "a task is at the version of its last event",
    ),
    (
        "DELETE FROM outbox WHERE event_type <> 'reminder'",
        "a task is at the version of its last event",
    ),
    (
        "UPDATE tasks SET deleted_at = now() WHERE previous_id IS NOT NULL",
        "a task is deleted when its last event says so",
    ),
    (
        "UPDATE outbox SET version = 4 - version WHERE event_type IN ('created', 'completed')",
        "commit order is version",
    ),
    (
        "INSERT INTO outbox (id, event_type, subject, user_id, version, actor, data)
         SELECT id, event_type, subject, user_id, version, actor, data FROM outbox LIMIT 1",
        "an event is there once",
    ),
    (
        "DELETE FROM audit WHERE event_type = 'reminder'",
        "the audit log has exactly the events",
    ),
    (
        "DELETE FROM outbox WHERE event_type = 'reminder'",
        "the audit log has exactly the events",
    ),
    (
        "UPDATE audit SET after = '{}' WHERE event_type = 'created'",
        "the audit log says what the events say",
    ),
    (
        "UPDATE audit SET before = NULL",
        "the audit log says what the events say",
    ),
    (
        "UPDATE audit SET version = 4 - version WHERE event_type IN ('created', 'completed')",
        "the audit log was written in version order",
    ),
    (
        "DELETE FROM inbox WHERE consumer = 'audit'",
        "audit has applied each event once",
    ),
    (
        "DELETE FROM inbox WHERE consumer = 'recurring'",
        "recurring has applied each event of a task once",
    ),
    (
        "INSERT INTO dead_letters (consumer, event_id, subject, version, event, event_time, error, attempts)
         SELECT 'audit', id, subject, version, '{}', now(), 'broken', 1 FROM outbox LIMIT 1",
        "there are no dead letters",
    ),
    ("DELETE FROM notifications", "each reminder is told of and is an event"),
    (
        "UPDATE notifications SET created_at = created_at + interval '1 s'",
        "a reminder that was sent was told of",
    ),
    ("UPDATE notifications SET late = TRUE", "no reminder is early"),
    (
        "UPDATE reminders SET sent_at = NULL, fire_at = now() - interval '1 s' WHERE sent_at IS NOT NULL",
        "no reminder that is due waits",
    ),
    (
        "UPDATE reminders SET sent_at = NULL, fire_at = NULL WHERE sent_at IS NOT NULL",
        "an open task's reminders went out",
    ),
    (
        "UPDATE tasks SET previous_id = NULL",
        "a task that repeats has its next one",
    ),
    (
        "UPDATE outbox SET event_type = 'created' WHERE event_type = 'recurring_spawn'",
        "what was made by itself",
    ),
    ("DELETE FROM occurrences", "an occurrence and its task belong together"),
    (
        "INSERT INTO notifications (id, user_id, kind, title, scheduled_for, reminder_count)
         VALUES (gen_random_uuid(), 'alice', 'digest', 'seven', now(), 7)",
        "a digest counts its reminders",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_damage_is_noticed() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    let mut up = scene.up("up", &url, &[]).await?;
    let alice = scene.client(&up.base, "alice").await?;
    let soon = Timestamp::now() + SignedDuration::from_secs(1);
    alice
        .post(
            "/tasks",
            &json!({"title": "told of", "reminders": [{"at": {"at": soon}}]}),
        )
        .await?;
    let repeats = json!({"title": "repeats", "due": {"local": "2030-01-31"}, "recurrence": {"every": "1d"}});
    let task = alice.post("/tasks", &repeats).await?;
    let path = format!("/tasks/{}", text(&task, "id")?);
    alice.patch(&path, &json!({"priority": "low"})).await?;
    alice.act(&format!("{path}/complete")).await?;
    let ticks = json!({
        "name": "ticks",
        "schedule": {"cron": "* * * * * *", "time_zone": "UTC"},
        "template": {"title": "Tick"},
    });
    let ticks = alice.post("/schedules", &ticks).await?;
    wait_for("a tick", Duration::from_secs(20), || async {
        Ok(alice
            .list("/tasks")
            .await?
            .into_iter()
            .find(|task| task["schedule_id"] == ticks["id"]))
    })
    .await?;
    alice.act(&format!("/schedules/{}/pause", text(&ticks, "id")?)).await?;
    let pool = database::open(&url).await?;
    check::wait_until_quiet(&pool, Duration::from_secs(20)).await?;
    ensure!(up.process.stop().await?.success(), "the stop");

    check::promises(&pool).await?;
    for (damage, promise) in DAMAGE {
        let mut transaction = pool.begin().await?;
        let done = sqlx::query(damage).execute(&mut *transaction).await?;
        ensure!(done.rows_affected() > 0, "it damages nothing: {damage}");
        let broken = check::broken_promises(&mut transaction).await?;
        ensure!(
            broken.iter().any(|broken| broken.starts_with(promise)),
            "after {damage}: {broken:?}"
        );
        transaction.rollback().await?;
    }
    Ok(())
}
