//! The database that a process works on: connecting, migrating, and refusing what does not fit.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool};
use todo_events::{outbox, partitions};
use todo_recurrence::zone;
use todo_tasks::zone_rules;

use crate::failure::Refused;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// How many days of event partitions stand ready after a migration.
const DAYS_AHEAD: u16 = 7;

/// How long a server may take to answer, and a statement to get a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// The oldest server that the schema works on: it needs UNIQUE NULLS NOT DISTINCT.
const OLDEST_SERVER: i32 = 150_000;

/// Bring a database up to this version
///
/// Safe to run at any time and side by side: a database that is up to date is left alone. Older binaries keep working
/// on the schema of the next version, so migrate first and roll the processes after.
#[derive(Args, Debug)]
pub(crate) struct MigrateCommand {
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Which database.
#[derive(Args, Debug)]
pub(crate) struct DatabaseArgs {
    /// The database, as `postgres://USER:PASSWORD@HOST:PORT/NAME`
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) database_url: String,
}

/// Runs `todo migrate`.
pub(crate) async fn run_migrate(command: MigrateCommand) -> Result<()> {
    crate::logging::init(None);
    migrate(&command.database.database_url).await?;
    println!("the database is at version {}", newest_known());
    Ok(())
}

/// Opens a pool for requests and workers: no statement of theirs takes long, and one that does is ended.
pub(crate) async fn connect(url: &str, max_connections: u32) -> Result<PgPool> {
    open(url, max_connections, "60s").await
}

/// Opens a pool for work that takes as long as it takes: migrations, rebuilds.
pub(crate) async fn connect_for_maintenance(url: &str) -> Result<PgPool> {
    open(url, 4, "0").await
}

/// Opens a pool. One connection is made beside it first: it says what is wrong with the URL or the server, where a pool
/// would only say that it waited.
async fn open(url: &str, max_connections: u32, statement_timeout: &str) -> Result<PgPool> {
    let options: PgConnectOptions = url.parse().map_err(|error| {
        Refused::because(format_args!(
            "the database URL cannot be read: {}",
            without_password(&error)
        ))
    })?;
    let options = options
        .application_name("todo")
        .options([("statement_timeout", statement_timeout), ("timezone", "UTC")]);
    let mut first = tokio::time::timeout(PATIENCE, PgConnection::connect_with(&options))
        .await
        .context("cannot connect to the database: no answer")?
        .context("cannot connect to the database")?;
    refuse_old_server(&mut first).await?;
    first.close().await?;
    let pool = PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(PATIENCE)
        // Costs a round trip for each use; a connection that broke is found by the statement that uses it.
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .context("cannot connect to the database")?;
    Ok(pool)
}

async fn refuse_old_server(connection: &mut PgConnection) -> Result<()> {
    let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::integer")
        .fetch_one(connection)
        .await?;
    if version < OLDEST_SERVER {
        return Err(Refused::because(format_args!(
            "the database server is PostgreSQL {}; version {} or newer is needed",
            version / 10_000,
            OLDEST_SERVER / 10_000
        )));
    }
    Ok(())
}

/// What is wrong with a URL, without the URL: it may hold a password.
fn without_password(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::Configuration(_) => "write postgres://USER:PASSWORD@HOST:PORT/NAME",
        _ => "it is not one of PostgreSQL",
    }
}

/// Migrates the schema to this version, makes good what a restored dump or new time-zone rules need, and prepares the
/// days ahead.
pub(crate) async fn migrate(url: &str) -> Result<()> {
    let pool = &connect_for_maintenance(url).await?;
    refuse_newer(pool).await?;
    MIGRATIONS.run(pool).await.context("cannot migrate the database")?;
    let rebased = outbox::rebase_after_restore(pool)
        .await
        .context("cannot take over a restored outbox")?;
    if rebased > 0 {
        tracing::info!(
            events = rebased,
            "numbered events anew: the database was restored from a dump"
        );
    }
    partitions::ensure(pool, DAYS_AHEAD)
        .await
        .context("cannot make partitions for events")?;
    let refreshed = zone_rules::refresh(pool, zone::database_version())
        .await
        .context("cannot apply time-zone rules")?;
    if let Some(refreshed) = refreshed {
        tracing::info!(
            version = zone::database_version(),
            tasks = refreshed.tasks,
            reminders = refreshed.reminders,
            schedules = refreshed.schedules,
            "applied time-zone rules"
        );
    }
    pool.close().await;
    Ok(())
}

/// Refuses a database that a newer version has migrated; nothing is changed.
pub(crate) async fn refuse_newer(pool: &PgPool) -> Result<()> {
    if let Some(version) = applied_version(pool).await?
        && version > newest_known()
    {
        return Err(Refused::because(format_args!(
            "the database is at version {version}, this binary knows versions up to {}; run a newer todo",
            newest_known()
        )));
    }
    Ok(())
}

/// Refuses a database that is not at this binary's version or newer by one expansion; says what to run.
pub(crate) async fn require_migrated(pool: &PgPool) -> Result<()> {
    match applied_version(pool).await? {
        Some(version) if version >= newest_known() => Ok(()),
        _ => Err(Refused::because(format_args!(
            "the database is not at version {}; run `todo migrate` first",
            newest_known()
        ))),
    }
}

/// The version of the schema in the database; `None` when there is none.
pub(crate) async fn applied_version(pool: &PgPool) -> Result<Option<i64>, sqlx::Error> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(pool)
        .await?;
    if !exists {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
        .fetch_one(pool)
        .await
}

/// The newest version of the schema that this binary knows.
pub(crate) fn newest_known() -> i64 {
    MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or_default()
}
