//! Developers' commands: `cargo xtask up`, `stack`, `images`, `cluster`, `test`, `bench`, `generate`.
//!
//! Lives here: how the workspace is built, checked and tried out, one file for each command. It runs cargo and the
//! built `todo` and knows no crate of the platform, so it compiles in seconds, also when nothing else does.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

mod bench;
mod cluster;
mod generate;
mod images;
mod postgres;
mod stack;
mod test;
mod tools;
mod up;
mod workspace;

/// Developers' commands for Todo Platform
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    Up(up::Args),
    #[command(subcommand)]
    Stack(stack::Args),
    Images(images::Args),
    #[command(subcommand)]
    Cluster(cluster::Args),
    Test(test::Args),
    Bench(bench::Args),
    Generate(generate::Args),
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(args) => up::run(&args),
        Command::Stack(args) => stack::run(&args),
        Command::Images(args) => images::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Test(args) => Ok(test::run(&args)),
        Command::Bench(args) => bench::run(&args),
        Command::Generate(args) => generate::run(&args),
    }
}
