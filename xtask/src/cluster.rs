//! `cargo xtask cluster`: a real Kubernetes on this machine, with Dapr and Kafka, in namespaces of its own.
//!
//! What it consists of, the program `cluster` of the end-to-end tests knows; here it is built and run.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::Subcommand;

use crate::images;
use crate::workspace::{self, Build};

/// Run a real Kubernetes for trying out the operator: a node, Dapr's control plane, Kafka and PostgreSQL
///
/// It needs root. Nothing of it is outside of its own namespaces, but for a port of 127.0.0.1 that leads to its API.
#[derive(Subcommand)]
pub(crate) enum Args {
    /// Start it and wait until all of it serves; the first time takes many minutes
    Up,
    /// End it and remove what it has
    Down,
    /// Make the container image, as `images` does, and import it
    Load,
    /// Print the file by which kubectl and helm reach it
    Kubeconfig,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut command = program();
    match args {
        Args::Up => {
            command.arg("up").env("TODO_BIN", workspace::build_todo(Build::Dev)?);
        }
        Args::Down => {
            command.arg("down");
        }
        Args::Load => {
            command.arg("load").arg(images::make(Path::new(images::OUTPUT))?);
        }
        Args::Kubeconfig => {
            command.arg("kubeconfig");
        }
    }
    let status = workspace::status(&mut command)?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn program() -> Command {
    let mut cargo = workspace::cargo();
    cargo.args([
        "run",
        "--quiet",
        "--locked",
        "--package",
        "todo-e2e",
        "--bin",
        "cluster",
        "--",
    ]);
    cargo
}
