//! `todo api`: the HTTP API as a process of its own, over a database that is there.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use todo_api::{ApiConfig, ApiState, AuthConfig};
use todo_events::Waker;
use tokio_util::task::TaskTracker;

use crate::database::{self, DatabaseArgs};
use crate::failure::Refused;
use crate::health::Health;
use crate::logging::LogFormat;
use crate::process::Process;
use crate::secrets::{SecretRef, Source};
use crate::sidecar::Bus;
use crate::state::{self, DaprState};
use crate::telemetry::{self, TraceArgs};

/// Run the HTTP API alone
#[derive(Args, Debug)]
pub(crate) struct ApiCommand {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Where to listen; port 0 takes a free one
    #[arg(long, env = "TODO_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    #[command(flatten)]
    auth: AuthArgs,

    /// The most database connections
    #[arg(long, env = "TODO_DATABASE_CONNECTIONS", value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    database_connections: u32,

    /// How log lines look [default: text on a terminal, JSON elsewhere]
    #[arg(long, env = "TODO_LOG_FORMAT")]
    log_format: Option<LogFormat>,

    /// The Dapr state store where conversations are kept [default: the database]
    ///
    /// While it is away the database stands in, and answers say so.
    #[arg(long, env = "TODO_STATE_STORE", value_name = "NAME")]
    state_store: Option<String>,

    /// How events get to their consumers. The API needs no sidecar for it: that it is away is only said in /readyz
    #[arg(long, env = "TODO_BUS", default_value = "local")]
    bus: Bus,

    #[command(flatten)]
    traces: TraceArgs,
}

/// Who may call.
#[derive(Args, Debug)]
struct AuthArgs {
    /// The secret of HS256 tokens, at least 32 bytes
    #[arg(long, env = "TODO_TOKEN_SECRET", value_name = "SECRET", hide_env_values = true)]
    token_secret: Option<String>,

    /// A file that the secret is in. Of one that changes there, tokens are taken at once, and for an hour those of the
    /// former
    #[arg(long, env = "TODO_TOKEN_SECRET_FILE", value_name = "FILE", hide_env_values = true)]
    token_secret_file: Option<PathBuf>,

    /// Where a Dapr secret store has the secret; one that changes is taken like that of a file
    #[arg(
        long,
        env = "TODO_TOKEN_SECRET_REF",
        value_name = "STORE/NAME/KEY",
        hide_env_values = true
    )]
    token_secret_ref: Option<SecretRef>,

    /// The OpenID Connect issuer of tokens, instead of a secret
    #[arg(long, env = "TODO_OIDC_ISSUER", value_name = "URL")]
    oidc_issuer: Option<String>,

    /// What the tokens' audience must contain
    #[arg(long, env = "TODO_OIDC_AUDIENCE", value_name = "NAME")]
    oidc_audience: Option<String>,
}

/// Runs the command until a signal.
pub(crate) async fn run(command: ApiCommand) -> Result<()> {
    let _telemetry = telemetry::begin(command.log_format, "todo-api", &command.traces)?;
    let url = command.database.source()?;
    let secret = token_secret(&command)?;
    let process = Process::open(command.listen).await?;
    let shutdown = process.shutdown.clone();
    let running = TaskTracker::new();

    let connections = command.database_connections;
    let Some(pool) = database::connect_when_there(&process, url, connections, &running).await? else {
        return process.close().await;
    };
    telemetry::watch(&pool, &shutdown);
    let (auth, secret) = match (secret, command.auth.oidc_issuer, command.auth.oidc_audience) {
        (Some(source), ..) => {
            let waiting = |reason: &str| process.waits_for(reason);
            let Some(secret) = source.first(&shutdown, waiting).await? else {
                return process.close().await;
            };
            let auth = AuthConfig::Hs256 {
                secret: secret.expose().as_bytes().to_vec(),
            };
            (auth, Some((source, secret)))
        }
        (None, Some(issuer), Some(audience)) => (AuthConfig::Oidc { issuer, audience }, None),
        (None, ..) => unreachable!("one of the two was demanded above"),
    };
    let mut health = Health::new(&pool, &shutdown);
    let store = command.state_store.as_deref().filter(|name| !name.is_empty());
    if command.bus == Bus::Dapr || store.is_some() {
        health = health.with_sidecar(command.database.sidecar.client()?);
    }
    let waker = Waker::new();
    let mut state = ApiState::new(
        ApiConfig::new(auth),
        pool.clone(),
        waker.clone(),
        process.metrics.clone(),
    )
    .map_err(|error| {
        let setting = if secret.is_some() {
            "TODO_TOKEN_SECRET"
        } else {
            "TODO_OIDC_ISSUER"
        };
        Refused::because(format_args!("{setting}: {error}"))
    })?
    .ready_when(health.check());

    if let Some(name) = store {
        let store = DaprState::new(command.database.sidecar.settings()?, name).map_err(Refused::because)?;
        state = state.with_state_store(Arc::new(store));
        running.spawn(state::keep_merging(state.conversations(), shutdown.clone()));
    }
    if let (Some(secrets), Some((source, first))) = (state.token_secrets(), secret) {
        running.spawn(source.follow(first, shutdown.clone(), move |secret| {
            let changed = secrets.change(secret.expose().as_bytes());
            async { changed.map_err(|error| error.to_string()) }
        }));
    }
    // No role, and yet what every process does: waking others, and keeping the tables small.
    let roles = todo_worker::Settings {
        roles: BTreeSet::new(),
        ..todo_worker::Settings::default()
    };
    running.spawn(todo_worker::run(pool.clone(), waker, roles, shutdown.clone()));
    process.serve(todo_api::router(state));
    running.spawn(health.announce(format!("todo api is ready at http://{}", process.address)));

    shutdown.cancelled().await;
    process.close().await?;
    running.close();
    running.wait().await;
    pool.close().await;
    Ok(())
}

/// Where the secret of tokens comes from; `None` when an issuer makes them.
fn token_secret(command: &ApiCommand) -> Result<Option<Source>> {
    let auth = &command.auth;
    let source = Source::one_of(
        "TODO_TOKEN_SECRET",
        auth.token_secret.as_deref(),
        auth.token_secret_file.as_deref(),
        auth.token_secret_ref.as_ref(),
        || command.database.sidecar.client(),
    )?;
    match (&source, &auth.oidc_issuer, &auth.oidc_audience) {
        (Some(_), None, None) | (None, Some(_), Some(_)) => Ok(source),
        (Some(_), ..) => Err(Refused::because(
            "TODO_TOKEN_SECRET and TODO_OIDC_ISSUER are both given: keep the one that makes the tokens",
        )),
        (None, None, None) => Err(Refused::because(
            "TODO_TOKEN_SECRET is not set: give --token-secret (or TODO_TOKEN_SECRET_FILE or TODO_TOKEN_SECRET_REF), or \
             --oidc-issuer and --oidc-audience",
        )),
        (None, Some(_), None) => Err(Refused::because(
            "TODO_OIDC_AUDIENCE is not set: TODO_OIDC_ISSUER needs --oidc-audience",
        )),
        (None, None, Some(_)) => Err(Refused::because(
            "TODO_OIDC_ISSUER is not set: TODO_OIDC_AUDIENCE needs --oidc-issuer",
        )),
    }
}
