//! Reminders that came due while nothing ran.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use todo_e2e::client::text;
use todo_e2e::scene::Scene;
use todo_e2e::{check, database, wait_for};
use uuid::Uuid;

/// Users with 200 overdue reminders each, and users with 2: few enough to be told of one by one.
const BUSY: i64 = 50;
const EACH: i64 = 200;
const CALM: i64 = 5;
const FEW: i64 = 2;

/// Tasks that were due while nothing ran, each with a reminder and its event. Reminders of all users are mixed in time.
const OVERDUE: &str = "
    WITH overdue AS (
        SELECT task_id, event_id, $1 || number % $2 AS user_id, now() - number * interval '0.4 s' - interval '10 min' AS due_at
        FROM unnest($3::uuid[], $4::uuid[]) WITH ORDINALITY AS o (task_id, event_id, number)
    ), task AS (
        INSERT INTO tasks (id, user_id, title, due_local, due_zone, due_at)
        SELECT task_id, user_id, 'overdue', due_at AT TIME ZONE 'UTC', 'UTC', due_at
        FROM overdue
    ), reminder AS (
        INSERT INTO reminders (id, user_id, task_id, before_seconds, fire_at)
        SELECT gen_random_uuid(), user_id, task_id, 60, due_at - interval '60 s'
        FROM overdue
    )
    SELECT append_events(
        array_agg(event_id), array_agg('created'::text), array_agg(task_id), array_agg(user_id), array_agg(1::bigint),
        array_agg(user_id), array_agg('{\"recurrence\": null}'::jsonb)
    )
    FROM overdue";

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_overdue_reminders_go_out_once_each_in_digests() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    scene.run_well(["migrate", "--database-url", &url]).await?;
    let pool = database::open(&url).await?;
    for (prefix, users, each) in [("busy-", BUSY, EACH), ("calm-", CALM, FEW)] {
        // Of version 7, as writers make them: an event of another kind of id looks ancient, and its inbox row is swept.
        let ids = || (0..users * each).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
        let made: i64 = sqlx::query_scalar(OVERDUE)
            .bind(prefix)
            .bind(users)
            .bind(ids())
            .bind(ids())
            .fetch_one(&pool)
            .await?;
        ensure!(made == users * each, "{made} tasks");
    }

    let mut up = scene.up("up", &url, &[]).await?;
    let alice = scene.client(&up.base, "alice").await?;
    let at = Timestamp::now() + SignedDuration::from_secs(1);
    let fresh = json!({"title": "fresh", "reminders": [{"at": {"at": at}}]});
    let fresh = alice.post("/tasks", &fresh).await?;
    let path = format!("/tasks/{}/reminders", text(&fresh, "id")?);
    let fresh = wait_for("the fresh reminder", Duration::from_secs(20), || async {
        let reminders = alice.list(&path).await?;
        Ok(reminders.into_iter().find(|reminder| reminder["sent_at"].is_string()))
    })
    .await?;
    let (fire_at, sent_at): (Timestamp, Timestamp) =
        (text(&fresh, "fire_at")?.parse()?, text(&fresh, "sent_at")?.parse()?);
    ensure!(fresh["late"] == false, "{fresh}");
    ensure!(
        sent_at.duration_since(fire_at) < SignedDuration::from_secs(5),
        "{fresh}"
    );

    check::wait_until_quiet(&pool, Duration::from_mins(1)).await?;
    check::promises(&pool).await?;
    let (late, batches): (i64, i64) =
        sqlx::query_as("SELECT count(*), count(DISTINCT sent_at) FROM reminders WHERE late")
            .fetch_one(&pool)
            .await?;
    ensure!(late == BUSY * EACH + CALM * FEW, "{late} are late");
    ensure!((5..=200).contains(&batches), "they went out in {batches} batches");

    // What each user sees: single ones, digests, and how many reminders the digests stand for.
    let feeds: Vec<(String, i64, i64, i64)> = sqlx::query_as(
        "SELECT
             user_id,
             count(*) FILTER (WHERE kind = 'reminder'),
             count(*) FILTER (WHERE kind = 'digest'),
             COALESCE(sum(reminder_count) FILTER (WHERE kind = 'digest'), 0)
         FROM notifications
         WHERE digest_id IS NULL
             AND late
         GROUP BY user_id",
    )
    .fetch_all(&pool)
    .await?;
    ensure!(
        feeds.len() == usize::try_from(BUSY + CALM)?,
        "{} users were told",
        feeds.len()
    );
    for (user, singles, digests, in_digests) in &feeds {
        if user.starts_with("calm-") {
            ensure!(
                (*singles, *digests) == (FEW, 0),
                "{user} has {singles} single ones and {digests} digests"
            );
        } else {
            ensure!(
                *singles <= 3 && *digests == 1,
                "{user} has {singles} single ones and {digests} digests"
            );
            ensure!(
                singles + in_digests == EACH,
                "{user} was told of {singles} and {in_digests}"
            );
        }
    }

    let busy = scene.client(&up.base, "busy-1").await?;
    let feed = busy.list("/notifications").await?;
    ensure!(feed.len() <= 4, "a storm of {} notifications", feed.len());
    let digest = feed.iter().find(|notification| notification["kind"] == "digest");
    let digest = digest.map_or(Ok(""), |digest| text(digest, "id"))?;
    let behind = busy.list(&format!("/notifications/{digest}/reminders")).await?;
    ensure!(
        behind.len() + feed.len() - 1 == usize::try_from(EACH)?,
        "{} are behind the digest",
        behind.len()
    );
    ensure!(up.process.stop().await?.success(), "the stop");
    Ok(())
}
