//! `todo postgres`: the private PostgreSQL alone, in the foreground, for tools that need a database.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

use super::{Options, PrivatePostgres, Source};

/// Run the private PostgreSQL alone, in the foreground
///
/// Prints the URL as the first line on standard output when the server answers, and runs until Ctrl-C or SIGTERM.
#[derive(Args, Clone, Debug)]
pub(crate) struct PostgresCommand {
    /// Folder to keep data in; made when it is missing [default: one that is removed at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// TCP port on 127.0.0.1 [default: a free one]
    #[arg(long)]
    port: Option<u16>,

    /// Do not wait for the disk: fast, and a crash of the machine loses the data. For tests only
    #[arg(long)]
    fast_unsafe: bool,

    /// Stop when standard input ends, so that a tool that holds it open cannot leave a server behind
    #[arg(long)]
    stop_with_stdin: bool,

    /// Apply the SQL migrations in this folder before the URL is printed
    #[arg(long, value_name = "DIR")]
    migrations: Option<PathBuf>,

    #[command(flatten)]
    binaries: BinariesArgs,
}

/// Where the private PostgreSQL's programs come from. Flattened into each command that may start it.
#[derive(Args, Clone, Debug)]
pub(crate) struct BinariesArgs {
    /// PostgreSQL to run: `system` (this machine's), `embedded` (fetched from Maven Central), `auto` (the first, else
    /// the second), or the folder that holds `postgres` and `initdb`
    #[arg(
        long = "postgres",
        env = "TODO_POSTGRES",
        value_name = "auto|system|embedded|DIR",
        default_value_t
    )]
    pub(crate) source: Source,
}

/// Runs the command until it is told to stop.
pub(crate) async fn run(command: PostgresCommand) -> Result<()> {
    if let Some(folder) = &command.data_dir {
        return serve(&command, folder).await;
    }
    let folder = tempfile::Builder::new()
        .prefix("todo-postgres-")
        .tempdir()
        .context("cannot make a temporary folder")?;
    serve(&command, folder.path()).await
}

async fn serve(command: &PostgresCommand, data_dir: &Path) -> Result<()> {
    let options = Options {
        source: command.binaries.source.clone(),
        port: command.port,
        fast_unsafe: command.fast_unsafe,
    };
    // Listening begins before the start, so that Ctrl-C during it is not lost.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut told_to_stop = std::pin::pin!(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = standard_input_ends(), if command.stop_with_stdin => {}
        }
    });

    let progress = |line: &str| eprintln!("{line}");
    let mut postgres = tokio::select! {
        started = PrivatePostgres::start(data_dir, &options, &progress) => started?,
        () = &mut told_to_stop => return Ok(()),
    };
    if let Some(folder) = &command.migrations
        && let Err(error) = migrate(postgres.url(), folder).await
    {
        postgres.stop().await?;
        return Err(error);
    }
    println!("{}", postgres.url());
    std::io::stdout().flush()?;
    eprintln!("PostgreSQL {} is ready", postgres.version());

    tokio::select! {
        () = &mut told_to_stop => postgres.stop().await,
        reason = postgres.ended() => Err(reason),
    }
}

/// Brings an empty database to the schema of the files in `folder`. Read now and not when this program was built, so
/// that a program from before a change of the schema can still serve the tools that build the next one.
async fn migrate(url: &str, folder: &Path) -> Result<()> {
    let migrator = Migrator::new(folder)
        .await
        .with_context(|| format!("cannot read the migrations in {}", folder.display()))?;
    let mut connection = PgConnection::connect(url).await?;
    migrator.run(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// Completes at the end of standard input, whatever comes before it.
async fn standard_input_ends() {
    let mut input = tokio::io::stdin();
    let mut ignored = [0; 256];
    while input.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
}
