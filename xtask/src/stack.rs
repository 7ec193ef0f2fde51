//! `cargo xtask stack`: every part of the platform as a process of its own, on this machine, over Kafka and Dapr.
//!
//! What a stack is, the program `stack` of the end-to-end tests knows; here it is built and run.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::workspace::{self, Build};

/// Run the platform spread out: Kafka, Dapr's sidecars and scheduler, PostgreSQL, each service a process of its own
///
/// It works on the data of `cargo xtask up`, so what was made there is here too. It runs without a manifest.
#[derive(Subcommand)]
pub(crate) enum Args {
    /// Build in release and start what does not run, on 127.0.0.1:8080; the first time takes minutes
    Up,
    /// Stop everything; the data stays
    Down,
    /// Show what runs
    Status,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut command = match args {
        Args::Up => {
            let todo = workspace::build_todo(Build::Release)?;
            let mut command = program("up");
            command.env("TODO_BIN", todo);
            command
        }
        Args::Down => program("down"),
        Args::Status => program("status"),
    };
    let status = workspace::status(&mut command)?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Makes the tools ready that tests run against; the variables that tell tests where they are. Minutes, the first time.
pub(crate) fn tools() -> Result<Vec<(String, String)>> {
    let output = program("tools")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the tools that tests run against are not ready");
    }
    Ok(String::from_utf8(output.stdout)?.lines().filter_map(variable).collect())
}

/// Reads `NAME=VALUE`.
fn variable(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    Some((name.to_owned(), value.to_owned()))
}

fn program(command: &str) -> Command {
    let mut cargo = workspace::cargo();
    cargo.args([
        "run",
        "--quiet",
        "--locked",
        "--package",
        "todo-e2e",
        "--bin",
        "stack",
        "--",
        command,
    ]);
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_hold_what_separates_it_from_its_name() {
        let read = variable("TODO_DAPRD=/a=b/daprd");
        assert_eq!(read, Some(("TODO_DAPRD".to_owned(), "/a=b/daprd".to_owned())));
        assert_eq!(variable("nothing"), None);
    }
}
