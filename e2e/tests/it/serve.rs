//! `todo serve`: the API and all roles in one process, as each pod of a platform without a broker runs them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use todo_e2e::client::{Client, HTTP};
use todo_e2e::process::{Process, todo};
use todo_e2e::scene::Scene;
use todo_e2e::{database, wait_for};

use crate::processes::{SECRET, start};

const PATIENCE: Duration = Duration::from_secs(30);

const KEY: &str = "an internal key of at least thirty-two bytes";
const UID: &str = "6a1f0f0e-0001-4c55-9a53-3c648e0b7d21";

/// A migrated database, and the file of settings that names it.
async fn settings(scene: &Scene, more: &str) -> Result<String> {
    let url = database::fresh().await?;
    scene.run_well(["migrate", "--database-url", &url]).await?;
    let text = format!("DATABASE_URL={url}\nTODO_TOKEN_SECRET={SECRET}\nTODO_LISTEN=127.0.0.1:0\n{more}");
    Ok(scene.write("todo.env", &text)?.display().to_string())
}

/// A process, and the address that it is ready at.
async fn ready(scene: &Scene, name: &str, args: &[&str], settings: &str) -> Result<(Process, String)> {
    let mut process = start(scene, name, args, &[("TODO_SETTINGS", settings)])?;
    let line = process.line_with("is ready", PATIENCE).await?;
    let address = line.split(" is ready at ").nth(1).context("no address")?.to_owned();
    Ok((process, address))
}

async fn ada(scene: &Scene, address: &str) -> Result<Client> {
    let token = scene.run_well(["token", "--user", "ada", "--secret", SECRET]).await?;
    Client::new(address, token.trim())
}

/// A task of ada's for each second.
fn every_second() -> Value {
    json!({
        "origin": "team/tick", "adopt": [], "hash": "h1", "user": "ada", "name": "tick",
        "schedule": {"cron": "* * * * * *", "time_zone": "UTC"}, "template": {"title": "tick {{n}}"},
    })
}

