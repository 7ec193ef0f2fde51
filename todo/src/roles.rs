//! `todo api` and `todo worker`: single roles as processes of their own, over a database that is there.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::Result;
use clap::Args;
use todo_api::{ApiConfig, AuthConfig};
use todo_worker::Role;
use tokio::net::TcpListener;

use crate::database::{self, DatabaseArgs};
use crate::failure::Refused;
use crate::logging::{self, LogFormat};
use crate::platform::{self, Platform};

/// Run the HTTP API alone
#[derive(Args, Debug)]
pub(crate) struct ApiCommand {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
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
        value_name = "URL",
        requires = "oidc_audience",
        conflicts_with = "token_secret"
    )]
    oidc_issuer: Option<String>,

    /// What the tokens' audience must contain
    #[arg(long, value_name = "NAME")]
    oidc_audience: Option<String>,

    /// The most database connections
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    database_connections: u32,

    /// How log lines look [default: text on a terminal, JSON elsewhere]
    #[arg(long)]
    log_format: Option<LogFormat>,
}

/// Run worker roles alone; without a name, all of them
///
/// Any number of processes may run any role on one database.
#[derive(Args, Debug)]
pub(crate) struct WorkerCommand {
    /// The roles: relay, recurring, reminders, audit
    #[arg(value_name = "ROLE")]
    roles: Vec<Role>,

    #[command(flatten)]
    database: DatabaseArgs,

    /// How log lines look [default: text on a terminal, JSON elsewhere]
    #[arg(long)]
    log_format: Option<LogFormat>,
}

/// Runs `todo api`.
pub(crate) async fn run_api(command: ApiCommand) -> Result<()> {
    logging::init(command.log_format);
    let listener = bind(command.listen).await?;
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
    let pool = database::connect(&command.database.database_url, command.database_connections).await?;
    database::require_migrated(&pool).await?;
    let shutdown = platform::shutdown_on_signal()?;
    tracing::info!(address = %command.listen, "the API listens");
    Platform {
        api: Some((listener, ApiConfig::new(auth))),
        roles: BTreeSet::new(),
    }
    .run(pool, shutdown)
    .await
}

/// Runs `todo worker`.
pub(crate) async fn run_worker(command: WorkerCommand) -> Result<()> {
    logging::init(command.log_format);
    let roles: BTreeSet<Role> = if command.roles.is_empty() {
        Role::ALL.into()
    } else {
        command.roles.into_iter().collect()
    };
    let pool = database::connect(&command.database.database_url, todo_worker::CONNECTIONS).await?;
    database::require_migrated(&pool).await?;
    let shutdown = platform::shutdown_on_signal()?;
    tracing::info!(roles = ?roles.iter().map(Role::to_string).collect::<Vec<_>>(), "the workers run");
    Platform { api: None, roles }.run(pool, shutdown).await
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
