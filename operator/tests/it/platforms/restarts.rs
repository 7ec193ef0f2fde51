//! An API server that is killed and comes back, and the etcd behind it: the operator goes on by itself.

use std::time::Duration;

use anyhow::Result;
use kube::api::ListParams;
use todo_test_cluster::{Cluster, Options, Program};

use super::deletions::until;
use super::storms::{same, story};
use super::world::World;

/// What is killed, each in the middle of the operator's work.
const KILLED: [Program; 4] = [
    Program::ApiServer,
    Program::ApiServer,
    Program::Etcd,
    Program::ApiServer,
];
/// Into what was just asked for.
const A_MOMENT: Duration = Duration::from_millis(150);

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_api_server_and_its_etcd_changes_nothing_of_what_is_made() -> Result<()> {
    // One of its own, which goes with the process.
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(Options::NONE).await?));
    let fair = story(&World::new(cluster, "fair").await?, async || Ok(())).await?;
    let world = World::new(cluster, "killed").await?;
    let mut killed = KILLED.into_iter();
    let mut foul = story(&world, async || {
        tokio::time::sleep(A_MOMENT).await;
        if let Some(program) = killed.next() {
            cluster.restart_program(program).await?;
            // It says that it is ready a moment before it has found the etcd again.
            for _ in 0..3 {
                until("the API server answers", async || {
                    Ok(world.platforms().list(&ListParams::default()).await.is_ok())
                })
                .await?;
            }
        }
        Ok(())
    })
    .await?;
    // One that is killed after it has written, and before it says so, has written all the same.
    foul.credit(&world, &world.tap.take_unanswered(), &fair);
    let outcome = same(&fair, &foul);
    for program in [Program::ControllerManager, Program::ApiServer, Program::Etcd] {
        cluster.kill_program(program)?;
    }
    outcome
}
