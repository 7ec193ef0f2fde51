//! `todo up`: a platform on one machine, from its manifest, as one process over a private PostgreSQL.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use todo_api::{ApiConfig, AuthConfig, RateLimit};
use todo_crds::{AuthSettings, Manifest, Settings, manifest};
use todo_tasks::UserId;
use todo_worker::Role;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::failure::Refused;
use crate::logging::LogFormat;
use crate::platform::Platform;
use crate::postgres::{self, PrivatePostgres};
use crate::telemetry::{self, TraceArgs};
use crate::{database, declared, process, secret};

/// How long the token of the greeting is valid.
const GREETING_TOKEN: Duration = Duration::from_hours(12);

/// Run a platform on this machine from its manifest
///
/// Starts PostgreSQL (unless a database is given), migrates it, applies the manifest's schedules, and runs the API and
/// all workers in this process. Stop it with Ctrl-C; start it again and everything is there.
#[derive(Args, Debug)]
pub(crate) struct UpCommand {
    /// A manifest: YAML with a TodoPlatform and any number of RecurringSchedules; `-` is standard input. May be given
    /// more than once; without it a platform `home` with every default runs
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Folder that all data is kept in [default: /var/lib/todo-platform/NAME for root, else in the user's data folder]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Where the API listens; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// A database to use instead of a private PostgreSQL
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,

    #[command(flatten)]
    binaries: postgres::command::BinariesArgs,

    #[command(flatten)]
    traces: TraceArgs,
}

/// Runs the command until a signal.
pub(crate) async fn run(command: UpCommand) -> Result<()> {
    let begun = Instant::now();
    let manifest = read_manifest(&command.files)?;
    let settings = Settings::from_platform(&manifest.platform);
    let log_format = settings.log_format.map(|format| match format {
        todo_crds::platform::LogFormat::Text => LogFormat::Text,
        todo_crds::platform::LogFormat::Json => LogFormat::Json,
    });
    let _telemetry = telemetry::begin(log_format, "todo", &command.traces)?;
    let shutdown = process::shutdown_on_signal()?;
    let listener = process::bind(command.listen).await?;
    let address = listener.local_addr()?;
    let data_dir = match command.data_dir {
        Some(data_dir) => std::path::absolute(data_dir)?,
        None => postgres::default_data_dir(&settings.platform)?,
    };
    for note in &settings.notes {
        eprintln!("note: {note}");
    }

    let mut own_postgres = None;
    if command.database_url.is_none() {
        let options = postgres::Options {
            source: command.binaries.source,
            ..postgres::Options::default()
        };
        let progress = |line: &str| eprintln!("{line}");
        own_postgres = tokio::select! {
            started = PrivatePostgres::start(&data_dir, &options, &progress) => Some(started?),
            () = shutdown.cancelled() => return Ok(()),
        };
    }
    let url = match (&own_postgres, &command.database_url) {
        (Some(postgres), _) => postgres.url().to_owned(),
        (None, Some(url)) => url.clone(),
        (None, None) => unreachable!("one of the two was chosen above"),
    };
    let outcome = tokio::select! {
        outcome = serve(&manifest, &settings, &url, &data_dir, (listener, address), begun, shutdown.clone()) => outcome,
        reason = postgres_ended(own_postgres.as_mut()) => Err(reason),
    };
    if let Some(postgres) = own_postgres {
        // Also after a failure: PostgreSQL must not outlive us.
        let stopped = postgres.stop().await;
        outcome.and(stopped)
    } else {
        outcome
    }
}

/// Runs the platform over a database that answers.
async fn serve(
    manifest: &Manifest,
    settings: &Settings,
    url: &str,
    data_dir: &Path,
    (listener, address): (TcpListener, SocketAddr),
    begun: Instant,
    shutdown: CancellationToken,
) -> Result<()> {
    database::migrate(url).await?;
    let pool = database::connect(url, settings.database_max_connections.max(todo_worker::CONNECTIONS + 2)).await?;
    declared::apply(&pool, manifest).await?;
    let auth = match &settings.auth {
        AuthSettings::Hs256 { .. } => AuthConfig::Hs256 {
            secret: secret::load_or_create(data_dir)?,
        },
        AuthSettings::Oidc { issuer, audience } => AuthConfig::Oidc {
            issuer: issuer.clone(),
            audience: audience.clone(),
        },
    };
    greet(settings, &auth, address, data_dir, begun)?;
    let api = settings.api.enabled.then(|| (listener, api_config(settings, auth)));
    let roles: BTreeSet<Role> = settings
        .roles
        .iter()
        .filter_map(|role| role.as_str().parse().ok())
        .collect();
    Platform { api, roles }.run(pool, shutdown).await
}

fn api_config(settings: &Settings, auth: AuthConfig) -> ApiConfig {
    let api = &settings.api;
    ApiConfig {
        max_page_size: u16::try_from(api.max_page_size).unwrap_or(u16::MAX),
        max_body_bytes: usize::try_from(api.max_body_bytes).unwrap_or(usize::MAX),
        rate_limit: RateLimit::new(api.rate_per_second, api.rate_burst),
        ..ApiConfig::new(auth)
    }
}

/// Completes when a PostgreSQL of our own ends by itself; never when there is none.
async fn postgres_ended(postgres: Option<&mut PrivatePostgres>) -> anyhow::Error {
    match postgres {
        Some(postgres) => postgres.ended().await,
        None => std::future::pending().await,
    }
}

/// Reads the files that were named. Every mistake in them is a line of its own.
pub(crate) fn read_manifest(files: &[PathBuf]) -> Result<Manifest> {
    if files.is_empty() {
        return Ok(Manifest::default_platform());
    }
    let mut sources = Vec::with_capacity(files.len());
    let mut refused = Vec::new();
    for file in files {
        match read(file) {
            Ok(text) => sources.push((file.display().to_string(), text)),
            Err(error) => refused.push(format!("{}: cannot be read: {error}", file.display())),
        }
    }
    if !refused.is_empty() {
        return Err(Refused(refused).into());
    }
    manifest::load(&sources).map_err(|errors| Refused(errors.iter().map(ToString::to_string).collect()).into())
}

fn read(file: &Path) -> std::io::Result<String> {
    // One byte more than is allowed shows that there is too much, however large it is.
    let limit = manifest::MAX_FILE_BYTES as u64 + 1;
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().take(limit).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(file)?.take(limit).read_to_string(&mut text)?;
    }
    Ok(text)
}

/// Says where the platform is, and how to make the first task.
fn greet(settings: &Settings, auth: &AuthConfig, address: SocketAddr, data_dir: &Path, begun: Instant) -> Result<()> {
    println!(
        "{} is ready at http://{address} after {:.1} s",
        settings.platform,
        begun.elapsed().as_secs_f64()
    );
    println!("data: {}", data_dir.display());
    if !settings.api.enabled {
        println!("the API is suspended by spec.api.suspend: only workers run");
        return Ok(());
    }
    println!("docs: http://{address}/docs");
    match auth {
        AuthConfig::Hs256 { secret } => {
            let user = UserId::parse("alice").map_err(Refused::because)?;
            let token = todo_api::token::sign(secret, &user, GREETING_TOKEN)?;
            println!("\nMake a task:\n");
            println!("  curl -s http://{address}/api/v1/tasks \\");
            println!("    -H 'Authorization: Bearer {token}' \\");
            println!("    -H 'Content-Type: application/json' \\");
            println!("    -d '{{\"title\": \"Water the plants\"}}'\n");
            println!("More tokens: todo token --user NAME --data-dir {}", data_dir.display());
        }
        AuthConfig::Oidc { issuer, .. } => println!("tokens: from {issuer}"),
    }
    Ok(())
}
