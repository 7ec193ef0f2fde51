//! `todo api` and `todo worker`: single roles as processes of their own, over a database that is there.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use todo_api::{ApiConfig, ApiState, AuthConfig, Starting};
use todo_events::Waker;
use todo_events::host::Retry;
use todo_worker::{AlarmClock, Role};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::alarms::{self, DaprJobs};
use crate::database::{self, DatabaseArgs};
use crate::failure::Refused;
use crate::health::Health;
use crate::logging::{self, LogFormat};
use crate::platform;
use crate::sidecar::{Bus, SidecarArgs};
use crate::state::{self, DaprState};

/// Run the HTTP API alone
#[derive(Args, Debug)]
pub(crate) struct ApiCommand {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Where to listen; port 0 takes a free one
    #[arg(long, env = "TODO_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// The secret of HS256 tokens, at least 32 bytes
    #[arg(
        long,
        env = "TODO_TOKEN_SECRET",
        hide_env_values = true,
        required_unless_present = "oidc_issuer"
    )]
    token_secret: Option<String>,

    /// The OpenID Connect issuer of tokens, instead of a secret
    #[arg(
        long,
        env = "TODO_OIDC_ISSUER",
        value_name = "URL",
        requires = "oidc_audience",
        conflicts_with = "token_secret"
    )]
    oidc_issuer: Option<String>,

    /// What the tokens' audience must contain
    #[arg(long, env = "TODO_OIDC_AUDIENCE", value_name = "NAME")]
    oidc_audience: Option<String>,

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

    #[command(flatten)]
    sidecar: SidecarArgs,
}

/// Run worker roles alone; without a name, all of them
///
/// Any number of processes may run any role on one database. Over Dapr, name the role: each is an app of its own.
#[derive(Args, Debug)]
pub(crate) struct WorkerCommand {
    /// The roles: relay, recurring, reminders, audit
    #[arg(value_name = "ROLE")]
    roles: Vec<Role>,

    #[command(flatten)]
    database: DatabaseArgs,

    /// Where to listen, for health, metrics and the sidecar; port 0 takes a free one
    #[arg(long, env = "TODO_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,

    /// The most database connections
    #[arg(long, env = "TODO_DATABASE_CONNECTIONS", value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(i64::from(todo_worker::CONNECTIONS)..=1000))]
    database_connections: u32,

    /// How log lines look [default: text on a terminal, JSON elsewhere]
    #[arg(long, env = "TODO_LOG_FORMAT")]
    log_format: Option<LogFormat>,

    /// Have a scheduler of Dapr wake the role reminders [default: true with --bus dapr, else false]
    ///
    /// Reminders go out without it, too: it only saves a moment.
    #[arg(long, env = "TODO_ALARMS", value_name = "BOOL")]
    alarms: Option<bool>,

    #[command(flatten)]
    sidecar: SidecarArgs,
}

/// Runs `todo api`.
pub(crate) async fn run_api(command: ApiCommand) -> Result<()> {
    logging::init(command.log_format);
    let auth = match (command.token_secret, command.oidc_issuer, command.oidc_audience) {
        (_, Some(issuer), Some(audience)) => AuthConfig::Oidc { issuer, audience },
        (Some(secret), _, _) => AuthConfig::Hs256 {
            secret: secret.into_bytes(),
        },
        _ => {
            return Err(Refused::because(
                "give --token-secret, or --oidc-issuer and --oidc-audience",
            ));
        }
    };
    let client = command.sidecar.client()?;
    let metrics = todo_api::install_metrics().context("cannot begin measuring")?;
    let shutdown = platform::shutdown_on_signal()?;
    let listener = bind(command.listen).await?;
    let address = listener.local_addr()?;
    let starting = Starting::new();
    let closing = CancellationToken::new();
    let server = tokio::spawn(todo_api::serve(
        listener,
        starting.router(metrics.clone()),
        closing.clone(),
    ));

    let pool = database::connect(&command.database.database_url, command.database_connections).await?;
    database::require_migrated(&pool).await?;
    let waker = Waker::new();
    let mut health = Health::new(&pool, &shutdown);
    if command.sidecar.bus == Bus::Dapr {
        health = health.with_sidecar(client);
    }
    let state = ApiState::new(ApiConfig::new(auth), pool.clone(), waker.clone(), metrics)
        .context("cannot start the API")?
        .ready_when(health.check());
    let store = command.state_store.as_deref().filter(|name| !name.is_empty());
    let (state, merging) = match store {
        Some(name) => {
            let store = DaprState::new(command.sidecar.settings()?, name).map_err(Refused::because)?;
            let state = state.with_state_store(Arc::new(store));
            let merging = state::keep_merging(state.conversations(), shutdown.clone());
            (state, Some(tokio::spawn(merging)))
        }
        None => (state, None),
    };
    starting.open(todo_api::router(state));
    let announced = tokio::spawn(health.announce(format!("todo api is ready at http://{address}")));
    let exchange = tokio::spawn({
        let (pool, shutdown) = (pool.clone(), shutdown.clone());
        async move { waker.run(pool, shutdown).await }
    });

    shutdown.cancelled().await;
    closing.cancel();
    server.await.context("the API panicked")?;
    exchange.await.context("the wake-ups panicked")?;
    if let Some(merging) = merging {
        merging.await.context("the merging of conversations panicked")?;
    }
    announced.await.context("the greeting panicked")?;
    pool.close().await;
    Ok(())
}

