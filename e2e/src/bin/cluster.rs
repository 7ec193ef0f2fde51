//! `cargo xtask cluster`: a real Kubernetes on this machine, as a program.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use todo_e2e::cluster::{detached, inside, strimzi};
use todo_e2e::process;

/// A real Kubernetes with Dapr and Kafka on this machine, in namespaces of its own
#[derive(Parser)]
#[command(name = "cluster")]
enum Command {
    /// Start it, and wait until all of it serves
    Up,
    /// End it, and remove what it has
    Down,
    /// Import an archive of an image
    Load {
        /// The archive
        archive: PathBuf,
    },
    /// Print the file by which kubectl reaches it
    Kubeconfig,
    /// Be the first process in there
    #[command(hide = true)]
    Inside {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        cgroup: String,
        #[arg(long)]
        todo: PathBuf,
    },
    /// Do what Strimzi's operators would do
    #[command(hide = true)]
    Strimzi {
        #[arg(long)]
        kubeconfig: PathBuf,
    },
    /// Lead a port of loopback to the API server in there
    #[command(hide = true)]
    Lead {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        process: i32,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Command::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Up => detached::up(&std::env::current_exe()?, &process::todo_program()).await,
        Command::Down => detached::down(),
        Command::Load { archive } => detached::load(&archive),
        Command::Kubeconfig => {
            println!("{}", detached::kubeconfig()?.display());
            Ok(())
        }
        Command::Inside { folder, cgroup, todo } => inside::run(&folder, &cgroup, &todo).await,
        Command::Strimzi { kubeconfig } => strimzi::run(&kubeconfig).await,
        Command::Lead { port, process } => detached::lead_to_api(port, process),
    }
}
