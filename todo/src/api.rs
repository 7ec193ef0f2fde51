//! `todo api` and `todo serve`: the HTTP API as a process of its own, over a database that is there; alone, or together
//! with the workers.
//!
//! Both are one function, which differs in the roles that it runs beside the API. What callers show is in `auth`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use todo_api::{ApiConfig, ApiState, RateLimit};
use todo_events::Waker;
use todo_worker::Role;
use tokio_util::task::TaskTracker;

use crate::auth::{AuthArgs, InternalKeyArgs};
use crate::database::{self, DatabaseArgs};
use crate::failure::Refused;
use crate::health::Health;
use crate::logging::LogFormat;
use crate::process::Process;
use crate::sidecar::Bus;
use crate::state::{self, DaprState};
use crate::telemetry::{self, TraceArgs};

/// Run the HTTP API alone
#[derive(Args, Debug)]
pub(crate) struct ApiCommand {
    #[command(flatten)]
    process: ApiProcess,

    /// The most database connections
    #[arg(long, env = "TODO_DATABASE_CONNECTIONS", value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    database_connections: u32,

    /// How events get to their consumers. The API needs no sidecar for it: that it is away is only said in /readyz
    #[arg(long, env = "TODO_BUS", default_value = "local")]
    bus: Bus,
}

/// Run the HTTP API and all worker roles in one process
///
/// For a platform without a broker: events go from hand to hand within each process, and any number of processes may
/// run on one database. It takes over from `todo api` and `todo worker` and hands over to them with nothing lost.
#[derive(Args, Debug)]
pub(crate) struct ServeCommand {
    #[command(flatten)]
    process: ApiProcess,

    /// A role that does not run: relay, recurring, reminders or audit. May be given more than once, or as a list with
    /// commas; what the role would do waits
    #[arg(long, env = "TODO_WITHOUT", value_name = "ROLE", value_delimiter = ',')]
    without: Vec<Role>,

    /// The most database connections
    #[arg(long, env = "TODO_DATABASE_CONNECTIONS", value_name = "N", default_value_t = 28, value_parser = clap::value_parser!(u32).range(i64::from(todo_worker::CONNECTIONS + 2)..=1000))]
    database_connections: u32,
}

/// What a process with the API is told.
#[derive(Args, Debug)]
struct ApiProcess {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Where to listen; port 0 takes a free one
    #[arg(long, env = "TODO_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    #[command(flatten)]
    auth: AuthArgs,

    #[command(flatten)]
    internal_key: InternalKeyArgs,

    #[command(flatten)]
    limits: LimitArgs,

    /// How log lines look [default: text on a terminal, JSON elsewhere]
    #[arg(long, env = "TODO_LOG_FORMAT")]
    log_format: Option<LogFormat>,

    /// The Dapr state store where conversations are kept [default: the database]
    ///
    /// While it is away the database stands in, and answers say so.
    #[arg(long, env = "TODO_STATE_STORE", value_name = "NAME")]
    state_store: Option<String>,

    #[command(flatten)]
    traces: TraceArgs,
}

/// How much one caller may ask for. The bounds are those of a manifest.
#[derive(Args, Debug)]
struct LimitArgs {
    /// The most items on one page of a list
    #[arg(long, env = "TODO_MAX_PAGE_SIZE", value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1000))]
    max_page_size: u16,

    /// The largest request body, in bytes
    #[arg(long, env = "TODO_MAX_BODY_BYTES", value_name = "BYTES", default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(1024..=16_777_216))]
    max_body_bytes: u32,

    /// How many requests per second one user may make over time
    #[arg(long, env = "TODO_RATE_PER_SECOND", value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate_per_second: u32,

    /// How many requests one user may make at once after a pause
    #[arg(long, env = "TODO_RATE_BURST", value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate_burst: u32,
}

/// What runs beside the API, and how.
struct Beside {
    command: &'static str,
    roles: BTreeSet<Role>,
    connections: u32,
    bus: Bus,
}

/// Runs `todo api` until a signal.
pub(crate) async fn run(command: ApiCommand) -> Result<()> {
    let beside = Beside {
        command: "api",
        roles: BTreeSet::new(),
        connections: command.database_connections,
        bus: command.bus,
    };
    command.process.run(beside).await
}

/// Runs `todo serve` until a signal.
pub(crate) async fn run_serve(command: ServeCommand) -> Result<()> {
    let beside = Beside {
        command: "serve",
        roles: Role::ALL
            .into_iter()
            .filter(|role| !command.without.contains(role))
            .collect(),
        connections: command.database_connections,
        bus: Bus::Local,
    };
    command.process.run(beside).await
}

