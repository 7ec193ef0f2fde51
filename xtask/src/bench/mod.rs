//! `cargo xtask bench`: how fast, how large, and how far from what this machine can do at all.
//!
//! Lives here: one file for each benchmark, and beside it the script that the same PostgreSQL's `pgbench` runs for the
//! limit. `server` is the PostgreSQL that is measured on (its fsync is on), `process` the platform's processes, `figure`
//! what a measurement comes to. No numbers of another machine are kept: the limit is measured in the same run.
//!
//! A benchmark runs the built `todo` as a user does, as processes on 127.0.0.1, and asks the database how far they got.
//! One that needs more than a database is a program of `todo-e2e`, and `reported` reads what it says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::workspace::{self, Build};
use figure::Report;

mod api;
mod events;
mod figure;
mod next;
mod operator;
mod process;
mod progress;
mod relay;
mod reminders;
mod reported;
mod schedule;
mod server;
mod start;

/// Measure speed and memory, beside the limit of this machine's PostgreSQL
///
/// The last line is JSON. The exit code is 1 when a target is missed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(required = true, value_name = "WHAT")]
    what: Vec<Benchmark>,

    /// Measure this binary [default: build one in release; for the operator alone, that of the image]
    #[arg(long, value_name = "FILE")]
    todo: Option<PathBuf>,

    /// Folder for the databases, on the disk that counts [default: that of temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Benchmark {
    /// Tasks created over HTTP by 32 connections
    Api,
    /// 10,000 schedules due at once, made into tasks
    Schedule,
    /// 100,000 reminders due at once, and as many after downtime
    Reminders,
    /// 200,000 events to one consumer
    Relay,
    /// Events over Dapr and Kafka, with an outage of ten minutes: half an hour
    Events,
    /// 500 platforms and 10,000 schedules on a real API server: 10 minutes
    Operator,
    /// Occurrences computed by `todo next`
    Next,
    /// From the start to ready on existing data, and memory when idle
    Start,
    /// All of them but events and the operator
    All,
}

impl Benchmark {
    fn run(self, bench: &Bench) -> Result<Vec<Report>> {
        let value = self.to_possible_value();
        let name = value.map_or_else(String::new, |value| value.get_name().to_owned());
        if self != Self::All {
            eprintln!("measuring {name}");
        }
        let figures = match self {
            Self::Api => api::measure(bench),
            Self::Schedule => schedule::measure(bench),
            Self::Reminders => reminders::measure(bench),
            Self::Relay => relay::measure(bench),
            Self::Events => events::measure(bench),
            Self::Operator => operator::measure(bench),
            Self::Next => next::measure(bench),
            Self::Start => start::measure(bench),
            Self::All => {
                let each = Self::value_variants()
                    .iter()
                    .filter(|one| !matches!(one, Self::All | Self::Events | Self::Operator));
                let reports: Result<Vec<_>> = each.map(|one| one.run(bench)).collect();
                return Ok(reports?.into_iter().flatten().collect());
            }
        };
        let figures = figures.with_context(|| format!("cannot measure {name}"))?;
        let report = Report { name, figures };
        print!("{report}");
        Ok(vec![report])
    }
}

/// What benchmarks are given.
pub(crate) struct Bench {
    /// The binary that is measured.
    todo: PathBuf,
    /// For databases and scripts; each benchmark makes what it needs.
    folder: Folder,
}

impl Bench {
    /// Writes a file for a tool to read, and returns its path.
    fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.0.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// A folder of its own for data; not made yet.
    fn data_dir(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }
}

/// A folder that is removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(parent: &Path) -> Result<Self> {
        let path = parent.join(format!("todo-bench-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("warning: {} is left behind: {error}", self.0.display());
        }
    }
}

/// The load average above which others take what is to be measured.
const QUIET: f64 = 1.0;

/// Says so when the machine works for others, too. Not an error: a ratio to the limit still means something.
fn warn_when_busy() -> Result<()> {
    // The average of a minute, the number of processes that run or wait for the disk: proc(5).
    let text = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    let load: f64 = text.split(' ').next().unwrap_or_default().parse()?;
    if load > QUIET {
        eprintln!("warning: this machine is busy with other things, its load is {load}: times will be too long");
    }
    Ok(())
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let todo = match &args.todo {
        Some(todo) => std::path::absolute(todo)?,
        None if args.what == [Benchmark::Operator] => workspace::build_todo(Build::Image)?,
        None => workspace::build_todo(Build::Release)?,
    };
    let parent = match &args.dir {
        Some(dir) => std::path::absolute(dir)?,
        None => std::env::temp_dir(),
    };
    let folder = Folder::new(&parent)?;
    let bench = Bench { todo, folder };
    warn_when_busy()?;
    let mut reports = Vec::new();
    for what in &args.what {
        reports.extend(what.run(&bench)?);
    }
    println!("{}", figure::json(&reports));
    let reached = reports.iter().all(Report::reaches_targets);
    Ok(if reached { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
