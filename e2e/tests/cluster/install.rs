//! The charts, installed as their README says.

use anyhow::Result;

use crate::world::{TAG, World};

/// Installs the resource types and the operator, and waits until it works.
pub(crate) fn charts(world: &World) -> Result<()> {
    world.helm(&["install", "todo-operator-crds", &World::chart("todo-operator-crds")])?;
    let tag = format!("image.tag={TAG}");
    world.helm(&[
        "install",
        "todo-operator",
        &World::chart("todo-operator"),
        "--namespace",
        "todo-system",
        "--create-namespace",
        "--set",
        &tag,
        "--wait",
        "--timeout",
        "2m",
    ])?;
    world.stage("the operator is installed");
    Ok(())
}
