//! `todo migrate` as a job of a cluster runs it: the database may not be there yet, and another may do the same.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use todo_e2e::database;
use todo_e2e::process::todo;
use todo_e2e::scene::{Scene, free_port};

use crate::processes::start;

const PATIENCE: Duration = Duration::from_mins(1);

async fn number(url: &str, query: &'static str) -> Result<i64> {
    let pool = database::open(url).await?;
    Ok(sqlx::query_scalar(query).fetch_one(&pool).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_at_once_migrate_an_empty_database_once() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    let file = scene.write("url", &format!("{url}\n"))?;
    let at_once: Vec<_> = (0..4)
        .map(|_| {
            let mut command = todo(["migrate"]);
            command.env("DATABASE_URL_FILE", &file);
            tokio::spawn(tokio::process::Command::from(command).output())
        })
        .collect();
    for running in at_once {
        let output = running.await??;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", output.status);
        ensure!(!said.contains(&url), "it shows the URL: {said}");
    }
    let applied = number(&url, "SELECT count(*) FROM _sqlx_migrations WHERE success").await?;
    let newest = number(&url, "SELECT max(version) FROM _sqlx_migrations").await?;
    ensure!(applied == newest, "{applied} of {newest}");
    scene.run_well(["migrate", "--database-url", &url]).await?;
    ensure!(
        number(&url, "SELECT count(*) FROM _sqlx_migrations").await? == applied,
        "once more is something else"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_waited_for_and_no_longer_than_was_said() -> Result<()> {
    let scene = Scene::new()?;
    let nowhere = format!("postgres://todo:hunter2@127.0.0.1:{}/todo", free_port()?);
    for (wait, least, most) in [("0s", 0, 5), ("2s", 1, 10)] {
        let begun = Instant::now();
        let output = scene
            .run(["migrate", "--wait", wait, "--database-url", &nowhere])
            .await?;
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().context("nothing was said")?;
        ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
        ensure!(last.starts_with("todo: cannot connect to the database"), "{said}");
        ensure!(!said.contains("hunter2") && output.stdout.is_empty(), "{said}");
        let took = begun.elapsed().as_secs();
        ensure!((least..=most).contains(&took), "--wait {wait} took {took} s");
    }
    // What waiting does not mend is said at once.
    let begun = Instant::now();
    let output = scene
        .run(["migrate", "--wait", "1m", "--database-url", "hunter2"])
        .await?;
    ensure!(output.status.code() == Some(2), "{}", output.status);
    ensure!(begun.elapsed() < Duration::from_secs(20), "it waited");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_comes_later_is_migrated() -> Result<()> {
    let scene = Scene::new()?;
    let server: PgConnectOptions = database::fresh().await?.parse()?;
    let later = format!("{}_later", server.get_database().context("no name")?);
    let url = server.clone().database(&later).to_url_lossy().to_string();
    let environment = [("DATABASE_URL", url.as_str()), ("TODO_MIGRATE_WAIT", "1m")];
    let mut migrate = start(&scene, "migrate", &["migrate"], &environment)?;
    todo_e2e::wait_for("it to wait", PATIENCE, || async {
        Ok(migrate.stderr().contains("waiting").then_some(()))
    })
    .await?;
    let mut connection = server.connect().await?;
    // The name is made of a UUID's digits.
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {later}")))
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    migrate.line_with("the database is at version", PATIENCE).await?;
    Ok(())
}