impl ApiProcess {
    async fn run(self, beside: Beside) -> Result<()> {
        let name = beside.command;
        let _telemetry = telemetry::begin(self.log_format, &format!("todo-{name}"), &self.traces)?;
        let sidecar = &self.database.sidecar;
        let url = self.database.source()?;
        let authority = self.auth.authority(sidecar)?;
        let internal_key = self.internal_key.source(sidecar)?;
        let process = Process::open(self.listen).await?;
        let shutdown = process.shutdown.clone();
        let running = TaskTracker::new();

        let Some(pool) = database::connect_when_there(&process, url, beside.connections, &running).await? else {
            return process.close().await;
        };
        telemetry::watch(&pool, &shutdown);
        let waiting = |reason: &str| process.waits_for(reason);
        let Some(authority) = authority.first(&shutdown, waiting).await? else {
            return process.close().await;
        };
        let internal_key = match internal_key {
            Some(source) => {
                let Some(key) = source.first(&shutdown, waiting).await? else {
                    return process.close().await;
                };
                Some((source, key))
            }
            None => None,
        };
        let mut health = Health::new(&pool, &shutdown);
        let store = self.state_store.as_deref().filter(|name| !name.is_empty());
        if beside.bus == Bus::Dapr || store.is_some() {
            health = health.with_sidecar(sidecar.client()?);
        }
        let waker = Waker::new();
        let config = self.limits.apply(ApiConfig::new(authority.config.clone()));
        let mut state = ApiState::new(config, pool.clone(), waker.clone(), process.metrics.clone())
            .map_err(|error| Refused::because(format_args!("{}: {error}", authority.setting)))?
            .ready_when(health.check());
        if let Some((_, key)) = &internal_key {
            state = state
                .with_internal_key(key.expose().as_bytes())
                .map_err(|error| Refused::because(format_args!("TODO_INTERNAL_KEY: {error}")))?;
        }
        if let Some(name) = store {
            let store = DaprState::new(sidecar.settings()?, name).map_err(Refused::because)?;
            state = state.with_state_store(Arc::new(store));
            running.spawn(state::keep_merging(state.conversations(), shutdown.clone()));
        }
        if let (Some(secrets), Some((source, first))) = (state.token_secrets(), authority.secret) {
            running.spawn(source.follow(first, shutdown.clone(), move |secret| {
                let changed = secrets.change(secret.expose().as_bytes());
                async { changed.map_err(|error| error.to_string()) }
            }));
        }
        if let (Some(keys), Some((source, first))) = (state.internal_keys().cloned(), internal_key) {
            running.spawn(source.follow(first, shutdown.clone(), move |key| {
                let changed = keys.change(key.expose().as_bytes());
                async { changed.map_err(|error| error.to_string()) }
            }));
        }
        // Also without a role there is what every process does: waking others, and keeping the tables small.
        let settings = todo_worker::Settings {
            roles: beside.roles,
            ..todo_worker::Settings::default()
        };
        running.spawn(todo_worker::run(pool.clone(), waker, settings, shutdown.clone()));
        process.serve(todo_api::router(state));
        running.spawn(health.announce(format!("todo {name} is ready at http://{}", process.address)));

        shutdown.cancelled().await;
        process.close().await?;
        running.close();
        running.wait().await;
        pool.close().await;
        Ok(())
    }
}

impl LimitArgs {
    fn apply(&self, config: ApiConfig) -> ApiConfig {
        ApiConfig {
            max_page_size: self.max_page_size,
            max_body_bytes: usize::try_from(self.max_body_bytes).unwrap_or(usize::MAX),
            rate_limit: RateLimit::new(self.rate_per_second, self.rate_burst),
            ..config
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::Value;

    use super::*;

    #[derive(Parser)]
    struct Limits {
        #[command(flatten)]
        limits: LimitArgs,
    }

    fn takes(flag: &str, value: &Value) -> bool {
        Limits::try_parse_from(["todo", &format!("--{flag}={value}")]).is_ok()
    }

    #[test]
    fn limits_have_the_bounds_of_a_manifest() {
        let (_, crd) = todo_crds::crd_yaml()
            .into_iter()
            .find(|(file, _)| file.contains("todoplatforms"))
            .unwrap();
        for (flag, field) in [
            ("max-page-size", "maxPageSize"),
            ("max-body-bytes", "maxBodyBytes"),
            ("rate-per-second", "perSecond"),
            ("rate-burst", "burst"),
        ] {
            let bound = |name: &str| -> i64 {
                let field = crd.split(&format!("{field}:\n")).nth(1).unwrap();
                let value = field.split(&format!("{name}: ")).nth(1).unwrap();
                let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
                digits.parse().unwrap()
            };
            let (least, most) = (bound("minimum"), bound("maximum"));
            assert!(takes(flag, &least.into()) && takes(flag, &most.into()), "{flag}");
            assert!(
                !takes(flag, &(least - 1).into()) && !takes(flag, &(most + 1).into()),
                "{flag}: {least} to {most}"
            );
        }
        let config = Limits::parse_from(["todo", "--max-page-size=7", "--rate-burst=9"]).limits;
        let config = config.apply(ApiConfig::new(todo_api::AuthConfig::Hs256 { secret: vec![7; 32] }));
        assert_eq!(config.max_page_size, 7);
        assert_eq!(config.max_body_bytes, 256 * 1024);
        assert_eq!(config.rate_limit, RateLimit::new(100, 9));
    }
}
