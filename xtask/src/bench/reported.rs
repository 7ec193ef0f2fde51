//! What a program of `todo-e2e` has measured and says on its standard output, a line for each figure: `NAME VALUE`, or
//! `NAME VALUE LIMIT`. Such a program can start what this crate knows nothing of; the targets stay with the benchmark.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use super::Bench;
use super::figure::{Figure, Target};
use crate::workspace;

/// The figures that a program may report, and what each must reach.
pub(crate) type Figures = [(&'static str, Option<Target>)];

/// Builds the program, runs it over the binary that is measured, and reads what it says.
pub(crate) fn by(program: &str, bench: &Bench, known: &Figures) -> Result<Vec<Figure>> {
    let mut process = workspace::cargo()
        .args(["run", "--release", "--package", "todo-e2e", "--bin", program])
        .env("TODO_BIN", &bench.todo)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let output = process.stdout.take().context("its output is piped")?;
    let mut figures = Vec::new();
    for line in BufReader::new(output).lines() {
        figures.push(figure(&line?, known)?);
    }
    ensure!(process.wait()?.success(), "the measurement failed");
    Ok(figures)
}

fn figure(line: &str, known: &Figures) -> Result<Figure> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, value, limit) = match words[..] {
        [name, value] => (name, value, None),
        [name, value, limit] => (name, value, Some(limit)),
        _ => bail!("no figure: {line:?}"),
    };
    let known = known.iter().find(|(known, _)| *known == name);
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
    use super::super::figure::Report;
    use super::*;

    const KNOWN: &Figures = &[
        ("visible_p95_ms", Some(Target::Under(60.0))),
        ("events_per_second", Some(Target::OfLimit(0.5))),
        ("settle_s", Some(Target::AtMostOfLimit(1.5))),
        ("objects", None),
    ];

    #[test]
    fn a_line_becomes_a_figure_with_its_limit_and_target() {
        let shown = |line: &str| {
            let figures = vec![figure(line, KNOWN).unwrap()];
            let name = "events".to_owned();
            Report { name, figures }.to_string()
        };
        assert!(shown("visible_p95_ms 44.5 20.1").contains("PASS"));
        assert!(shown("events_per_second 3000 10000").contains("BELOW"));
        assert!(shown("settle_s 15 10").contains("PASS"));
        assert!(shown("settle_s 16 10").contains("BELOW"));
        assert!(!shown("objects 6000").contains("PASS"));
        assert!(figure("unheard_of 1", KNOWN).is_err());
        assert!(figure("visible_p95_ms", KNOWN).is_err());
        assert!(figure("visible_p95_ms fast", KNOWN).is_err());
    }
}
