//! Events on Dapr and Kafka: the platform spread out over processes on this machine, beside the bare path of an event
//! through the same sidecar's program and the same Kafka, with no platform and no database in it.
//!
//! What is measured is in `e2e/src/bin/bench_events.rs`, where a stack can be started; here are the targets.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::Bench;
use super::figure::{Figure, Target};
use crate::workspace;

/// Each figure, and what it must reach. Two copies share two cores here with everything else: theirs is a finding.
const FIGURES: [(&str, Option<Target>); 16] = [
    ("visible_p50_ms", None),
    ("visible_p95_ms", Some(Target::Under(60.0))),
    ("visible_p99_ms", None),
    ("events_per_second", Some(Target::OfLimit(0.5))),
    ("sidecar_adds_p95_ms", Some(Target::Under(10.0))),
    ("one_copy_events_per_second", None),
    ("two_copies_events_per_second", None),
    ("two_copies_ratio", None),
    ("event_us_of_10000", None),
    ("event_us_of_1000000", Some(Target::AtMostOfLimit(1.2))),
    ("outage_backlog_events", None),
    ("outage_drained_s", Some(Target::Under(30.0))),
    ("outage_api_p99_ms", Some(Target::AtMostOfLimit(1.5))),
    ("drain_api_p99_ms", None),
    ("history_p50_ms", None),
    ("history_p95_ms", Some(Target::Under(50.0))),
];

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let mut command = workspace::cargo();
    command.args(["run", "--release", "--package", "todo-e2e", "--bin", "bench_events"]);
    run(command.env("TODO_BIN", &bench.todo))
}

fn run(command: &mut Command) -> Result<Vec<Figure>> {
    let mut process = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let output = process.stdout.take().context("its output is piped")?;
    let mut figures = Vec::new();
    for line in BufReader::new(output).lines() {
        figures.push(figure(&line?)?);
    }
    ensure!(process.wait()?.success(), "the measurement failed");
    Ok(figures)
}

/// Reads `NAME VALUE` or `NAME VALUE LIMIT`.
fn figure(line: &str) -> Result<Figure> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, value, limit) = match words[..] {
        [name, value] => (name, value, None),
        [name, value, limit] => (name, value, Some(limit)),
        _ => bail!("no figure: {line:?}"),
    };
    let known = FIGURES.iter().find(|(known, _)| *known == name);
    let (name, target) = known.with_context(|| format!("an unknown figure {name:?}"))?;
    let mut figure = Figure::new(name, value.parse()?);
    if let Some(limit) = limit {
        figure = figure.beside(limit.parse()?);
    }
    Ok(match target {
        Some(target) => figure.with_target(*target),
        None => figure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_a_figure_with_its_limit_and_target() {
        let shown = |line: &str| {
            let figures = vec![figure(line).unwrap()];
            let name = "events".to_owned();
            super::super::figure::Report { name, figures }.to_string()
        };
        assert!(shown("visible_p95_ms 44.5 20.1").contains("PASS"));
        assert!(shown("events_per_second 3000 10000").contains("BELOW"));
        assert!(shown("event_us_of_1000000 150 100").contains("BELOW"));
        assert!(figure("unheard_of 1").is_err());
        assert!(figure("visible_p95_ms").is_err());
        assert!(figure("visible_p95_ms fast").is_err());
    }
}
