//! `cargo xtask test`: everything that must hold before a commit, in order, with a summary.
//!
//! A step that fails does not hide the others. The last line counts: tests where a step runs tests, else the step.

use std::cell::OnceCell;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;

use crate::postgres::Postgres;
use crate::workspace::{self, Build};
use crate::{generate, stack, tools};

/// Check everything: format, lints, generated files, dependencies, and all tests
///
/// Tests run on a PostgreSQL of their own. The last line is `N passed, M failed`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only these steps
    #[arg(long, value_name = "STEP", num_args = 1.., value_delimiter = ',')]
    only: Vec<Step>,

    /// List the steps
    #[arg(long)]
    list: bool,
}

/// The steps, in the order in which they run: what is quick and often wrong comes first.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// The code is formatted
    Fmt,
    /// No lint has anything to say
    Clippy,
    /// Checked-in generated files are what would be generated now
    Generated,
    /// Dependencies: licences, bans, sources, advisories
    Deny,
    /// No crate depends on what it does not use
    Machete,
    /// What tests run against is built or found: Dapr, Kafka, Redis
    Tools,
    /// Unit, property and integration tests
    Tests,
    /// End-to-end tests, also with processes killed at random
    Faults,
}

/// What a step has found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    passed: u64,
    failed: u64,
    ignored: u64,
    note: Option<&'static str>,
    /// What the tests that failed said.
    failures: Failures,
}

impl Outcome {
    /// Of a step that is one check.
    fn of_check(success: bool) -> Self {
        Self {
            passed: u64::from(success),
            failed: u64::from(!success),
            ..Self::default()
        }
    }
}

/// What steps share: made when the first one needs it.
#[derive(Default)]
struct Stage {
    todo: OnceCell<PathBuf>,
    tools: OnceCell<Vec<(String, String)>>,
    postgres: OnceCell<Postgres>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    if args.list {
        for step in Step::value_variants() {
            println!("{:<10} {}", step.name(), step.about());
        }
        return ExitCode::SUCCESS;
    }

    let stage = Stage::default();
    let mut report = Vec::new();
    for step in Step::value_variants() {
        if !args.only.is_empty() && !args.only.contains(step) {
            continue;
        }
        headline(&step.name());
        let started = Instant::now();
        let outcome = step.run(&stage).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            Outcome::of_check(false)
        });
        report.push((step.name(), outcome, started.elapsed()));
    }
    drop(stage);

    let failures: Vec<&String> = report
        .iter()
        .flat_map(|(_, outcome, _)| &outcome.failures.said)
        .collect();
    if !failures.is_empty() {
        headline("failures");
        for failure in failures {
            println!("{failure}");
        }
    }
    headline("summary");
    println!("{}", table(&report));
    let failed = report.iter().any(|(_, outcome, _)| outcome.failed > 0);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

impl Step {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn about(self) -> String {
        let help = self
            .to_possible_value()
            .and_then(|value| value.get_help().map(ToString::to_string));
        help.unwrap_or_default()
    }

    fn run(self, stage: &Stage) -> Result<Outcome> {
        match self {
            Self::Fmt => check(workspace::cargo().args(["fmt", "--all", "--check"])),
            Self::Clippy => check(workspace::cargo().args([
                "clippy",
                "--locked",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ])),
            Self::Generated => Ok(Outcome::of_check(generate::check(stage.todo()?)?)),
            Self::Deny => deny(),
            Self::Machete => check(tools::MACHETE.command()?.arg("--with-metadata")),
            Self::Tools => {
                for (name, path) in stage.tools()? {
                    println!("{name}={path}");
                }
                Ok(Outcome::of_check(true))
            }
            Self::Tests => {
                let mut command = workspace::cargo();
                command.envs(stage.tools()?.iter().map(|(name, path)| (name, path)));
                command.args([
                    "test",
                    "--locked",
                    "--workspace",
                    "--exclude",
                    "todo-e2e",
                    "--no-fail-fast",
                ]);
                tests(command.env("TODO_TEST_DATABASE_URL", stage.postgres()?.url()))
            }
            Self::Faults => {
                let mut command = workspace::cargo();
                command.envs(stage.tools()?.iter().map(|(name, path)| (name, path)));
                command.args(["test", "--locked", "--package", "todo-e2e", "--no-fail-fast"]);
                tests(command.env("TODO_BIN", stage.todo()?))
            }
        }
    }
}

