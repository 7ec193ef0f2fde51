//! The operator on a real Kubernetes: charts installed by Helm, manifests applied by kubectl, pods with Dapr's sidecars,
//! events over a real Kafka, and nothing left behind.
//!
//! One cluster for all of it, started once: the stages of the test follow one another as a user's would. It needs root
//! and namespaces; where they are missing it is skipped and says so, and fails if `CI` is set.

mod climb;
mod install;
mod people;
mod platforms;
mod production;
mod world;

use std::process::Command;

use anyhow::{Result, ensure};
use todo_e2e::cluster::obstacle;

use self::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_becomes_a_platform_that_works_and_goes_without_a_trace() -> Result<()> {
    if let Some(obstacle) = obstacle() {
        ensure!(std::env::var_os("CI").is_none(), "not run: {obstacle}");
        eprintln!("skipped: {obstacle}");
        return Ok(());
    }
    let world = World::start().await?;
    let walked = walk(&world).await;
    if walked.is_err() {
        world.tell();
    }
    let (process, folder) = (world.process()?, world.folder().to_owned());
    drop(world);
    walked?;

    ensure!(!folder.exists(), "{} is still there", folder.display());
    let namespaces = Command::new("nsenter")
        .args(["--target", &process.to_string(), "--net", "true"])
        .output()?;
    ensure!(
        !namespaces.status.success(),
        "the cluster's first process is still there"
    );
    Ok(())
}

async fn walk(world: &World) -> Result<()> {
    install::charts(world)?;
    platforms::smallest(world).await?;
    people::plan_the_climb(world)?;
    climb::under_load(world).await?;
    people::look_after(world).await?;
    install::upgrade_to_mutual_tls(world).await?;
    platforms::delete_namespace(world)?;
    production::tells_what_it_waits_for(world).await?;
    production::works_when_fitted(world).await?;
    production::goes_without_a_trace(world).await?;
    platforms::namespaces_are_gone(world)
}
