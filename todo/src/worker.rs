//! `todo worker`: worker roles as a process of their own, over a database that is there.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::middleware;
use clap::Args;
use todo_events::Waker;
use todo_events::host::Retry;
use todo_worker::Role;
use tokio_util::task::TaskTracker;

use crate::alarms::{self, DaprJobs};
use crate::database::{self, DatabaseArgs};
use crate::failure::Refused;
use crate::health::Health;
use crate::logging::LogFormat;
use crate::process::Process;
use crate::sidecar::{Bus, BusArgs};
use crate::telemetry::{self, TraceArgs};

/// How long a process that stops still answers the sidecar, which is told to come again with what is new: the next copy
/// gets it sooner than after a call that nobody took.
const LINGER: Duration = Duration::from_secs(1);

/// Run worker roles alone; without a name, all of them
///
/// Any number of processes may run any role on one database. With --bus dapr each role is an app of its own, so name
/// it.
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

    #[command(flatten)]
    bus: BusArgs,

    #[command(flatten)]
    traces: TraceArgs,
}

/// Runs the command until a signal.
pub(crate) async fn run(command: WorkerCommand) -> Result<()> {
    let bus = &command.bus;
    let roles = roles(&command.roles, bus.bus)?;
    let _telemetry = telemetry::begin(command.log_format, &service(&roles), &command.traces)?;
    bus.require_guard(command.listen)?;
    let client = command.database.sidecar.client()?;
    let url = command.database.source()?;
    let process = Process::open(command.listen).await?;
    let shutdown = process.shutdown.clone();

    let running = TaskTracker::new();
    let connections = command.database_connections;
    let Some(pool) = database::connect_when_there(&process, url, connections, &running).await? else {
        return process.close().await;
    };
    telemetry::watch(&pool, &shutdown);
    let waker = Waker::new();
    let is_called = bus.bus == Bus::Dapr;
    let mut health = Health::new(&pool, &shutdown);
    let mut called = axum::Router::new();
    if is_called {
        let consumers = todo_worker::consumers_of(&roles);
        let needs_sidecar = roles.contains(&Role::Relay) || !consumers.is_empty();
        health = if needs_sidecar {
            health.needing_sidecar(client.clone())
        } else {
            health.with_sidecar(client.clone())
        };
        for consumer in consumers {
            let retry = Retry::until(shutdown.clone());
            let host = bus.subscription_host(pool.clone(), consumer, retry, client.clone());
            called = called.merge(host.router());
        }
    }
    let mut settings = todo_worker::Settings {
        carrier: bus.carrier(&client),
        ..todo_worker::Settings::default()
    };
    if bus.has_alarms() && roles.contains(&Role::Reminders) {
        let jobs = DaprJobs::new(command.database.sidecar.settings()?).map_err(Refused::because)?;
        settings.alarms = Some(Arc::new(jobs));
        called = called.merge(alarms::host(bus.app_token(), &waker).router());
    }
    let called = called.layer(middleware::from_fn(todo_api::trace_requests));
    process.serve(todo_api::operations(health.check(), process.metrics.clone()).merge(called));

    let names = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(",");
    running.spawn(health.announce(format!("todo worker {names} is ready at http://{}", process.address)));
    settings.roles = roles;
    // It returns when it was told to stop, or when a role panicked: then the others must not go on alone.
    let worked = tokio::spawn(todo_worker::run(pool.clone(), waker, settings, shutdown.clone())).await;
    shutdown.cancel();
    if is_called {
        tokio::time::sleep(LINGER).await;
    }
    process.close().await?;
    running.close();
    running.wait().await;
    pool.close().await;
    worked.context("the workers panicked")
}

/// What a worker is called in traces: by its role when it has one, as its app is over Dapr.
fn service(roles: &BTreeSet<Role>) -> String {
    match roles.iter().collect::<Vec<_>>()[..] {
        [role] => format!("todo-{role}"),
        _ => "todo-worker".to_owned(),
    }
}

/// The roles that were named, all without a name. Over Dapr a process is one app, and its sidecar knows one route for
/// a topic.
fn roles(named: &[Role], bus: Bus) -> Result<BTreeSet<Role>> {
    let roles: BTreeSet<Role> = match named {
        [] if bus == Bus::Dapr => {
            return Err(Refused::because(
                "with TODO_BUS=dapr (--bus dapr) each role is an app of its own: name the role, such as `todo worker \
                 relay`",
            ));
        }
        [] => Role::ALL.into(),
        named => named.iter().copied().collect(),
    };
    let consumers = todo_worker::consumers_of(&roles);
    if bus == Bus::Dapr && consumers.len() > 1 {
        let both: Vec<&str> = consumers.iter().map(|consumer| consumer.name()).collect();
        return Err(Refused::because(format_args!(
            "with TODO_BUS=dapr (--bus dapr) the roles {} cannot share a process, because a sidecar delivers a topic \
             once: start one `todo worker ROLE` for each",
            both.join(" and ")
        )));
    }
    Ok(roles)
}
