//! The database that a process works on: connecting, migrating, and refusing what does not fit.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool};
use todo_dapr::Secret;
use todo_events::{outbox, partitions};
use todo_recurrence::span::Span;
use todo_recurrence::zone;
use todo_tasks::{schedule, zone_rules};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::failure::Refused;
use crate::process::Process;
use crate::secrets::{SecretRef, Source};
use crate::settings::SettingsArgs;
use crate::sidecar::SidecarArgs;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// How many days of event partitions stand ready after a migration.
const DAYS_AHEAD: u16 = 7;

/// How long a server may take to answer, and a statement to get a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a database that is away is looked for.
const WAIT: Duration = Duration::from_millis(500);

/// How long a command to an end waits for a secret store.
const SECRET_PATIENCE: Duration = Duration::from_secs(30);

/// How long a statement of a request or a worker may take.
const STATEMENT_TIMEOUT: &str = "60s";

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

    /// How long to wait for a database that is not there yet, such as 2m
    #[arg(long, env = "TODO_MIGRATE_WAIT", value_name = "DURATION", default_value = "0s")]
    wait: Span,
}

/// Which database, and the settings file that may name it.
#[derive(Args, Debug)]
pub(crate) struct DatabaseArgs {
    #[command(flatten)]
    _settings: SettingsArgs,

    /// The database, as `postgres://USER:PASSWORD@HOST:PORT/NAME`
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,

    /// A file that the database's URL is in; a new password there is taken without a restart
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE", hide_env_values = true)]
    database_url_file: Option<PathBuf>,

    /// Where a Dapr secret store has the database's URL; a new password there is taken without a restart
    #[arg(
        long,
        env = "DATABASE_URL_REF",
        value_name = "STORE/NAME/KEY",
        hide_env_values = true
    )]
    database_url_ref: Option<SecretRef>,

    #[command(flatten)]
    pub(crate) sidecar: SidecarArgs,
}

impl DatabaseArgs {
    /// Where the database's URL comes from.
    pub(crate) fn source(&self) -> Result<Source> {
        let source = Source::one_of(
            "DATABASE_URL",
            self.database_url.as_deref(),
            self.database_url_file.as_deref(),
            self.database_url_ref.as_ref(),
            || self.sidecar.client(),
        )?;
        source.ok_or_else(|| {
            Refused::because("DATABASE_URL is not set: give --database-url, or DATABASE_URL_FILE or DATABASE_URL_REF")
        })
    }

    /// The database's URL, for a command that comes to an end by itself.
    pub(crate) async fn url(&self) -> Result<String> {
        let (source, never) = (self.source()?, CancellationToken::new());
        let asked = source.first(&never, |reason| tracing::warn!(reason, "waiting"));
        let url = tokio::time::timeout(SECRET_PATIENCE, asked)
            .await
            .context("DATABASE_URL_REF: the secret store does not answer")??
            .context("nothing stops this wait")?;
        Ok(url.expose().to_owned())
    }
}

/// Runs `todo migrate`.
pub(crate) async fn run_migrate(command: MigrateCommand) -> Result<()> {
    crate::logging::init(None);
    let until = Instant::now() + Duration::from_secs(command.wait.seconds());
    let mut said = String::new();
    loop {
        // Read again each time: it may be changed because the database cannot be reached.
        let outcome = migrate(&command.database.url().await?).await;
        let error = match outcome {
            Err(error) if (is_away(&error) || is_not_made(&error)) && Instant::now() + WAIT < until => {
                format!("{error:#}")
            }
            outcome => break outcome?,
        };
        if error != said {
            tracing::warn!(reason = error, "waiting");
            said = error;
        }
        tokio::time::sleep(WAIT).await;
    }
    println!("the database is at version {}", newest_known());
    Ok(())
}

/// Opens a pool for requests and workers: no statement of theirs takes long, and one that does is ended.
pub(crate) async fn connect(url: &str, max_connections: u32) -> Result<PgPool> {
    open(url, max_connections, STATEMENT_TIMEOUT).await
}