async fn put(address: &str, key: &str, body: &Value) -> Result<(StatusCode, Value)> {
    let answer = HTTP
        .request(Method::PUT, format!("{address}/internal/v1/schedules/{UID}"))
        .bearer_auth(key)
        .json(body)
        .send()
        .await?;
    Ok((answer.status(), answer.json().await.unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_serves_and_does_all_the_work_and_two_share_it() -> Result<()> {
    let scene = Scene::new()?;
    let settings = settings(&scene, &format!("TODO_INTERNAL_KEY={KEY}\n")).await?;
    let (mut one, first) = ready(&scene, "one", &["serve"], &settings).await?;
    let (mut two, second) = ready(&scene, "two", &["serve"], &settings).await?;
    ensure!(
        put(&first, KEY, &every_second()).await?.0 == StatusCode::OK,
        "not taken"
    );

    let ada = ada(&scene, &second).await?;
    wait_for("three ticks", PATIENCE, || async {
        Ok((ada.list("/tasks").await?.len() >= 3).then_some(()))
    })
    .await?;
    ensure!(one.stop().await?.success(), "{}", one.stderr());
    let before = ada.list("/tasks").await?.len();
    wait_for("the other to go on", PATIENCE, || async {
        Ok((ada.list("/tasks").await?.len() >= before + 2).then_some(()))
    })
    .await?;
    // Events travel to their consumers within the process.
    let tick = ada.list("/tasks").await?.remove(0);
    let history = format!("/tasks/{}/history", tick["id"].as_str().context("no id")?);
    wait_for("the audit log", PATIENCE, || async {
        let history = ada.get(&history).await?;
        Ok((history["items"].as_array().map(Vec::len) == Some(1)).then_some(()))
    })
    .await?;
    let titles: std::collections::BTreeSet<String> = ada
        .list("/tasks")
        .await?
        .iter()
        .map(|task| task["title"].to_string())
        .collect();
    ensure!(titles.len() >= before, "a tick came twice: {titles:?}");
    ensure!(two.stop().await?.success(), "{}", two.stderr());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_left_out_does_nothing_and_its_work_waits() -> Result<()> {
    let scene = Scene::new()?;
    let settings = settings(&scene, &format!("TODO_INTERNAL_KEY={KEY}\n")).await?;
    let without = ["serve", "--without", "recurring,audit", "--without", "reminders"];
    let (mut process, address) = ready(&scene, "without", &without, &settings).await?;
    ensure!(
        put(&address, KEY, &every_second()).await?.0 == StatusCode::OK,
        "not taken"
    );
    let running = HTTP.get(format!("{address}/metrics")).send().await?.text().await?;
    ensure!(running.contains("todo_role_running{role=\"relay\"} 1"), "{running}");
    ensure!(!running.contains("role=\"recurring\""), "{running}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let ada_here = ada(&scene, &address).await?;
    ensure!(ada_here.list("/tasks").await?.is_empty(), "it was made all the same");
    ensure!(process.stop().await?.success(), "{}", process.stderr());

    let (mut process, address) = ready(&scene, "with", &["serve"], &settings).await?;
    let ada = ada(&scene, &address).await?;
    wait_for("what waited", PATIENCE, || async {
        Ok((ada.list("/tasks").await?.len() >= 3).then_some(()))
    })
    .await?;
    ensure!(process.stop().await?.success(), "{}", process.stderr());

    let output = scene
        .run(["serve", "--without", "clerk", "--settings", &settings])
        .await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{}", output.status);
    ensure!(said.lines().count() == 1 && said.contains("TODO_WITHOUT"), "{said}");
    ensure!(said.contains("relay, recurring, reminders, audit"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_the_internal_key_come_from_files_and_the_key_changes_without_a_restart() -> Result<()> {
    const NEW: &str = "another internal key of at least thirty-two bytes";
    let scene = Scene::new()?;
    let file = scene.write("key", KEY)?;
    let more = format!(
        "TODO_INTERNAL_KEY_FILE={}\nTODO_MAX_PAGE_SIZE=5\nTODO_MAX_BODY_BYTES=1024\nTODO_RATE_PER_SECOND=1\n\
         TODO_RATE_BURST=3\n",
        file.display()
    );
    let settings = settings(&scene, &more).await?;
    for command in ["api", "serve"] {
        scene.write("key", KEY)?;
        let (mut process, address) = ready(&scene, command, &[command], &settings).await?;
        let ada = ada(&scene, &address).await?;
        ensure!(
            ada.status_of("/tasks?limit=6").await? == StatusCode::UNPROCESSABLE_ENTITY,
            "{command}: the page size is not taken"
        );
        let long = json!({"title": "t", "description": "x".repeat(1100)});
        let sent = ada.request(Method::POST, "/tasks").json(&long).send().await?;
        ensure!(sent.status() == StatusCode::PAYLOAD_TOO_LARGE, "{}", sent.status());
        let mut last = StatusCode::OK;
        for _ in 0..4 {
            last = ada.request(Method::GET, "/tasks").send().await?.status();
        }
        ensure!(last == StatusCode::TOO_MANY_REQUESTS, "{last}");

        ensure!(
            put(&address, KEY, &every_second()).await?.0 == StatusCode::OK,
            "the key is not taken"
        );
        ensure!(
            put(&address, NEW, &every_second()).await?.0 == StatusCode::UNAUTHORIZED,
            "any key is taken"
        );
        let next = scene.write("next", NEW)?;
        std::fs::rename(next, &file)?;
        wait_for("the new key", PATIENCE, || async {
            Ok((put(&address, NEW, &every_second()).await?.0 == StatusCode::OK).then_some(()))
        })
        .await?;
        ensure!(
            put(&address, KEY, &every_second()).await?.0 == StatusCode::OK,
            "the former is refused at once"
        );
        let said = process.stderr();
        ensure!(!said.contains(KEY) && !said.contains(NEW), "it shows a key: {said}");
        ensure!(process.stop().await?.success(), "{}", process.stderr());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_a_prefix_or_a_key_that_cannot_be_is_refused_by_its_name() -> Result<()> {
    let scene = Scene::new()?;
    let settings = settings(&scene, "").await?;
    for (command, name, value, word) in [
        ("serve", "TODO_MAX_PAGE_SIZE", "1001", "1..=1000"),
        ("api", "TODO_MAX_BODY_BYTES", "1023", "1024..=16777216"),
        ("serve", "TODO_RATE_PER_SECOND", "0", "1..=100000"),
        ("api", "TODO_RATE_BURST", "many", "many"),
        ("serve", "TODO_INTERNAL_KEY", "hunter2", "at least 32 bytes"),
        ("serve", "TODO_DATABASE_CONNECTIONS", "9", "10..=1000"),
        ("worker", "TODO_TOPIC_PREFIX", "a b", "letters"),
        ("migrate", "TODO_MIGRATE_WAIT", "long", "2d"),
    ] {
        let mut command = todo([command]);
        command.env("TODO_SETTINGS", &settings).env(name, value);
        let output = tokio::process::Command::from(command).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2), "{name}: {} {said}", output.status);
        ensure!(
            said.lines().count() == 1 && said.contains(name) && said.contains(word),
            "{said}"
        );
        ensure!(!said.contains("hunter2"), "{said}");
    }
    Ok(())
}
