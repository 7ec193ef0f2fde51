//! From one machine to a cluster: schedules that `todo up` made become those of resources, while their tasks are made.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use todo_e2e::client::HTTP;
use todo_e2e::scene::Scene;
use todo_e2e::{database, wait_for};

use crate::processes::{SECRET, start};

const PATIENCE: Duration = Duration::from_secs(30);

const KEY: &str = "an internal key of at least thirty-two bytes";

const MANIFEST: &str = "
apiVersion: todoplatform.dev/v1alpha1
kind: TodoPlatform
metadata: {name: home}
spec: {version: 0.1.0}
---
apiVersion: todoplatform.dev/v1alpha1
kind: RecurringSchedule
metadata: {name: tick}
spec:
  platformRef: {name: home}
  user: ada
  schedule: {cron: '* * * * * *'}
  template: {title: tick}
";

/// How many tasks there are, for how many occurrences, over how many seconds.
async fn ticks(pool: &PgPool) -> Result<(i64, i64, i64)> {
    Ok(sqlx::query_as(
        "SELECT
            count(*), count(DISTINCT occurrence_at),
            COALESCE(EXTRACT(epoch FROM max(occurrence_at) - min(occurrence_at))::bigint, 0)
        FROM tasks",
    )
    .fetch_one(pool)
    .await?)
}

async fn until_more(pool: &PgPool, than: i64) -> Result<i64> {
    wait_for("more ticks", PATIENCE, || async {
        let (tasks, ..) = ticks(pool).await?;
        Ok((tasks > than).then_some(tasks))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_goes_on_from_todo_up_to_a_resource_with_each_occurrence_once() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    let manifest = scene.write("platform.yaml", MANIFEST)?;
    let data = scene.path("data");
    let up = [
        "up",
        "-f",
        &manifest.display().to_string(),
        "--database-url",
        &url,
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        &data.display().to_string(),
    ];
    let mut up = scene.start("up", up)?;
    up.line_with("is ready", PATIENCE).await?;
    let pool = database::open(&url).await?;
    let on_a_machine = until_more(&pool, 2).await?;
    ensure!(up.stop().await?.success(), "{}", up.stderr());
    let key: String = sqlx::query_scalar("SELECT external_uid FROM schedules")
        .fetch_one(&pool)
        .await?;

    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("TODO_LISTEN", "127.0.0.1:0"),
        ("TODO_TOKEN_SECRET", SECRET),
        ("TODO_INTERNAL_KEY", KEY),
    ];
    let mut serve = start(&scene, "serve", &["serve"], &environment)?;
    let line = serve.line_with("is ready", PATIENCE).await?;
    let address = line.split(" is ready at ").nth(1).context("no address")?;
    // It does not wait for the operator.
    let before = until_more(&pool, on_a_machine + 1).await?;
    let declaration = json!({
        "origin": "team/tick", "adopt": ["manifest/home/another", key], "hash": "h1", "user": "ada", "name": "tick",
        "schedule": {"cron": "* * * * * *", "time_zone": "UTC"}, "template": {"title": "tick"},
    });
    let path = "/internal/v1/schedules/6a1f0f0e-0001-4c55-9a53-3c648e0b7d21";
    let answer = HTTP
        .request(Method::PUT, format!("{address}{path}"))
        .bearer_auth(KEY)
        .json(&declaration)
        .send()
        .await?;
    ensure!(answer.status() == StatusCode::OK, "{}", answer.text().await?);
    let state: Value = answer.json().await?;
    ensure!(state["made"].as_i64() >= Some(before), "the counts are lost: {state}");
    ensure!(state["last_at"].is_string() && state["next_at"].is_string(), "{state}");

    until_more(&pool, before + 3).await?;
    ensure!(serve.stop().await?.success(), "{}", serve.stderr());
    let (tasks, occurrences, seconds) = ticks(&pool).await?;
    ensure!(tasks == occurrences, "{tasks} tasks for {occurrences} occurrences");
    ensure!(tasks == seconds + 1, "{tasks} tasks in {seconds} s: some were left out");
    Ok(())
}
