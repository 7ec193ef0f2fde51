//! The life of a server, on real ones: what a killed process leaves must never stand in the way of the next start.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use super::{Options, PrivatePostgres, Source, default_data_dir};

/// Starts without waiting for the disk, which changes nothing for what is tested here, and saves seconds.
async fn start(data: &TempDir) -> anyhow::Result<PrivatePostgres> {
    let options = Options {
        fast_unsafe: true,
        ..Options::default()
    };
    PrivatePostgres::start(data.path(), &options, &|_| {}).await
}

async fn execute(url: &str, sql: &'static str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query(sql).execute(&mut connection).await?;
    connection.close().await
}

fn postmaster(data: &TempDir) -> Pid {
    let text = fs::read_to_string(data.path().join("postgres/data/postmaster.pid")).unwrap();
    Pid::from_raw(text.lines().next().unwrap().parse().unwrap())
}

/// Leaves what `kill -9` of the owner leaves: the lock is let go of, and the server runs on.
fn abandon(postgres: PrivatePostgres) {
    let PrivatePostgres { server, _folder, .. } = postgres;
    std::mem::forget(server);
}

#[tokio::test]
async fn data_is_there_after_a_stop_and_a_second_start_is_quick() {
    let data = TempDir::new().unwrap();
    let first = start(&data).await.unwrap();
    execute(first.url(), "CREATE TABLE kept (id INT)").await.unwrap();
    let pid = postmaster(&data);
    first.stop().await.unwrap();
    assert!(kill(pid, None).is_err(), "the server has ended");

    let began = Instant::now();
    let second = start(&data).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    execute(second.url(), "INSERT INTO kept VALUES (1)").await.unwrap();
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_outlived_its_owner_is_stopped_and_its_data_kept() {
    let data = TempDir::new().unwrap();
    let killed = start(&data).await.unwrap();
    execute(killed.url(), "CREATE TABLE kept (id INT)").await.unwrap();
    let url = killed.url().to_owned();
    let orphan = postmaster(&data);
    abandon(killed);
    execute(&url, "INSERT INTO kept VALUES (1)")
        .await
        .expect("the orphan still runs");

    let next = start(&data).await.unwrap();
    assert_ne!(postmaster(&data), orphan);
    execute(next.url(), "INSERT INTO kept VALUES (2)").await.unwrap();
    next.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_recovers_even_when_its_process_id_belongs_to_another_program() {
    let data = TempDir::new().unwrap();
    let durable = Options::default();
    let killed = PrivatePostgres::start(data.path(), &durable, &|_| {}).await.unwrap();
    execute(killed.url(), "CREATE TABLE kept (id INT)").await.unwrap();
    let orphan = postmaster(&data);
    abandon(killed);
    kill(orphan, Signal::SIGKILL).unwrap();
    let pid_file = data.path().join("postgres/data/postmaster.pid");
    let stale = fs::read_to_string(&pid_file).unwrap();
    let alive = std::os::unix::process::parent_id().to_string();
    fs::write(&pid_file, stale.replacen(&orphan.to_string(), &alive, 1)).unwrap();

    let next = start(&data).await.unwrap();
    execute(next.url(), "INSERT INTO kept VALUES (1)").await.unwrap();
    next.stop().await.unwrap();
}

#[tokio::test]
async fn a_first_start_that_was_killed_halfway_is_done_anew() {
    let data = TempDir::new().unwrap();
    let unfinished = data.path().join("postgres/data.new.1");
    fs::create_dir_all(unfinished.join("base")).unwrap();
    fs::write(unfinished.join("PG_VERSION"), "1\n").unwrap();

    let postgres = start(&data).await.unwrap();
    assert!(!unfinished.exists());
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_process_is_refused_and_told_who_holds_the_data() {
    let data = TempDir::new().unwrap();
    let holder = start(&data).await.unwrap();
    let refused = start(&data).await.unwrap_err();
    let told = format!("in use by process {}", std::process::id());
    assert!(refused.to_string().contains(&told), "{refused}");
    holder.stop().await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_server_is_noticed() {
    let data = TempDir::new().unwrap();
    let mut postgres = start(&data).await.unwrap();
    kill(postmaster(&data), Signal::SIGQUIT).unwrap();
    let reason = tokio::time::timeout(Duration::from_secs(10), postgres.ended())
        .await
        .expect("noticed");
    assert!(reason.to_string().contains("ended unexpectedly"), "{reason}");
}

#[tokio::test]
async fn data_of_another_version_is_refused_in_one_line() {
    let data = TempDir::new().unwrap();
    start(&data).await.unwrap().stop().await.unwrap();
    fs::write(data.path().join("postgres/data/PG_VERSION"), "9\n").unwrap();
    let options = Options {
        source: Source::System,
        ..Options::default()
    };
    let refused = PrivatePostgres::start(data.path(), &options, &|_| {})
        .await
        .unwrap_err();
    let told = "the data was made by PostgreSQL 9 and only that version can open it";
    assert!(refused.to_string().contains(told), "{refused}");
}

#[test]
fn each_platform_has_a_data_folder_of_its_own() {
    let home = default_data_dir("home").unwrap();
    assert!(home.is_absolute());
    assert!(home.ends_with("todo-platform/home"), "{}", home.display());
    assert_ne!(home, default_data_dir("work").unwrap());
}
