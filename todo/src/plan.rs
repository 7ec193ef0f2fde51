//! `todo plan`: what the operator would create, change or delete for a manifest, before it does.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use todo_operator::connection::{self, PATIENCE};
use todo_operator::plan::{self, Plan, Step};
use todo_operator::platform::Severity;

use crate::failure::Refused;
use crate::operator::PlatformArgs;
use crate::up::read_manifest;

/// Show what the operator would create, change or delete for a manifest
///
/// It is compared with the cluster that KUBECONFIG names, by the API server's own dry run; nothing is changed there.
/// Secrets are masked. Without --cluster it shows what would be made from nothing.
#[derive(Args, Debug)]
pub(crate) struct PlanCommand {
    /// A manifest: YAML with a TodoPlatform and any number of RecurringSchedules; `-` is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Compare with the cluster that KUBECONFIG names
    #[arg(long)]
    cluster: bool,

    /// The namespace of a platform that names none [default: the kubeconfig's, else default]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,

    #[command(flatten)]
    platform: PlatformArgs,
}

impl PlanCommand {
    /// The same, compared with the cluster whatever was asked for.
    pub(crate) fn on_cluster(self) -> Self {
        Self { cluster: true, ..self }
    }
}

/// Runs the command.
pub(crate) async fn run(command: PlanCommand) -> Result<()> {
    let manifest = read_manifest(&command.files)?;
    let settings = |namespace: &str| command.platform.settings(namespace.to_owned());
    let plan = if command.cluster {
        let config = kube::Config::infer()
            .await
            .map_err(|error| Refused::because(format_args!("no cluster: name a kubeconfig by KUBECONFIG ({error})")))?;
        let namespace = command.namespace.as_ref().unwrap_or(&config.default_namespace);
        let platform = plan::in_namespace(manifest.platform, namespace);
        let client =
            connection::open(config.clone(), PATIENCE).context("the cluster's configuration cannot be used")?;
        Box::pin(plan::against(&client, &settings("todo-system"), platform)).await?
    } else {
        let namespace = command.namespace.as_deref().unwrap_or("default");
        let platform = plan::in_namespace(manifest.platform, namespace);
        plan::from_nothing(&settings("todo-system"), platform)
    };
    show(&plan);
    Ok(())
}

fn show(plan: &Plan) {
    for change in &plan.changes {
        println!("{change}");
    }
    for problem in &plan.problems {
        let sign = match problem.severity {
            Severity::Note => "note",
            Severity::Impaired => "warning",
            Severity::Blocking => "blocked",
        };
        println!("{sign}: {}", problem.message);
    }
    let counts = plan.counts();
    let count = |step| counts.get(&step).copied().unwrap_or(0);
    println!(
        "{} to create, {} to change, {} to delete, {} as they are",
        count(Step::Create),
        count(Step::Change),
        count(Step::Delete),
        plan.unchanged
    );
}