/// Opens the pool of a process that serves, and keeps to its URL when that changes. Waits for a database that is not
/// there yet, as it waits for its secret; what is wrong is refused. `None` when the process is stopped meanwhile.
pub(crate) async fn connect_when_there(
    process: &Process,
    source: Source,
    max_connections: u32,
    running: &TaskTracker,
) -> Result<Option<PgPool>> {
    let mut said = String::new();
    while !process.shutdown.is_cancelled() {
        // Read again each time: it may be changed because the database cannot be reached.
        let waiting = |reason: &str| process.waits_for(reason);
        let Some(url) = source.first(&process.shutdown, waiting).await? else {
            break;
        };
        let error = match connect(url.expose(), max_connections).await {
            Ok(pool) => {
                require_migrated(&pool).await?;
                let taken_by = pool.clone();
                let take = move |url| change_url(taken_by.clone(), url);
                running.spawn(source.follow(url, process.shutdown.clone(), take));
                return Ok(Some(pool));
            }
            Err(error) if is_away(&error) => format!("{error:#}"),
            Err(error) => return Err(error),
        };
        if error != said {
            process.waits_for(&error);
            said = error;
        }
        tokio::select! {
            () = tokio::time::sleep(WAIT) => {}
            () = process.shutdown.cancelled() => {}
        }
    }
    Ok(None)
}

/// Whether the database may be there later, with nothing changed here.
fn is_away(error: &anyhow::Error) -> bool {
    if error.is::<tokio::time::error::Elapsed>() {
        return true;
    }
    match error.downcast_ref() {
        Some(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut) => true,
        // Shutting down or starting up; out of connections
        // (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
        Some(sqlx::Error::Database(error)) => error
            .code()
            .is_some_and(|code| ["57P", "53"].iter().any(|class| code.starts_with(class))),
        _ => false,
    }
}

/// Whether the server is there and the database is yet to be made.
fn is_not_made(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(sqlx::Error::Database(error)) => error.code().as_deref() == Some("3D000"),
        _ => false,
    }
}

/// Opens a pool for work that takes as long as it takes: migrations, rebuilds.
pub(crate) async fn connect_for_maintenance(url: &str) -> Result<PgPool> {
    open(url, 4, "0").await
}

/// Opens a pool. One connection is made beside it first: it says what is wrong with the URL or the server, where a pool
/// would only say that it waited.
async fn open(url: &str, max_connections: u32, statement_timeout: &str) -> Result<PgPool> {
    let options = options_of(url, statement_timeout).map_err(Refused::because)?;
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

/// How to connect by this URL.
fn options_of(url: &str, statement_timeout: &str) -> Result<PgConnectOptions, String> {
    let options: PgConnectOptions = url
        .parse()
        .map_err(|error| format!("DATABASE_URL cannot be read: {}", without_password(&error)))?;
    Ok(options
        .application_name("todo")
        .options([("statement_timeout", statement_timeout), ("timezone", "UTC")]))
}

/// Takes over a URL that has changed, for connections from now on; those that are open stay. Refused unless a
/// connection can be made with it, so that a wrong one does no harm; and for another database, where those that are
/// open would still write to the former one.
pub(crate) async fn change_url(pool: PgPool, url: Secret) -> Result<(), String> {
    let options = options_of(url.expose(), STATEMENT_TIMEOUT)?;
    let place = |options: &PgConnectOptions| {
        (
            options.get_host().to_owned(),
            options.get_port(),
            options.get_socket().cloned(),
            options.get_database().map(str::to_owned),
        )
    };
    if place(&options) != place(&pool.connect_options()) {
        return Err("it names another server or database, and to move there takes a restart".to_owned());
    }
    let connection = tokio::time::timeout(PATIENCE, PgConnection::connect_with(&options))
        .await
        .map_err(|_| "the database does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    // It has served its purpose; whether it ends well changes nothing.
    let _ = connection.close().await;
    pool.set_connect_options(options);
    Ok(())
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
    schedule::rebase_after_restore(pool)
        .await
        .context("cannot take over restored schedules")?;
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
