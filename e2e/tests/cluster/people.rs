//! `kubectl todo`, as kubectl runs its plugins, for the people who look after the platform `home`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use todo_e2e::cluster::POSTGRES_IMAGE;
use todo_e2e::process::Process;

use crate::climb::SPREAD_OUT;
use crate::world::{World, until};

const COMPONENTS: [&str; 5] = ["api", "relay", "recurring", "reminders", "audit"];
/// A pod's log comes and ends with it.
const LOG_PATIENCE: Duration = Duration::from_mins(1);

/// Says what the climb would do, before anybody does it.
pub(crate) fn plan_the_climb(world: &World) -> Result<()> {
    let file = world.write("climb.yaml", SPREAD_OUT)?;
    let said = world.kubectl(&[
        "todo",
        "plan",
        "--file",
        &file,
        "--evaluation-postgres-image",
        POSTGRES_IMAGE,
    ])?;
    says(
        &said,
        &[
            "~ ConfigMap first/home-settings",
            "+ KafkaTopic kafka/home-task-events",
            "+ KafkaUser kafka/first-home",
            "warning: Strimzi has not made the Secret of KafkaUser first-home yet",
            "0 to delete",
        ],
    )
}

/// Looks at a platform that is spread out, and takes the operator's hands off it for a while.
pub(crate) async fn look_after(world: &World) -> Result<()> {
    let todo = |arguments: &[&str]| world.kubectl(&[&["todo"], arguments, &["--namespace=first"]].concat());
    let status = todo(&["status", "home"])?;
    says(&status, &["first/home: Ready", "home-task-events", "AllTopicsReady"])?;
    for component in COMPONENTS {
        let row = status.lines().find(|line| line.starts_with(component));
        let row = row.with_context(|| format!("no row of {component}: {status}"))?;
        ensure!(row.contains("1/1"), "{row}");
    }
    says(&todo(&["schedules", "home"])?, &["often", "weekly-review", "every 20m"])?;
    let file = world.write("climb.yaml", SPREAD_OUT)?;
    // What the operator is told at its start, a plan has to be told, too.
    let plan = todo(&["plan", "--file", &file, "--evaluation-postgres-image", POSTGRES_IMAGE])?;
    says(&plan, &["0 to create, 0 to change, 0 to delete"])?;

    let logs = todo(&["logs", "home"])?;
    for component in COMPONENTS.into_iter().chain(["db", "migrate"]) {
        let prefix = format!("home-{component}-");
        ensure!(
            logs.lines().any(|line| line.starts_with(&prefix)),
            "no log of {component}: {logs}"
        );
    }
    let sidecar = todo(&["logs", "home", "relay", "--container", "daprd", "--tail", "20"])?;
    ensure!(
        sidecar.lines().all(|line| line.starts_with("home-relay-")) && sidecar.contains("dapr"),
        "{sidecar}"
    );
    bundle_has_no_secrets(world)?;
    world.stage("people see how the platform is");

    says(&todo(&["pause", "home"])?, &["home is paused"])?;
    world.has_condition("first", "todoplatform/home", "Paused")?;
    // What a pod says until its end is followed.
    let mut follow = world.kubectl_command(&[
        "todo",
        "logs",
        "home",
        "reminders",
        "--follow",
        "--tail=1",
        "--namespace=first",
    ])?;
    follow.stdin(std::process::Stdio::null());
    let mut follow = Process::start(follow, world.folder(), "follow")?;
    follow.line_with("home-reminders-", LOG_PATIENCE).await?;
    world.kubectl(&[
        "--namespace=first",
        "scale",
        "deployment/home-reminders",
        "--replicas=0",
    ])?;
    let ended = follow.end(LOG_PATIENCE).await?;
    ensure!(
        ended.success() && follow.stdout().lines().count() > 1,
        "{ended}: {} {}",
        follow.stdout(),
        follow.stderr()
    );
    let replicas = |number: i64| {
        until("the number of reminders' pods", move || async move {
            let live = world.get(&["--namespace", "first", "deployment/home-reminders"])?;
            let wanted = live.pointer("/spec/replicas").and_then(Value::as_i64);
            Ok((wanted == Some(number)).then_some(()))
        })
    };
    // A write of the operator's is what would come at once, and it has seen the change: its status counts the pods.
    until("the operator to see that a component is gone", || async {
        let status = todo(&["status", "home"])?;
        Ok(status
            .lines()
            .any(|line| line.starts_with("reminders") && line.contains("0/0"))
            .then_some(()))
    })
    .await?;
    replicas(0).await?;
    says(&todo(&["resume", "home"])?, &["home goes on"])?;
    replicas(1).await?;
    world.has_condition("first", "todoplatform/home", "Ready")?;
    world.stage("people have paused the operator, and let it go on");
    Ok(())
}

fn bundle_has_no_secrets(world: &World) -> Result<()> {
    let file = world.folder().join("support.tar");
    let output = file.display().to_string();
    world.kubectl(&[
        "todo",
        "support-bundle",
        "home",
        "--output",
        &output,
        "--namespace=first",
    ])?;
    let bundle = fs::read(&file)?;
    let has = |text: &str| bundle.windows(text.len()).any(|window| window == text.as_bytes());
    for part in ["daprd.log", "todo.log", "postgresql.log", "children/components.yaml"] {
        ensure!(has(part), "the bundle has no {part}");
    }
    for (secret, key) in [
        ("home-db", "password"),
        ("home-internal-key", "key"),
        ("home-token", "secret"),
        ("home-dapr-token", "token"),
        ("home-app-token", "token"),
        ("home-kafka", "password"),
    ] {
        let (value, encoded) = (
            world.secret("first", secret, key)?,
            world.encoded("first", secret, key)?,
        );
        ensure!(!has(&value) && !has(&encoded), "the bundle tells the {key} of {secret}");
    }
    Ok(())
}

fn says(said: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(said.contains(part), "nothing is said of {part:?}: {said}");
    }
    Ok(())
}
