//! The life of `todo up` with the PostgreSQL that it keeps for itself.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::StatusCode;
use serde_json::json;
use todo_e2e::client::{Client, text};
use todo_e2e::process::postgres_processes;
use todo_e2e::scene::{Scene, Up};
use tokio::task::JoinSet;

/// The client of the command that the greeting says to paste.
fn greeted(up: &Up) -> Result<Client> {
    let said = up.process.stdout();
    let token = said
        .split("Authorization: Bearer ")
        .nth(1)
        .and_then(|rest| rest.split('\'').next());
    ensure!(
        said.contains(&format!("curl -s {}/api/v1/tasks", up.base)),
        "no command to paste: {said}"
    );
    Client::new(&up.base, token.context("no token in the greeting")?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_finds_everything_again_however_it_ended() -> Result<()> {
    let scene = Scene::new()?;
    let data_dir = scene.data_dir();
    let mut first = scene.up_alone("first", &[]).await?;
    let alice = greeted(&first)?;
    let plants = alice.post("/tasks", &json!({"title": "Water the plants"})).await?;
    let plants_path = format!("/tasks/{}", text(&plants, "id")?);

    // Told to stop in the middle of writes: what was acknowledged is kept, and PostgreSQL goes with it.
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        writers.spawn(write_until_refused(alice.clone(), writer));
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    let status = first.process.stop().await?;
    ensure!(status.success(), "it stopped with {status}: {}", first.process.stderr());
    ensure!(
        postgres_processes(&data_dir).is_empty(),
        "a PostgreSQL was left running"
    );
    let mut acknowledged = Vec::new();
    while let Some(ids) = writers.join_next().await {
        acknowledged.extend(ids?);
    }
    ensure!(
        acknowledged.len() >= 4,
        "only {} writes were acknowledged",
        acknowledged.len()
    );

    let began = Instant::now();
    let mut second = scene.up_alone("second", &[]).await?;
    println!("ready again after {:?}", began.elapsed());
    let alice = greeted(&second)?;
    ensure!(alice.get(&plants_path).await? == plants, "the task has changed");
    for id in &acknowledged {
        let status = alice.status_of(&format!("/tasks/{id}")).await?;
        ensure!(status == StatusCode::OK, "acknowledged task {id} is answered {status}");
    }

    // Killed: its PostgreSQL may run on. The next start puts that right.
    let last = alice
        .post("/tasks", &json!({"title": "Written just before the end"}))
        .await?;
    second.process.kill()?;
    let mut third = scene.up_alone("third", &[]).await?;
    let alice = greeted(&third)?;
    ensure!(alice.get(&plants_path).await? == plants, "the task has changed");
    ensure!(
        alice.get(&format!("/tasks/{}", text(&last, "id")?)).await? == last,
        "the last task has changed"
    );
    let status = third.process.stop().await?;
    ensure!(status.success(), "it stopped with {status}: {}", third.process.stderr());
    ensure!(
        postgres_processes(&data_dir).is_empty(),
        "a PostgreSQL was left running"
    );
    Ok(())
}

/// Creates tasks until the API is gone: the ids that were acknowledged.
async fn write_until_refused(client: Client, writer: u32) -> Vec<String> {
    let mut acknowledged = Vec::new();
    while let Ok(task) = client
        .post("/tasks", &json!({"title": format!("writer {writer}")}))
        .await
    {
        acknowledged.extend(task["id"].as_str().map(str::to_owned));
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_platform_on_the_same_data_is_refused_in_one_line() -> Result<()> {
    let scene = Scene::new()?;
    let mut first = scene.up_alone("first", &[]).await?;
    let data_dir = scene.data_dir().display().to_string();
    let second = scene
        .run(["up", "--listen", "127.0.0.1:0", "--data-dir", &data_dir])
        .await?;
    let said = String::from_utf8_lossy(&second.stderr);
    ensure!(second.status.code() == Some(2), "it ended with {}", second.status);
    ensure!(
        said.trim().lines().count() == 1 && said.contains("in use by process"),
        "it said: {said}"
    );
    ensure!(
        second.stdout.is_empty(),
        "it greeted: {}",
        String::from_utf8_lossy(&second.stdout)
    );

    let alice = greeted(&first)?;
    alice.post("/tasks", &json!({"title": "The first one goes on"})).await?;
    ensure!(first.process.stop().await?.success(), "the stop");
    Ok(())
}