impl Stage {
    /// The path of the built `todo`.
    fn todo(&self) -> Result<&Path> {
        if self.todo.get().is_none() {
            let built = workspace::build_todo(Build::Dev)?;
            self.todo.get_or_init(|| built);
        }
        self.todo.get().map(PathBuf::as_path).context("todo was just built")
    }

    /// Variables that tell tests where their tools are.
    fn tools(&self) -> Result<&[(String, String)]> {
        if self.tools.get().is_none() {
            let ready = stack::tools()?;
            self.tools.get_or_init(|| ready);
        }
        self.tools.get().map(Vec::as_slice).context("the tools were just made")
    }

    /// The server that all tests share; each makes a database of its own on it.
    fn postgres(&self) -> Result<&Postgres> {
        if self.postgres.get().is_none() {
            let started = Postgres::start(self.todo()?, None)?;
            self.postgres.get_or_init(|| started);
        }
        self.postgres
            .get()
            .ok_or_else(|| anyhow!("PostgreSQL was just started"))
    }
}

fn check(command: &mut Command) -> Result<Outcome> {
    Ok(Outcome::of_check(workspace::status(command)?.success()))
}

/// Licences, bans and sources are in the workspace and the registry. Advisories are in a Git repository: a machine
/// that cannot reach it still checks the rest, and says so.
fn deny() -> Result<Outcome> {
    let deny = |checks: &[&str]| -> Result<Command> {
        let mut command = tools::DENY.command()?;
        command
            .args(["--log-level", "error", "check", "--hide-inclusion-graph"])
            .args(checks);
        command.env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null());
        Ok(command)
    };
    let mut outcome = check(&mut deny(&["bans", "licenses", "sources"])?)?;

    let advisories = deny(&["advisories"])?.output().context("cannot run cargo-deny")?;
    let said = String::from_utf8_lossy(&advisories.stderr);
    if said.contains("failed to fetch advisory database") {
        eprintln!("advisories: not checked, their database cannot be reached from here");
        outcome.note = Some("without advisories: their database cannot be reached");
    } else {
        eprint!("{said}");
        outcome.passed += u64::from(advisories.status.success());
        outcome.failed += u64::from(!advisories.status.success());
    }
    Ok(outcome)
}

/// Runs `cargo test`, shows what it prints, and counts.
fn tests(command: &mut Command) -> Result<Outcome> {
    let mut process = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let output = process.stdout.take().context("its output is piped")?;
    let mut outcome = Outcome::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        outcome.failures.read(&line);
        if let Some(counted) = counts(&line) {
            outcome.passed += counted.passed;
            outcome.failed += counted.failed;
            outcome.ignored += counted.ignored;
        }
    }
    if !process.wait()?.success() && outcome.failed == 0 {
        // It did not compile, or a test took the process down with it.
        outcome.failed = 1;
    }
    Ok(outcome)
}

/// Reads `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s`.
fn counts(line: &str) -> Option<Outcome> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |what: &str| {
        counts
            .split("; ")
            .find_map(|part| part.strip_suffix(what)?.trim().parse::<u64>().ok())
    };
    Some(Outcome {
        passed: count("passed")?,
        failed: count("failed")?,
        ignored: count("ignored")?,
        ..Outcome::default()
    })
}

/// What the tests that failed said, each without its backtrace and no longer than this many lines: it is said again at
/// the end, where it is looked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Failures {
    said: Vec<String>,
    lines: usize,
    is_within: bool,
}

impl Failures {
    const LONGEST: usize = 40;

