//! `kubectl todo`: platforms on a cluster, for the people who run them. The same binary, under the name `kubectl-todo`.
//!
//! Each command asks the cluster that the kubeconfig names, with the rights of whoever runs it. Nothing here does what the
//! operator does: pausing is a field of the manifest, and a plan changes nothing.

mod bundle;
mod logs;
mod pause;
mod schedules;
mod status;

use std::path::Path;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use todo_operator::connection::{self, PATIENCE};

use crate::failure::Refused;
use crate::plan;

/// What the binary is called when kubectl runs it.
const NAME: &str = "kubectl-todo";

/// Look after Todo Platforms on a cluster
#[derive(Parser)]
#[command(name = "kubectl todo", bin_name = "kubectl todo", version, propagate_version = true)]
pub(crate) struct Kubectl {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Status(status::StatusCommand),
    Plan(plan::PlanCommand),
    Logs(logs::LogsCommand),
    Pause(pause::PauseCommand),
    Resume(pause::ResumeCommand),
    Schedules(schedules::SchedulesCommand),
    SupportBundle(bundle::BundleCommand),
}

/// Whether this process was started as kubectl's plugin.
pub(crate) fn is_meant() -> bool {
    let program = std::env::args_os().next();
    let name = program.as_deref().map(Path::new).and_then(Path::file_stem);
    name.is_some_and(|name| name == NAME)
}

/// Runs the command.
pub(crate) async fn run(kubectl: Kubectl) -> Result<()> {
    match kubectl.command {
        Command::Status(command) => status::run(&command).await,
        Command::Plan(command) => plan::run(command.on_cluster()).await,
        Command::Logs(command) => logs::run(&command).await,
        Command::Pause(command) => pause::pause(&command).await,
        Command::Resume(command) => pause::resume(&command).await,
        Command::Schedules(command) => schedules::run(&command).await,
        Command::SupportBundle(command) => bundle::run(&command).await,
    }
}

/// Where to look.
#[derive(Args, Debug)]
struct Place {
    /// The namespace [default: the kubeconfig's]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
}

/// A cluster, and a namespace in it.
struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    async fn open(place: &Place) -> Result<Self> {
        let config = kube::Config::infer()
            .await
            .map_err(|error| Refused::because(format_args!("no cluster: name a kubeconfig by KUBECONFIG ({error})")))?;
        let namespace = place
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = connection::open(config, PATIENCE).context("the cluster's configuration cannot be used")?;
        Ok(Self { client, namespace })
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// What the API server answered, in one line.
fn said(error: &kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => Refused::because(&status.message),
        other => Refused::because(other),
    }
}

/// Rows under their headings, each column as wide as its widest cell.
fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    };
    let mut lines = vec![line(headings.to_vec())];
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["api".to_owned(), "3/3".to_owned()],
            vec!["reminders".to_owned(), "1/2".to_owned()],
        ];
        assert_eq!(
            table(&["NAME", "READY"], &rows),
            "NAME        READY\napi         3/3\nreminders   1/2"
        );
    }
}
