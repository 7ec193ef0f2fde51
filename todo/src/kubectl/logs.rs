//! `kubectl todo logs`: what the pods of a platform say, each line with its pod.

use anyhow::Result;
use clap::Args;
use futures::io::AsyncBufReadExt as _;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, LogParams};

use super::{Cluster, Place, said};
use crate::failure::Refused;

/// Names a pod's own container, as for kubectl.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Show what a platform's pods say, each line with its pod before it
#[derive(Args, Debug)]
pub(crate) struct LogsCommand {
    /// The platform
    name: String,

    /// Only this component: api, relay, recurring, reminders, audit, all, migrate, db
    component: Option<String>,

    /// Go on with what they say from now
    #[arg(short, long)]
    follow: bool,

    /// How many lines of each pod to begin with
    #[arg(long, value_name = "N", default_value_t = 100)]
    tail: i64,

    /// The container; `daprd` is the sidecar [default: the pod's own]
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,

    #[command(flatten)]
    place: Place,
}

/// Runs the command.
pub(crate) async fn run(command: &LogsCommand) -> Result<()> {
    let cluster = Cluster::open(&command.place).await?;
    let pods = pods(&cluster, &command.name, command.component.as_deref()).await?;
    if pods.is_empty() {
        return Err(Refused::because(format_args!(
            "no pods of {} in namespace {}",
            command.name, cluster.namespace
        )));
    }
    let api = cluster.api::<Pod>();
    let each = pods.into_iter().map(|pod| told(&api, pod, command));
    for outcome in futures::future::join_all(each).await {
        outcome?;
    }
    Ok(())
}

/// The pods of a platform.
pub(super) async fn pods(cluster: &Cluster, platform: &str, component: Option<&str>) -> Result<Vec<Pod>> {
    let mut labels = format!("todoplatform.dev/platform={platform}");
    if let Some(component) = component {
        labels = format!("{labels},app.kubernetes.io/component={component}");
    }
    let found = cluster.api::<Pod>().list(&ListParams::default().labels(&labels)).await;
    let found = found.map_err(|error| said(&error))?;
    Ok(found.items)
}

/// The container in which the pod does what it is for: the others serve it.
fn own_container(pod: &Pod) -> Option<String> {
    let first = || Some(pod.spec.as_ref()?.containers.first()?.name.clone());
    pod.annotations().get(DEFAULT_CONTAINER).cloned().or_else(first)
}

async fn told(api: &Api<Pod>, pod: Pod, command: &LogsCommand) -> Result<()> {
    let parameters = LogParams {
        container: command.container.clone().or_else(|| own_container(&pod)),
        follow: command.follow,
        tail_lines: Some(command.tail),
        ..LogParams::default()
    };
    let pod = pod.name_any();
    // A pod that has no logs yet keeps no other from being shown.
    let lines = match api.log_stream(&pod, &parameters).await {
        Ok(lines) => lines,
        Err(error) => {
            eprintln!("{pod}: {:#}", said(&error));
            return Ok(());
        }
    };
    let mut lines = lines.lines().into_stream().boxed();
    while let Some(line) = lines.try_next().await? {
        println!("{pod}: {line}");
    }
    Ok(())
}