    /// Reads on in what the test runner prints: `---- NAME stdout ----`, and then what the test has said.
    fn read(&mut self, line: &str) {
        if line.starts_with("---- ") && line.ends_with(" stdout ----") {
            self.said.push(line.to_owned());
            (self.lines, self.is_within) = (1, true);
            return;
        }
        let is_over = line == "failures:" || line.eq_ignore_ascii_case("stack backtrace:");
        self.is_within &= !is_over && self.lines < Self::LONGEST;
        if self.is_within
            && let Some(said) = self.said.last_mut()
        {
            self.lines += 1;
            said.push('\n');
            said.push_str(line);
        }
    }
}

fn headline(text: &str) {
    if std::io::stdout().is_terminal() {
        println!("\n\x1b[1m== {text}\x1b[0m");
    } else {
        println!("\n== {text}");
    }
}

/// The summary; its last line is for machines too.
fn table(report: &[(String, Outcome, Duration)]) -> String {
    let mut lines = vec![format!("{:<10} {:<6} {:>8}  {}", "step", "result", "seconds", "tests")];
    for (name, outcome, elapsed) in report {
        let result = if outcome.failed == 0 { "ok" } else { "FAILED" };
        let failed = match outcome.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        let ignored = match outcome.ignored {
            0 => String::new(),
            ignored => format!(", {ignored} ignored"),
        };
        let note = outcome.note.map_or_else(String::new, |note| format!(" ({note})"));
        lines.push(format!(
            "{name:<10} {result:<6} {:>8.1}  {} passed{failed}{ignored}{note}",
            elapsed.as_secs_f64(),
            outcome.passed
        ));
    }
    let total = |count: fn(&Outcome) -> u64| report.iter().map(|(_, outcome, _)| count(outcome)).sum::<u64>();
    let (passed, failed) = (total(|outcome| outcome.passed), total(|outcome| outcome.failed));
    lines.push(format!("\n{passed} passed, {failed} failed"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_those_of_the_test_runner() {
        let line = "test result: FAILED. 17 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 5.78s";
        let counted = counts(line).unwrap();
        assert_eq!((counted.passed, counted.failed, counted.ignored), (17, 2, 1));
        assert_eq!(counts("test tests::a_test ... ok"), None);
        assert_eq!(counts("test result: unclear"), None);
    }

    #[test]
    fn what_failed_tests_said_is_kept_without_their_backtraces() {
        let printed = [
            "test a ... FAILED",
            "failures:",
            "",
            "---- a stdout ----",
            "began at 12:00",
            "Error: in vain",
            "Stack backtrace:",
            "   0: somewhere",
            "---- b stdout ----",
            "thread 'b' panicked at src/b.rs:1:1:",
            "failures:",
            "    a",
        ];
        let mut failures = Failures::default();
        for line in printed {
            failures.read(line);
        }
        let said = [
            "---- a stdout ----\nbegan at 12:00\nError: in vain",
            "---- b stdout ----\nthread 'b' panicked at src/b.rs:1:1:",
        ];
        assert_eq!(failures.said, said);

        let mut failures = Failures::default();
        failures.read("---- long stdout ----");
        for _ in 0..1_000 {
            failures.read("a line");
        }
        assert_eq!(failures.said[0].lines().count(), Failures::LONGEST);
    }

    #[test]
    fn the_last_line_sums_up_tests_and_checks() {
        let tests = Outcome {
            passed: 40,
            failed: 2,
            ignored: 1,
            ..Outcome::default()
        };
        let report = [
            ("fmt".to_owned(), Outcome::of_check(true), Duration::from_millis(1250)),
            ("tests".to_owned(), tests, Duration::from_mins(1)),
        ];
        let text = table(&report);
        assert_eq!(text.lines().last(), Some("41 passed, 2 failed"));
        assert!(text.contains("fmt        ok          1.2  1 passed\n"), "{text}");
        assert!(
            text.contains("tests      FAILED     60.0  40 passed, 2 failed, 1 ignored\n"),
            "{text}"
        );
    }
}
