//! `todo operator`: what makes and keeps the platforms that resources of a cluster describe.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;
use reqwest::Url;
use todo_api::Readiness;
use todo_operator::connection::{self, PATIENCE};
use todo_operator::health::{self, Standing};
use todo_operator::lease::{self, Election, Ended, Leadership};
use todo_operator::live::{Live, Scope};
use todo_operator::pace::Pace;
use todo_operator::run::Operator;
use todo_operator::schedule::internal_api::Route;
use todo_operator::settings::Settings;
use tokio_util::sync::CancellationToken;

use crate::failure::Refused;
use crate::logging::LogFormat;
use crate::process::Process;
use crate::telemetry::{self, TraceArgs};

/// Where Kubernetes tells a pod which namespace it is in.
const OWN_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Run the operator: make and keep the platforms that a cluster's resources describe
///
/// It works on the cluster that it runs in, or on the one that KUBECONFIG names.
#[derive(Args, Debug)]
pub(crate) struct OperatorCommand {
    /// Where to listen, for health and metrics; port 0 takes a free one
    #[arg(
        long,
        env = "TODO_OPERATOR_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8082"
    )]
    listen: SocketAddr,

    /// The namespaces to look into [default: all]
    #[arg(
        long,
        env = "TODO_OPERATOR_WATCH_NAMESPACES",
        value_name = "NAME",
        value_delimiter = ','
    )]
    watch_namespaces: Vec<String>,

    /// With --watch-namespaces: the namespaces of the Kafka clusters that platforms use
    #[arg(
        long,
        env = "TODO_OPERATOR_KAFKA_NAMESPACES",
        value_name = "NAME",
        value_delimiter = ','
    )]
    kafka_namespaces: Vec<String>,

    /// Work only while holding a lease, so that several copies may run
    #[arg(long, env = "TODO_OPERATOR_LEADER_ELECTION")]
    leader_election: bool,

    /// The lease's name
    #[arg(
        long,
        env = "TODO_OPERATOR_LEASE_NAME",
        value_name = "NAME",
        default_value = "todo-operator"
    )]
    lease_name: String,

    /// The lease's namespace [default: the pod's own]
    #[arg(long, env = "TODO_OPERATOR_LEASE_NAMESPACE", value_name = "NAME")]
    lease_namespace: Option<String>,

    /// How many platforms are worked on at once
    #[arg(long, env = "TODO_OPERATOR_CONCURRENCY", value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,

    #[command(flatten)]
    platform: PlatformArgs,

    /// Where platforms' internal API is, for an operator outside of the cluster [default: at each one's Service]
    #[arg(
        long,
        env = "TODO_OPERATOR_INTERNAL_API_URL",
        value_name = "URL",
        conflicts_with = "sidecar"
    )]
    internal_api_url: Option<Url>,

    /// Reach platforms that have Dapr sidecars through the operator's own, with mutual TLS
    #[arg(long, env = "TODO_OPERATOR_SIDECAR")]
    sidecar: bool,

    /// The sidecar's port
    #[arg(long, env = "DAPR_HTTP_PORT", value_name = "PORT", default_value_t = 3500)]
    sidecar_port: u16,

    /// How log lines look [default: text on a terminal, JSON elsewhere]
    #[arg(long, env = "TODO_LOG_FORMAT")]
    log_format: Option<LogFormat>,

    #[command(flatten)]
    traces: TraceArgs,
}

/// What the operator makes platforms with.
#[derive(Args, Debug)]
pub(crate) struct PlatformArgs {
    /// The image repository of platforms that name none
    #[arg(
        long,
        env = "TODO_OPERATOR_IMAGE_REPOSITORY",
        value_name = "REPOSITORY",
        default_value = "localhost/todo-platform/todo"
    )]
    image_repository: String,

    /// The image of the PostgreSQL that a platform gets for evaluation
    #[arg(
        long,
        env = "TODO_OPERATOR_EVALUATION_POSTGRES_IMAGE",
        value_name = "IMAGE",
        default_value = "postgres:17"
    )]
    evaluation_postgres_image: String,

    /// The domain of the cluster's services
    #[arg(
        long,
        env = "TODO_OPERATOR_CLUSTER_DOMAIN",
        value_name = "NAME",
        default_value = "cluster.local"
    )]
    cluster_domain: String,
}