/// Runs `todo worker`.
pub(crate) async fn run_worker(command: WorkerCommand) -> Result<()> {
    logging::init(command.log_format);
    let sidecar = &command.sidecar;
    let roles = roles(&command.roles, sidecar.bus)?;
    let client = sidecar.client()?;
    sidecar.require_guard(command.listen)?;
    let metrics = todo_api::install_metrics().context("cannot begin measuring")?;
    let shutdown = platform::shutdown_on_signal()?;
    let listener = bind(command.listen).await?;
    let address = listener.local_addr()?;
    let starting = Starting::new();
    let closing = CancellationToken::new();
    let server = tokio::spawn(todo_api::serve(
        listener,
        starting.router(metrics.clone()),
        closing.clone(),
    ));

    let pool = database::connect(&command.database.database_url, command.database_connections).await?;
    database::require_migrated(&pool).await?;
    let mut health = Health::new(&pool, &shutdown);
    let carrier = sidecar.carrier(&client);
    let mut routes = todo_api::operations(health.check(), metrics.clone());
    if sidecar.bus == Bus::Dapr {
        let consumers = todo_worker::consumers_of(&roles);
        let needs_sidecar = roles.contains(&Role::Relay) || !consumers.is_empty();
        health = if needs_sidecar {
            health.needing_sidecar(client.clone())
        } else {
            health.with_sidecar(client.clone())
        };
        routes = todo_api::operations(health.check(), metrics);
        for consumer in consumers {
            let retry = Retry::until(shutdown.clone());
            let host = sidecar.host(pool.clone(), consumer, retry, client.clone());
            routes = routes.merge(host.router());
        }
    }
    let waker = Waker::new();
    let has_alarms = command.alarms.unwrap_or(sidecar.bus == Bus::Dapr) && roles.contains(&Role::Reminders);
    let alarms: Option<Arc<dyn AlarmClock>> = if has_alarms {
        routes = routes.merge(alarms::host(sidecar.app_token(), &waker).router());
        let jobs = DaprJobs::new(sidecar.settings()?).map_err(Refused::because)?;
        Some(Arc::new(jobs))
    } else {
        None
    };
    starting.open(routes);
    let named = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(",");
    let greeting = format!("todo worker {named} is ready at http://{address}");
    let announced = tokio::spawn(health.announce(greeting));
    let settings = todo_worker::Settings {
        roles,
        carrier,
        alarms,
        ..todo_worker::Settings::default()
    };
    // It returns when it was told to stop, or when a role panicked: then the others must not go on alone.
    let worked = tokio::spawn(todo_worker::run(pool.clone(), waker, settings, shutdown.clone())).await;
    shutdown.cancel();
    closing.cancel();
    server.await.context("the server panicked")?;
    announced.await.context("the greeting panicked")?;
    pool.close().await;
    worked.context("the workers panicked")
}

/// The roles that were named, all without a name. Over Dapr a process is one app, and its sidecar knows one route for
/// a topic.
fn roles(named: &[Role], bus: Bus) -> Result<BTreeSet<Role>> {
    let roles: BTreeSet<Role> = match named {
        [] if bus == Bus::Dapr => {
            return Err(Refused::because(
                "with --bus dapr each role is an app of its own: name the role, such as `todo worker relay`",
            ));
        }
        [] => Role::ALL.into(),
        named => named.iter().copied().collect(),
    };
    let consumers = todo_worker::consumers_of(&roles);
    if bus == Bus::Dapr && consumers.len() > 1 {
        let both: Vec<&str> = consumers.iter().map(|consumer| consumer.name()).collect();
        return Err(Refused::because(format_args!(
            "with --bus dapr the roles {} cannot share a process, because a sidecar delivers a topic once: start one \
             `todo worker ROLE` for each",
            both.join(" and ")
        )));
    }
    Ok(roles)
}

/// Listens, or says in one line why not.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Refused::because(format_args!(
            "{address} is in use; stop what listens there, or choose another with --listen"
        )),
        _ => Refused::because(format_args!("cannot listen on {address}: {error}")),
    })
}
