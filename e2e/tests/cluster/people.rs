//! `kubectl todo`, as kubectl runs its plugins, for the people who look after the platform `home`.

use anyhow::{Result, ensure};
use todo_e2e::cluster::POSTGRES_IMAGE;

use crate::climb::SPREAD_OUT;
use crate::world::World;

/// Says what the climb would do, before anybody does it.
pub(crate) fn plan_the_climb(world: &World) -> Result<()> {
    let file = world.write("climb.yaml", SPREAD_OUT)?;
    let said = world.kubectl(&[
        "todo",
        "plan",
        "--file",
        &file,
        "--evaluation-postgres-image",
        POSTGRES_IMAGE,
    ])?;
    says(
        &said,
        &[
            "~ ConfigMap first/home-settings",
            "+ KafkaTopic kafka/home-task-events",
            "+ KafkaUser kafka/first-home",
            "warning: Strimzi has not made the Secret of KafkaUser first-home yet",
            "0 to delete",
        ],
    )
}

fn says(said: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(said.contains(part), "nothing is said of {part:?}: {said}");
    }
    Ok(())
}
