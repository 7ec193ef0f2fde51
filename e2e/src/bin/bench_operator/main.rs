//! What `cargo xtask bench operator` runs: the operator as a process of its own, by the account and the roles that it is
//! installed with, on a real API server without nodes and controllers.
//!
//! Here: what is measured and in which order. [`ground`] is the cluster and the operator's process, [`settle`] the race
//! against a bare client, [`schedules`] what ten thousand resources cost, [`small`] an operator that has nothing to do.
//! What stands in: [`controllers`] for those of Jobs and Deployments, [`platform`] for the process of a platform.
//!
//! On standard output a line for each figure: `NAME VALUE`, or `NAME VALUE LIMIT` where the limit was measured too.
//! Their targets are with the caller. What is being done is said on standard error.

use anyhow::Result;
use clap::Parser;

mod controllers;
mod ground;
mod owned;
mod platform;
mod process;
mod schedules;
mod settle;
mod small;
mod watch;

/// The flags are for whoever looks closer; the caller's figures come without any.
#[derive(Parser)]
struct Args {
    /// Measure only this: small, schedules, settle
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,

    /// How many platforms settle
    #[arg(long, default_value_t = 500)]
    platforms: usize,

    /// How many schedules there are
    #[arg(long, default_value_t = 10_000)]
    schedules: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    if wanted("small") {
        small::measure().await?;
    }
    if wanted("settle") {
        settle::measure(args.platforms).await?;
    }
    if wanted("schedules") {
        schedules::measure(args.schedules).await?;
    }
    Ok(())
}

fn figure(name: &str, value: f64) {
    println!("{name} {value:.4}");
}

fn figure_beside(name: &str, value: f64, limit: f64) {
    println!("{name} {value:.4} {limit:.4}");
}

#[allow(clippy::cast_precision_loss, reason = "a benchmark's counts are far below 2^52")]
fn number(count: usize) -> f64 {
    count as f64
}
