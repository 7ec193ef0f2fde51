//! `cargo xtask up`: the platform from its sample manifest, on this machine.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::workspace::{self, Build};

/// Build in release and run the platform on this machine
///
/// Runs `todo up -f config/samples/platform.yaml`. Another `-f` takes the place of the sample.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to `todo up`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    rest: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let todo = workspace::build_todo(Build::Release)?;
    let mut command = Command::new(&todo);
    command.arg("up");
    if !args.rest.iter().any(|arg| names_a_file(arg)) {
        let sample = workspace::root().join("config/samples/platform.yaml");
        command.arg("-f").arg(sample);
    }
    // In place of this process, so that signals and the exit code are its own.
    let error = command.args(&args.rest).exec();
    Err(error).with_context(|| format!("cannot run {}", todo.display()))
}

fn names_a_file(arg: &OsStr) -> bool {
    let arg = arg.to_string_lossy();
    arg == "--file" || arg.starts_with("--file=") || (arg.starts_with("-f") && !arg.starts_with("--"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_ones_own_takes_the_place_of_the_sample() {
        for arg in ["-f", "-fmine.yaml", "-f=mine.yaml", "--file", "--file=mine.yaml"] {
            assert!(names_a_file(OsStr::new(arg)), "{arg}");
        }
        for arg in ["--listen", "127.0.0.1:80", "--fast", "mine.yaml", "-"] {
            assert!(!names_a_file(OsStr::new(arg)), "{arg}");
        }
    }
}
