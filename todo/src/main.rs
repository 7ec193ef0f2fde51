//! The one binary of the platform: every role is a subcommand of it.
//!
//! Here the crates are wired together and nothing is decided: arguments and manifests become settings, settings
//! become a pool, an API and workers, and signals become a graceful stop. What a task, an event or an instant is, the
//! crates know.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod alarms;
mod api;
mod auth;
mod database;
mod declared;
mod events;
mod failure;
mod generate;
mod health;
mod kubectl;
mod logging;
mod next;
mod operator;
mod plan;
mod platform;
mod postgres;
mod process;
mod secret;
mod secrets;
mod settings;
mod sidecar;
mod state;
mod telemetry;
mod token;
mod up;
mod worker;

/// Todo Platform: tasks, schedules and reminders that are never lost
#[derive(Parser)]
#[command(name = "todo", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(up::UpCommand),
    Api(api::ApiCommand),
    Serve(api::ServeCommand),
    Worker(worker::WorkerCommand),
    Operator(operator::OperatorCommand),
    Plan(plan::PlanCommand),
    Migrate(database::MigrateCommand),
    Token(token::TokenCommand),
    Next(next::NextArgs),
    Events(events::EventsCommand),
    Postgres(postgres::command::PostgresCommand),
    #[command(hide = true)]
    Generate(generate::GenerateCommand),
}

fn main() -> ExitCode {
    if kubectl::is_meant() {
        return kubectl();
    }
    let cli: Cli = match settings::parse() {
        Ok(cli) => cli,
        Err(refused) => return failure::report(refused),
    };
    install_cryptography();
    let outcome = match cli.command {
        Command::Next(args) => next::run(args),
        Command::Generate(command) => generate::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Up(command) => block_on(up::run(command)),
        Command::Api(command) => block_on(api::run(command)),
        Command::Serve(command) => block_on(api::run_serve(command)),
        Command::Worker(command) => block_on(worker::run(command)),
        Command::Operator(command) => block_on(operator::run(command)),
        Command::Plan(command) => block_on(plan::run(command)),
        Command::Migrate(command) => block_on(database::run_migrate(command)),
        Command::Token(command) => token::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Events(command) => block_on(events::run(command)),
        Command::Postgres(command) => block_on(postgres::command::run(command)),
    };
    outcome.unwrap_or_else(failure::report)
}

/// The same binary as kubectl's plugin.
fn kubectl() -> ExitCode {
    let command = kubectl::Kubectl::parse();
    install_cryptography();
    block_on(kubectl::run(command)).unwrap_or_else(failure::report)
}

/// Two providers of cryptography are in the tree; whoever asks for "the default" gets this one.
fn install_cryptography() {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("a provider of cryptography was installed before main");
    }
}

/// Runs a command that waits for things.
fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(command);
    // The commands wait for what must end. What is left may wait for ever, such as a read of standard input.
    runtime.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS)
}
