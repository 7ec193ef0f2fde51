//! A running platform gets Kafka, and gives it up again: a rollout each time, with processes of both kinds beside each
//! other, and nothing is lost, doubled or out of order.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use todo_e2e::load::{self, Load};
use todo_e2e::process::Process;
use todo_e2e::scene::Scene;
use todo_e2e::stack::{Options, Part, Role, Stack};
use todo_e2e::{check, database, wait_for};

use crate::faults::{make_schedules, pause_schedules};

const WORKERS: [Role; 4] = [Role::Relay, Role::Recurring, Role::Reminders, Role::Audit];
const PATIENCE: Duration = Duration::from_mins(1);
const QUIET: Duration = Duration::from_mins(3);

/// How long the platform runs in one way, and how long in both.
const A_WHILE: Duration = Duration::from_secs(8);
const BOTH: Duration = Duration::from_secs(4);

async fn end_workers(stack: &Stack) -> Result<()> {
    for role in WORKERS {
        let status = stack.end(Part::Service(role, 0)).await?;
        ensure!(status.success(), "{role:?} ended with {status}");
    }
    Ok(())
}

async fn begin_workers(stack: &Stack) -> Result<()> {
    for role in WORKERS {
        stack.begin(Part::Service(role, 0))?;
    }
    for role in WORKERS {
        stack.wait_ready(Part::Service(role, 0)).await?;
    }
    Ok(())
}

/// All roles in one process, as before there was a broker.
async fn begin_local(scene: &Scene, name: &str, url: &str) -> Result<Process> {
    let args = [
        "worker",
        "--bus",
        "local",
        "--listen",
        "127.0.0.1:0",
        "--database-url",
        url,
    ];
    let mut worker = scene.start(name, args)?;
    worker.line_with("is ready", PATIENCE).await?;
    Ok(worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_changes_to_kafka_and_back_while_it_works() -> Result<()> {
    let seed = load::seed("change_of_bus");
    let scene = Scene::new()?;
    let stack = Stack::start(&scene, Options::default()).await?;
    let url = stack.database_url()?;
    let pool = database::open(&url).await?;
    let cursors = async || -> Result<Vec<String>> {
        Ok(sqlx::query_scalar("SELECT name FROM relay_cursor ORDER BY name")
            .fetch_all(&pool)
            .await?)
    };
    // As if there had never been a broker.
    end_workers(&stack).await?;
    sqlx::query("DELETE FROM relay_cursor").execute(&pool).await?;

    let mut local = begin_local(&scene, "before", &url).await?;
    let mut users = vec![];
    for number in 0..12 {
        users.push(stack.client(&scene, &format!("user-{number:02}")).await?);
    }
    make_schedules(&users).await?;
    let load = Load::start(users, 6, seed);
    tokio::time::sleep(A_WHILE).await;
    ensure!(cursors().await? == ["audit", "recurring"], "{:?}", cursors().await?);

    begin_workers(&stack).await?;
    tokio::time::sleep(BOTH).await;
    ensure!(local.stop().await?.success(), "{}", local.stderr());
    let changed = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM audit")
        .fetch_one(&pool)
        .await?;
    tokio::time::sleep(A_WHILE).await;
    let over_kafka = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM audit")
        .fetch_one(&pool)
        .await?;
    ensure!(
        over_kafka > changed + 20,
        "{changed} audit rows became only {over_kafka} over Kafka"
    );

    let mut local = begin_local(&scene, "after", &url).await?;
    tokio::time::sleep(BOTH).await;
    end_workers(&stack).await?;
    tokio::time::sleep(A_WHILE).await;

    let (ledger, users) = load.finish().await?;
    pause_schedules(&users).await?;
    check::wait_until_quiet(&pool, QUIET)
        .await
        .with_context(|| local.stderr())?;
    check::promises(&pool).await?;
    check::schedules_are_complete(&pool).await?;
    let held = ledger.check(&pool, &users).await?;
    println!("{held:?}");
    ensure!(held.acknowledged > 100, "too little happened for a verdict");

    // What the broker's relay left behind goes when it has been away for long.
    ensure!(
        cursors().await? == ["audit", "dapr", "recurring"],
        "{:?}",
        cursors().await?
    );
    sqlx::query("UPDATE relay_cursor SET updated_at = now() - interval '11 minutes' WHERE name = 'dapr'")
        .execute(&pool)
        .await?;
    wait_for("the broker's cursor to go", PATIENCE, async || {
        Ok((cursors().await? == ["audit", "recurring"]).then_some(()))
    })
    .await?;
    ensure!(local.stop().await?.success(), "{}", local.stderr());
    drop(pool);
    stack.stop().await?;
    Ok(())
}