impl PlatformArgs {
    /// As the operator takes it, which runs in `namespace`.
    pub(crate) fn settings(&self, namespace: String) -> Settings {
        Settings {
            image_repository: self.image_repository.clone(),
            evaluation_postgres_image: self.evaluation_postgres_image.clone(),
            cluster_domain: self.cluster_domain.clone(),
            namespace,
        }
    }
}

/// Runs the command until a signal.
pub(crate) async fn run(command: OperatorCommand) -> Result<()> {
    let _telemetry = telemetry::begin(command.log_format, "todo-operator", &command.traces)?;
    let namespace = own_namespace();
    let config = kube::Config::infer().await.map_err(|error| {
        Refused::because(format_args!(
            "no cluster: run in one, or name a kubeconfig by KUBECONFIG ({error})"
        ))
    })?;
    let process = Process::open(command.listen).await?;
    let shutdown = process.shutdown.clone();

    let unusable = "the cluster's configuration cannot be used";
    let plain = connection::open(config.clone(), PATIENCE).context(unusable)?;
    let instance = std::env::var("HOSTNAME").unwrap_or_else(|_| "todo-operator".to_owned());
    let election = if command.leader_election {
        let lease = lease::Settings::new(
            command.lease_namespace.clone().unwrap_or_else(|| namespace.clone()),
            command.lease_name.as_str(),
            lease::identity(&instance),
        );
        Some(Election::new(plain, lease))
    } else {
        None
    };
    let leadership = election
        .as_ref()
        .map_or_else(Leadership::undisputed, Election::leadership);
    let client = connection::fenced(config, PATIENCE, &leadership).context(unusable)?;

    let live = Live::default();
    process.serve(todo_api::operations(
        readiness(&live, &leadership),
        process.metrics.clone(),
    ));
    let operator = Operator {
        client,
        leadership,
        scope: scope(&command),
        route: route(&command)?,
        concurrency: command.concurrency,
        pace: Pace::default(),
        instance,
        live,
        settings: command.platform.settings(namespace),
    };
    // What writes stops before the lease is given back: with it the next one may begin.
    let after = CancellationToken::new();
    let contending = election.map(|election| tokio::spawn(election.run(after.clone())));
    let worked = operator.run(shutdown).await;
    after.cancel();
    let ended = match contending {
        Some(contending) => contending.await.context("the election panicked")?,
        None => Ended::Stopped,
    };
    process.close().await?;
    worked?;
    match ended {
        Ended::Stopped => Ok(()),
        Ended::Lost => bail!("the lease was lost: another copy leads now"),
    }
}

fn readiness(
    live: &Live,
    leadership: &Leadership,
) -> impl Fn() -> todo_events::BoxFuture<'static, Readiness> + Send + Sync + 'static {
    let (live, leadership) = (live.clone(), leadership.clone());
    move || {
        let readiness = match health::readiness(&live, &leadership) {
            Ok(Standing::Leading | Standing::StandingBy) => Readiness::Ready,
            Err(reason) => Readiness::NotReady(reason),
        };
        Box::pin(std::future::ready(readiness))
    }
}

fn scope(command: &OperatorCommand) -> Scope {
    let names = |names: &[String]| names.iter().filter(|name| !name.is_empty()).cloned().collect();
    let namespaces: std::collections::BTreeSet<String> = names(&command.watch_namespaces);
    Scope {
        namespaces: Some(namespaces).filter(|namespaces| !namespaces.is_empty()),
        kafka_namespaces: names(&command.kafka_namespaces),
    }
}

fn route(command: &OperatorCommand) -> Result<Route> {
    if let Some(url) = &command.internal_api_url {
        return Ok(Route::Fixed(url.clone()));
    }
    let sidecar = format!("http://127.0.0.1:{}/", command.sidecar_port);
    Ok(Route::Cluster {
        domain: command.platform.cluster_domain.clone(),
        sidecar: command.sidecar.then(|| Url::parse(&sidecar)).transpose()?,
    })
}

/// The namespace of the pod; `default` outside of a cluster.
fn own_namespace() -> String {
    let written = std::fs::read_to_string(Path::new(OWN_NAMESPACE)).ok();
    let written = written
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty());
    written.unwrap_or_else(|| "default".to_owned())
}
