//! The charts, installed as their README says.

use anyhow::Result;

use todo_e2e::cluster::POSTGRES_IMAGE;

use crate::world::{TAG, World};

/// Installs the resource types and the operator, and waits until it works.
pub(crate) fn charts(world: &World) -> Result<()> {
    world.helm(&[
        "install",
        "todo-operator-crds",
        &World::path("charts/todo-operator-crds"),
    ])?;
    let values = format!("image.tag={TAG},evaluationPostgresImage={POSTGRES_IMAGE}");
    world.helm(&[
        "install",
        "todo-operator",
        &World::path("charts/todo-operator"),
        "--namespace",
        "todo-system",
        "--create-namespace",
        "--set",
        &values,
        "--wait",
        "--timeout",
        "2m",
    ])?;
    world.stage("the operator is installed");
    Ok(())
}
