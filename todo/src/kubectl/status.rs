//! `kubectl todo status`: how platforms are, and what they wait for.

use anyhow::Result;
use clap::Args;
use kube::ResourceExt as _;
use kube::api::ListParams;
use todo_crds::TodoPlatform;

use super::{Cluster, Place, said, table};
use crate::failure::Refused;

/// Show how a platform is: its components, versions, topics, and what it waits for
#[derive(Args, Debug)]
pub(crate) struct StatusCommand {
    /// The platform [default: all of the namespace]
    name: Option<String>,

    #[command(flatten)]
    place: Place,
}

/// Runs the command.
pub(crate) async fn run(command: &StatusCommand) -> Result<()> {
    let cluster = Cluster::open(&command.place).await?;
    let api = cluster.api::<TodoPlatform>();
    let platforms = match &command.name {
        Some(name) => vec![api.get(name).await.map_err(|error| said(&error))?],
        None => {
            api.list(&ListParams::default())
                .await
                .map_err(|error| said(&error))?
                .items
        }
    };
    if platforms.is_empty() {
        return Err(Refused::because(format_args!(
            "no TodoPlatform in namespace {}",
            cluster.namespace
        )));
    }
    let shown: Vec<String> = platforms.iter().map(shown).collect();
    println!("{}", shown.join("\n\n"));
    Ok(())
}

fn shown(platform: &TodoPlatform) -> String {
    let status = platform.status.clone().unwrap_or_default();
    let phase = status
        .phase
        .map_or_else(|| "unseen by the operator".to_owned(), |phase| format!("{phase:?}"));
    let version = status.version.unwrap_or_default();
    let running = version.running.as_deref().unwrap_or("nothing");
    let mut lines = vec![format!(
        "{}/{}: {phase}, runs {running}, asked for {}",
        platform.namespace().unwrap_or_default(),
        platform.name_any(),
        platform.spec.version
    )];
    if status.observed_generation != platform.metadata.generation {
        lines.push("the operator has not seen the newest change yet".to_owned());
    }
    if let Some(endpoints) = status.endpoints {
        let urls = endpoints.external.into_iter().chain(endpoints.api);
        lines.extend(urls.map(|url| format!("at {url}")));
    }
    let components = status.components.iter().map(|component| {
        let ready = format!("{}/{}", component.ready, component.desired);
        vec![
            component.name.clone(),
            ready,
            component.version.clone().unwrap_or_default(),
        ]
    });
    let components: Vec<Vec<String>> = components.collect();
    if !components.is_empty() {
        lines.push(String::new());
        lines.push(table(&["COMPONENT", "READY", "VERSION"], &components));
    }
    let topics = status.topics.iter().map(|topic| {
        let partitions = topic
            .partitions
            .map_or_else(String::new, |partitions| partitions.to_string());
        vec![topic.name.clone(), partitions, topic.ready.to_string()]
    });
    let topics: Vec<Vec<String>> = topics.collect();
    if !topics.is_empty() {
        lines.push(String::new());
        lines.push(table(&["TOPIC", "PARTITIONS", "READY"], &topics));
    }
    let conditions = status.conditions.iter().map(|condition| {
        [
            &condition.type_,
            &condition.status,
            &condition.reason,
            &condition.message,
        ]
        .map(Clone::clone)
        .into()
    });
    let conditions: Vec<Vec<String>> = conditions.collect();
    if !conditions.is_empty() {
        lines.push(String::new());
        lines.push(table(&["CONDITION", "STATUS", "REASON", "MESSAGE"], &conditions));
    }
    lines.join("\n")
}
