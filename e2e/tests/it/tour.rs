//! The first five minutes of somebody who follows the README.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use todo_e2e::client::text;
use todo_e2e::scene::Scene;
use todo_e2e::wait_for;

#[tokio::test(flavor = "multi_thread")]
async fn the_tour_ends_with_everything_in_order() -> Result<()> {
    let scene = Scene::new()?;
    let mut up = scene.up_alone("first", &[]).await?;
    let alice = scene.client(&up.base, "alice").await?;

    let at = Timestamp::now() + SignedDuration::from_secs(2);
    let call = json!({"title": "Call Bob", "reminders": [{"at": {"at": at, "time_zone": "Europe/Berlin"}}]});
    let call = alice.post("/tasks", &call).await?;
    let call_path = format!("/tasks/{}", text(&call, "id")?);
    let told = wait_for("the reminder", Duration::from_secs(15), || async {
        Ok(alice.list("/notifications").await?.into_iter().next())
    })
    .await?;
    ensure!(
        told["title"] == "Call Bob" && told["task_id"] == call["id"] && told["late"] == false,
        "{told}"
    );

    let ticks = json!({
        "name": "ticks",
        "schedule": {"cron": "* * * * * *", "time_zone": "Europe/Berlin"},
        "template": {"title": "Tick {{n}}"},
    });
    let ticks = alice.post("/schedules", &ticks).await?;
    let made_path = format!("/tasks?schedule_id={}", text(&ticks, "id")?);
    let made = wait_for("two ticks", Duration::from_secs(15), || async {
        let made = alice.list(&made_path).await?;
        Ok((made.len() >= 2).then_some(made))
    })
    .await?;

    let history_path = format!("{call_path}/history");
    let history = wait_for("the history", Duration::from_secs(15), || async {
        let history = alice.list(&history_path).await?;
        Ok((history.len() >= 2).then_some(history))
    })
    .await?;
    let kinds: Vec<&str> = history
        .iter()
        .filter_map(|entry| entry["event_type"].as_str())
        .collect();
    ensure!(kinds == ["created", "reminder"], "{kinds:?}");

    up.process.kill()?;
    let mut up = scene.up_alone("second", &[]).await?;
    let alice = scene.client(&up.base, "alice").await?;
    ensure!(alice.get(&call_path).await? == call, "the task has changed");
    ensure!(alice.list(&history_path).await? == history, "the history has changed");
    ensure!(
        alice.list("/notifications").await? == [told],
        "the notifications have changed"
    );
    let more = wait_for("another tick", Duration::from_secs(15), || async {
        let more = alice.list(&made_path).await?;
        Ok((more.len() > made.len()).then_some(more))
    })
    .await?;
    for tick in &made {
        ensure!(more.contains(tick), "{tick} is gone");
    }
    ensure!(up.process.stop().await?.success(), "the stop");
    Ok(())
}
