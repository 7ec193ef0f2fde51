//! A role that is switched off, and on again.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use todo_e2e::client::text;
use todo_e2e::scene::Scene;
use todo_e2e::{check, database, wait_for};

const WITHOUT_AUDIT: &str = "apiVersion: todoplatform.dev/v1alpha1
kind: TodoPlatform
metadata: {name: home}
spec:
  version: \"0.1.0\"
  workers:
    audit: {suspend: true}
";

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_a_role_that_is_switched_off() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    let manifest = scene.write("platform.yaml", WITHOUT_AUDIT)?.display().to_string();
    let mut without = scene.up("without", &url, &["-f", &manifest]).await?;
    let alice = scene.client(&without.base, "alice").await?;
    for number in 0..20 {
        let repeats = json!({"title": format!("task {number}"), "due": {"local": "2030-01-31T09:00"}, "recurrence": {"every": "1mo"}});
        let task = alice.post("/tasks", &repeats).await?;
        let path = format!("/tasks/{}", text(&task, "id")?);
        alice.patch(&path, &json!({"priority": "high"})).await?;
        alice.act(&format!("{path}/complete")).await?;
    }
    let pool = database::open(&url).await?;
    wait_for("the other role to work", Duration::from_secs(20), || async {
        let made: i64 = sqlx::query_scalar("SELECT count(*) FROM tasks WHERE previous_id IS NOT NULL")
            .fetch_one(&pool)
            .await?;
        Ok((made == 20).then_some(()))
    })
    .await?;
    ensure!(without.process.stop().await?.success(), "the first stop");
    let recorded: i64 = sqlx::query_scalar("SELECT count(*) FROM audit")
        .fetch_one(&pool)
        .await?;
    ensure!(
        recorded == 0,
        "{recorded} events were recorded by a role that is switched off"
    );

    let mut with = scene.up("with", &url, &[]).await?;
    check::wait_until_quiet(&pool, Duration::from_secs(20)).await?;
    let recorded: i64 = sqlx::query_scalar("SELECT count(*) FROM audit")
        .fetch_one(&pool)
        .await?;
    ensure!(recorded == 80, "{recorded} events were recorded");
    check::promises(&pool).await?;
    ensure!(with.process.stop().await?.success(), "the second stop");
    Ok(())
}
