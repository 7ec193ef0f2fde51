//! `kubectl todo pause` and `resume`: the operator's hands off a platform, and on again.

use anyhow::Result;
use clap::Args;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use todo_crds::TodoPlatform;

use super::{Cluster, Place, said};

/// Who writes `spec.paused` here.
const MANAGER: &str = "kubectl-todo";

/// Let the operator only look at a platform: what runs goes on, and nothing is changed
#[derive(Args, Debug)]
pub(crate) struct PauseCommand {
    #[command(flatten)]
    target: Target,
}

/// Let the operator work on a platform again
#[derive(Args, Debug)]
pub(crate) struct ResumeCommand {
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
struct Target {
    /// The platform
    name: String,

    #[command(flatten)]
    place: Place,
}

/// Pauses.
pub(crate) async fn pause(command: &PauseCommand) -> Result<()> {
    set(&command.target, true).await?;
    println!("{} is paused: spec.paused is true", command.target.name);
    Ok(())
}

/// Resumes.
pub(crate) async fn resume(command: &ResumeCommand) -> Result<()> {
    set(&command.target, false).await?;
    println!("{} goes on: spec.paused is false", command.target.name);
    Ok(())
}

async fn set(target: &Target, paused: bool) -> Result<()> {
    let cluster = Cluster::open(&target.place).await?;
    let parameters = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({"spec": {"paused": paused}}));
    let api = cluster.api::<TodoPlatform>();
    api.patch(&target.name, &parameters, &patch)
        .await
        .map_err(|error| said(&error))?;
    Ok(())
}
