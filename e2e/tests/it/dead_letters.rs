//! An event that cannot be applied, those behind it, and a consumer that begins again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sqlx::PgPool;
use todo_e2e::client::text;
use todo_e2e::scene::Scene;
use todo_e2e::{check, database, wait_for};

/// Breaks the due date in every `completed` event, as a faulty writer would.
const POISON: [&str; 2] = [
    "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN
         NEW.data := jsonb_set(NEW.data, '{due}', '\"broken\"');
         RETURN NEW;
     END
     $$",
    "CREATE TRIGGER poison BEFORE INSERT ON outbox
     FOR EACH ROW WHEN (NEW.event_type = 'completed') EXECUTE FUNCTION poison()",
];

async fn letters(scene: &Scene, url: &str) -> Result<Vec<Value>> {
    let listed = scene
        .run_well(["events", "dlq", "list", "--json", "--database-url", url])
        .await?;
    listed
        .lines()
        .map(|line| serde_json::from_str(line).context("a line is no JSON"))
        .collect()
}

/// What the audit log says, in its order.
async fn audit_log(pool: &PgPool) -> Result<Vec<Value>> {
    Ok(
        sqlx::query_scalar("SELECT to_jsonb(a) - 'seq' - 'recorded_at' FROM audit AS a ORDER BY seq")
            .fetch_all(pool)
            .await?,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_event_waits_with_those_behind_it_and_is_replayed_in_order() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    let mut up = scene.up("up", &url, &[]).await?;
    let alice = scene.client(&up.base, "alice").await?;
    let pool = database::open(&url).await?;
    for statement in POISON {
        sqlx::query(statement).execute(&pool).await?;
    }

    let due = json!({"local": "2030-01-31T09:00:00", "time_zone": "Europe/Berlin"});
    let task = alice
        .post(
            "/tasks",
            &json!({"title": "Rent", "due": due, "recurrence": {"every": "1mo"}}),
        )
        .await?;
    let path = format!("/tasks/{}", text(&task, "id")?);
    alice.act(&format!("{path}/complete")).await?;
    alice.patch(&path, &json!({"priority": "high"})).await?;
    alice.patch(&path, &json!({"tags": ["paid"]})).await?;
    let healthy = alice.post("/tasks", &json!({"title": "Another task goes on"})).await?;
    check::wait_until_quiet(&pool, Duration::from_secs(20)).await?;

    let dead = letters(&scene, &url).await?;
    let versions: Vec<_> = dead.iter().map(|letter| letter["version"].as_i64()).collect();
    ensure!(versions == [Some(2), Some(3), Some(4)], "{dead:?}");
    ensure!(
        dead.iter()
            .all(|letter| letter["consumer"] == "recurring" && letter["subject"] == task["id"]),
        "{dead:?}"
    );
    ensure!(
        dead[0]["parked_behind"].is_null() && dead[0]["error"].to_string().contains("task_data"),
        "{}",
        dead[0]
    );
    ensure!(
        dead[1..]
            .iter()
            .all(|letter| letter["parked_behind"] == dead[0]["event_id"]),
        "{dead:?}"
    );
    let shown = scene
        .run_well(["events", "dlq", "list", "--database-url", &url])
        .await?;
    ensure!(shown.lines().count() == 3 && shown.contains("waits for"), "{shown}");
    let applied: bool = sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT
             FROM inbox AS i
             JOIN outbox AS o ON o.id = i.event_id
             WHERE i.consumer = 'recurring'
                 AND o.subject = ($1::text)::uuid
         )",
    )
    .bind(text(&healthy, "id")?)
    .fetch_one(&pool)
    .await?;
    ensure!(applied, "the poison holds up other tasks");

    let replay = ["events", "dlq", "replay", "--database-url", &url];
    let outcome = scene.run_well(replay).await?;
    ensure!(outcome.contains("0 applied, 1 still fail"), "{outcome}");

    // Repaired where it lies, with the rest of the task as it was.
    sqlx::query("DROP TRIGGER poison ON outbox").execute(&pool).await?;
    let repaired = sqlx::query(
        "UPDATE dead_letters
         SET event = jsonb_set(event, '{data,task_data,due}', $1)
         WHERE event #> '{data,task_data,due}' = '\"broken\"'",
    )
    .bind(&task["due"])
    .execute(&pool)
    .await?;
    ensure!(
        repaired.rows_affected() == 1,
        "{} events were repaired",
        repaired.rows_affected()
    );
    let outcome = scene.run_well(replay).await?;
    ensure!(outcome.contains("3 applied, 0 still fail"), "{outcome}");
    ensure!(letters(&scene, &url).await?.is_empty(), "dead letters are left");
    let next = wait_for("the next task", Duration::from_secs(10), || async {
        let tasks = alice.list("/tasks").await?;
        Ok(tasks
            .into_iter()
            .find(|candidate| candidate["previous_id"] == task["id"]))
    })
    .await?;
    ensure!(next["due"]["local"] == "2030-02-28T09:00:00", "{next}");
    check::wait_until_quiet(&pool, Duration::from_secs(20)).await?;
    check::promises(&pool).await?;
    ensure!(up.process.stop().await?.success(), "the stop");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_consumer_says_what_it_said() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    let mut up = scene.up("up", &url, &[]).await?;
    let alice = scene.client(&up.base, "alice").await?;
    for number in 0..10 {
        let repeats =
            json!({"title": format!("task {number}"), "due": {"local": "2030-01-31"}, "recurrence": {"every": "1d"}});
        let task = alice.post("/tasks", &repeats).await?;
        alice.act(&format!("/tasks/{}/complete", text(&task, "id")?)).await?;
    }
    let pool = database::open(&url).await?;
    check::wait_until_quiet(&pool, Duration::from_secs(20)).await?;
    let before = audit_log(&pool).await?;
    ensure!(before.len() == 30, "{} events", before.len());

    // While the platform runs; from the beginning, and from the middle.
    let middle = text(&before[15], "occurred_at")?;
    for since in ["2020-01-01T00:00:00Z", middle] {
        for consumer in ["audit", "recurring"] {
            let args = [
                "events",
                "replay",
                "--consumer",
                consumer,
                "--since",
                since,
                "--database-url",
                &url,
            ];
            let outcome = scene.run_well(args).await?;
            ensure!(
                outcome.contains("0 in the dead letters"),
                "{consumer} since {since}: {outcome}"
            );
        }
        ensure!(
            audit_log(&pool).await? == before,
            "the audit log is another one after a rebuild since {since}"
        );
    }
    let args = [
        "events",
        "replay",
        "--consumer",
        "nobody",
        "--since",
        middle,
        "--database-url",
        &url,
    ];
    let unknown = scene.run(args).await?;
    let said = String::from_utf8_lossy(&unknown.stderr);
    ensure!(
        unknown.status.code() == Some(2) && said.contains("audit, recurring"),
        "{said}"
    );

    check::wait_until_quiet(&pool, Duration::from_secs(20)).await?;
    check::promises(&pool).await?;
    ensure!(up.process.stop().await?.success(), "the stop");
    Ok(())
}
