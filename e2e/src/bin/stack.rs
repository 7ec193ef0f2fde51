//! `cargo xtask stack`, and the tools that tests run against: what needs the stack's own code, as a program.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use todo_e2e::process;
use todo_e2e::stack::detached;
use todo_test_tools as tools;

/// Every part of the platform as a process of its own, on this machine
#[derive(Parser)]
#[command(name = "stack")]
enum Command {
    /// Start what does not run: Kafka, Dapr, PostgreSQL and each service, and wait until all is ready
    Up {
        #[command(flatten)]
        place: Place,

        /// Where the API listens on 127.0.0.1
        #[arg(long, default_value_t = detached::API_PORT)]
        port: u16,
    },
    /// Stop everything; the data stays
    Down(Place),
    /// Show what runs; fails when something does not
    Status(Place),
    /// Make the tools ready that tests run against, and print NAME=PATH for each
    Tools,
}

#[derive(clap::Args)]
struct Place {
    /// The data folder [default: that of `todo up` for the platform `home`]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Place {
    fn folder(self) -> Result<PathBuf> {
        match self.data_dir {
            Some(given) => std::path::absolute(given).context("--data-dir is no path"),
            None => detached::default_data_dir(),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Command::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up { place, port } => detached::up(&place.folder()?, &process::todo_program(), port).await?,
        Command::Down(place) => detached::down(&place.folder()?).await?,
        Command::Status(place) => {
            let all_ready = detached::status(&place.folder()?).await?;
            return Ok(if all_ready {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        Command::Tools => {
            for (name, path) in tools::variables()? {
                println!("{name}={}", path.display());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
