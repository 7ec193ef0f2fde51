//! Schedules that a manifest declares.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use todo_e2e::scene::Scene;
use todo_e2e::{check, database, wait_for};

const PLATFORM: &str = "apiVersion: todoplatform.dev/v1alpha1
kind: TodoPlatform
metadata: {name: home}
spec: {version: \"0.1.0\"}
";

/// A manifest with these schedules of alice: name, cron expression and the tasks' title.
fn manifest(schedules: &[(&str, &str, &str)]) -> String {
    let documents = schedules.iter().map(|(name, cron, title)| {
        format!(
            "---
apiVersion: todoplatform.dev/v1alpha1
kind: RecurringSchedule
metadata: {{name: {name}}}
spec:
  platformRef: {{name: home}}
  user: alice
  schedule: {{cron: \"{cron}\"}}
  timeZone: Europe/Berlin
  template: {{title: \"{title}\"}}
"
        )
    });
    std::iter::once(PLATFORM.to_owned()).chain(documents).collect()
}

/// The declared schedules as alice sees them over this manifest, by name, after `tasks` of them were made.
async fn run(scene: &Scene, name: &str, url: &str, text: &str, tasks: usize) -> Result<(Vec<Value>, Vec<Value>)> {
    scene.write("platform.yaml", text)?;
    let file = scene.path("platform.yaml").display().to_string();
    let mut up = scene.up(name, url, &["-f", &file]).await?;
    let alice = scene.client(&up.base, "alice").await?;
    let made = wait_for("tasks", Duration::from_secs(20), || async {
        let made = alice.list("/tasks").await?;
        Ok((made.len() >= tasks).then_some(made))
    })
    .await?;
    let mut schedules = alice.list("/schedules").await?;
    schedules.sort_by_key(|schedule| schedule["name"].to_string());
    ensure!(up.process.stop().await?.success(), "the stop of {name}");
    Ok((schedules, made))
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_schedules_are_applied_kept_edited_and_removed() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    let declared = manifest(&[
        ("each-second", "* * * * * *", "Tick"),
        ("weekly", "0 9 * * 1", "Review"),
    ]);
    let (first, made) = run(&scene, "first", &url, &declared, 2).await?;
    ensure!(names(&first) == ["each-second", "weekly"], "{first:?}");
    ensure!(made.iter().all(|task| task["title"] == "Tick"), "{made:?}");

    let (second, _) = run(&scene, "second", &url, &declared, 2).await?;
    for (before, after) in first.iter().zip(&second) {
        for field in ["id", "version", "created_at", "updated_at"] {
            ensure!(
                before[field] == after[field],
                "{field} changed from {before} to {after}"
            );
        }
    }

    let edited = manifest(&[
        ("each-second", "* * * * * *", "Tock"),
        ("weekly", "0 9 * * 1", "Review"),
    ]);
    let (third, _) = run(&scene, "third", &url, &edited, 2).await?;
    ensure!(third[0]["id"] == first[0]["id"], "an edit made another schedule");
    ensure!(
        third[0]["version"] == 2 && third[0]["template"]["title"] == "Tock",
        "{}",
        third[0]
    );
    ensure!(third[1] == second[1], "the other one changed to {}", third[1]);

    let removed = manifest(&[("weekly", "0 9 * * 1", "Review")]);
    let (fourth, tasks) = run(&scene, "fourth", &url, &removed, 2).await?;
    ensure!(names(&fourth) == ["weekly"], "{fourth:?}");
    let titles: Vec<&str> = tasks.iter().filter_map(|task| task["title"].as_str()).collect();
    ensure!(
        titles.contains(&"Tick"),
        "the tasks went with their schedule: {titles:?}"
    );

    let pool = database::open(&url).await?;
    let all = check::schedules(&pool).await?;
    let gone = all
        .iter()
        .find(|schedule| schedule.name == "each-second")
        .context("its row is gone")?;
    // It was away between the starts for less than its catch-up window: not one second is missing.
    ensure!(
        gone.made_for() == gone.expected(gone.created_at)?,
        "{} made {:?}",
        gone.name,
        gone.made_for()
    );
    Ok(())
}

fn names(schedules: &[Value]) -> Vec<&str> {
    schedules
        .iter()
        .filter_map(|schedule| schedule["name"].as_str())
        .collect()
}
