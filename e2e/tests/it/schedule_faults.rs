//! What goes wrong between a cluster, the real operator and a real platform costs no schedule an occurrence and gives none
//! two.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use todo_e2e::client::Client;
use todo_e2e::wait_for;
use todo_test_cluster::{Cluster, Options, Program};

use crate::schedules::{World, every_second, titled};

const PATIENCE: Duration = Duration::from_mins(1);

/// `TITLE 1`, `TITLE 2`, … each once, and none left out.
async fn ensure_whole(ada: &Client, title: &str) -> Result<usize> {
    let titles = titled(ada, title).await?;
    let numbers = titles.iter().filter_map(|title| title.rsplit(' ').next()?.parse().ok());
    let numbers: Vec<usize> = numbers.collect();
    let each: BTreeSet<usize> = numbers.iter().copied().collect();
    ensure!(
        each.len() == numbers.len(),
        "an occurrence of {title} has two tasks: {titles:?}"
    );
    ensure!(
        each.iter().copied().eq(1..=numbers.len()),
        "an occurrence of {title} has no task: {titles:?}"
    );
    Ok(numbers.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_killed_and_comes_back_costs_no_occurrence() -> Result<()> {
    // One of its own, which goes with the process.
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(Options::NONE).await?));
    let world = World::on(cluster).await?;
    let ada = world.ada().await?;
    world
        .todo("RecurringSchedule", "tick", &every_second("tick {{n}}"))
        .await?;
    world
        .todo("RecurringSchedule", "goes", &every_second("goes {{n}}"))
        .await?;
    for name in ["tick", "goes"] {
        world.wait_for(name, "Ready", "True Active").await?;
    }
    for (killed, new) in [
        (Program::ApiServer, "first"),
        (Program::ApiServer, "second"),
        (Program::Etcd, "third"),
    ] {
        // It is killed with this just said, and ends before or after the operator has heard of it.
        let title = format!("{new} {{{{n}}}}");
        world.todo("RecurringSchedule", new, &every_second(&title)).await?;
        if new == "second" {
            world.delete("goes").await?;
        }
        cluster.restart_program(killed).await?;
        wait_for("the API server", PATIENCE, || async {
            let listed = world.schedules().list(&ListParams::default()).await;
            Ok(listed.is_ok().then_some(()))
        })
        .await?;
    }
    for name in ["tick", "first", "second", "third"] {
        world.wait_for(name, "Ready", "True Active").await?;
    }
    world.wait_until_gone("goes").await?;
    wait_for("a task of the youngest", PATIENCE, || async {
        Ok((!titled(&ada, "third").await?.is_empty()).then_some(()))
    })
    .await?;
    ensure!(
        ada.list("/schedules").await?.len() == 4,
        "a schedule is left, or doubled"
    );
    let mut made = vec![];
    for title in ["tick", "first", "second", "third"] {
        made.push(ensure_whole(&ada, title).await?);
    }
    println!("made {made:?}");
    for program in [Program::ControllerManager, Program::ApiServer, Program::Etcd] {
        cluster.kill_program(program)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_internal_key_shuts_the_operator_out_at_no_time() -> Result<()> {
    let world = World::on(Cluster::shared_with(Options::NONE).await?).await?;
    world
        .todo("RecurringSchedule", "tick", &every_second("tick {{n}}"))
        .await?;
    world.wait_for("tick", "Ready", "True Active").await?;
    let first = world.internal_key().await?.context("no key")?;
    let asked = json!({"metadata": {"annotations": {"todoplatform.dev/rotate-internal-key": "now"}}});
    world
        .api("todoplatform.dev/v1alpha1", "TodoPlatform")
        .patch("acme", &PatchParams::default(), &Patch::Merge(&asked))
        .await?;
    let second = wait_for("another key", PATIENCE, || async {
        Ok(world.internal_key().await?.filter(|key| *key != first))
    })
    .await?;
    // The platform's file is from before: a kubelet takes a minute or two to write it anew.
    world
        .todo("RecurringSchedule", "tick", &every_second("tock {{n}}"))
        .await?;
    world.wait_for("tick", "Ready", "True Active").await?;
    // And now it is not.
    world.scene.write("internal-key", &second)?;
    world
        .todo("RecurringSchedule", "tick", &every_second("tuck {{n}}"))
        .await?;
    world.wait_for("tick", "Ready", "True Active").await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    world
        .todo("RecurringSchedule", "tick", &every_second("teck {{n}}"))
        .await?;
    world.wait_for("tick", "Ready", "True Active").await?;
    let conditions = world.status("tick").await?["conditions"].to_string();
    ensure!(
        !conditions.contains(&first) && !conditions.contains(&second),
        "{conditions}"
    );
    Ok(())
}
