//! Databases for tests: one server that the quick tests share, and servers that a fault test may kill.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgPool};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::process::{Process, postmaster, todo};
use crate::scene::{Scene, free_port};

const START_PATIENCE: Duration = Duration::from_mins(1);

/// The server that the tests of this process share. It stops when its standard input ends, which is with this process.
struct Shared {
    url: String,
    _process: Child,
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();

/// A new empty database on the shared server: its URL.
pub async fn fresh() -> Result<String> {
    let shared = SHARED
        .get_or_try_init(|| async { tokio::task::spawn_blocking(start_shared).await? })
        .await?;
    let server: PgConnectOptions = shared.url.parse()?;
    let name = format!("e2e_{}", Uuid::now_v7().simple());
    let mut connection = server.connect().await?;
    // The name is made of a UUID's digits.
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    Ok(server.database(&name).to_url_lossy().to_string())
}

fn start_shared() -> Result<Shared> {
    let mut process = todo(["postgres", "--fast-unsafe", "--stop-with-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run todo postgres")?;
    let mut url = String::new();
    BufReader::new(process.stdout.take().context("its output is piped")?).read_line(&mut url)?;
    anyhow::ensure!(url.starts_with("postgres://"), "todo postgres gave no URL");
    Ok(Shared {
        url: url.trim().to_owned(),
        _process: process,
    })
}

/// A pool for a test's own look into a database.
pub async fn open(url: &str) -> Result<PgPool> {
    PgPoolOptions::new()
        .max_connections(4)
        .connect(url)
        .await
        .context("cannot open the database")
}

/// A server of a test's own that is durable, as in production, and that comes back at the same URL.
#[derive(Debug)]
pub struct Server {
    /// Where it is.
    pub url: String,
    data_dir: PathBuf,
    port: String,
    process: Process,
    starts: u32,
}

impl Server {
    /// Starts it in the scene's folder.
    pub async fn start(scene: &Scene) -> Result<Self> {
        let data_dir = scene.path("server");
        let port = free_port()?.to_string();
        let (process, url) = start_server(scene, &data_dir, &port, 0).await?;
        Ok(Self {
            url,
            data_dir,
            port,
            process,
            starts: 0,
        })
    }

    /// Stops it in peace and starts it again.
    pub async fn restart(&mut self, scene: &Scene) -> Result<()> {
        self.process.stop().await?;
        self.again(scene).await
    }

    /// Kills the postmaster, as a machine that runs out of memory does, and starts it again.
    pub async fn crash(&mut self, scene: &Scene) -> Result<()> {
        kill(postmaster(&self.data_dir)?, Signal::SIGKILL)?;
        self.process.end(START_PATIENCE).await?;
        self.again(scene).await
    }

    async fn again(&mut self, scene: &Scene) -> Result<()> {
        self.starts += 1;
        let (process, url) = start_server(scene, &self.data_dir, &self.port, self.starts).await?;
        anyhow::ensure!(url == self.url, "the server came back at another URL");
        self.process = process;
        Ok(())
    }
}

async fn start_server(scene: &Scene, data_dir: &std::path::Path, port: &str, nth: u32) -> Result<(Process, String)> {
    let folder = data_dir.display().to_string();
    let args = ["postgres", "--stop-with-stdin", "--port", port, "--data-dir", &folder];
    let mut process = scene
        .start(&format!("postgres-{nth}"), args)?
        .with_postgres_in(data_dir);
    let url = process.line_with("postgres://", START_PATIENCE).await?;
    Ok((process, url))
}
