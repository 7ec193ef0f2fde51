//! What one occurrence costs: `todo next --stdin`, asked for thousands at a time, question after question.
//!
//! Reading the question and writing the instants is part of it; starting the process is not.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::Bench;
use super::figure::{Figure, Target, percentile};
use super::process::Memory;

/// Rules of every kind: as questions, without `id`, `from` and `count`.
const RULES: [&str; 8] = [
    r#""expr":"*/5 * * * *","tz":"UTC""#,
    r#""expr":"0 9 * * 1-5","tz":"Europe/Berlin""#,
    r#""expr":"30 2 * * *","tz":"America/New_York""#,
    r#""expr":"0 8 1,15 * 5","tz":"Asia/Tokyo""#,
    r#""expr":"0 18 L * *","tz":"Australia/Lord_Howe""#,
    r#""rrule":"FREQ=DAILY","dtstart":"2020-01-01T07:30:00","tz":"America/Sao_Paulo""#,
    r#""rrule":"FREQ=WEEKLY;BYDAY=MO,WE,FR","dtstart":"2020-01-01T09:00:00","tz":"Europe/Berlin""#,
    r#""rrule":"FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1","dtstart":"2020-01-01T15:00:00","tz":"Europe/London""#,
];
const COUNT: u32 = 5_000;
/// How often each rule is asked about, from another year on each time.
const YEARS: std::ops::Range<u32> = 2020..2040;

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let mut process = Command::new(&bench.todo)
        .args(["next", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run todo next")?;
    let mut input = process.stdin.take().context("its input is piped")?;
    let mut output = BufReader::new(process.stdout.take().context("its output is piped")?);
    let mut answer = String::new();
    let mut ask = |rule: &str, year: u32, count: u32| -> Result<f64> {
        let question = format!("{{\"id\":1,{rule},\"from\":\"{year}-03-01T00:00:00Z\",\"count\":{count}}}\n");
        answer.clear();
        let begun = Instant::now();
        input.write_all(question.as_bytes())?;
        output.read_line(&mut answer)?;
        let elapsed = begun.elapsed();
        // Each instant has one T, and nothing else in an answer has.
        if answer.matches('T').count() != count as usize {
            bail!("{rule} has fewer than {count} occurrences after {year}: {answer:.200}");
        }
        Ok(elapsed.as_secs_f64() * 1e6 / f64::from(count))
    };

    for rule in RULES {
        ask(rule, 2019, COUNT)?;
    }
    let mut costs = Vec::new();
    for rule in RULES {
        let of_rule = YEARS.map(|year| ask(rule, year, COUNT)).collect::<Result<Vec<_>>>()?;
        eprintln!("  {:.2} us  {rule}", mean(&of_rule));
        costs.extend(of_rule);
    }
    let memory = Memory::of(process.id())?;
    drop(input);
    process.wait()?;

    Ok(vec![
        Figure::new("average_us", mean(&costs)).with_target(Target::Under(5.0)),
        Figure::new("p50_us", percentile(&costs, 0.5)),
        Figure::new("p99_us", percentile(&costs, 0.99)),
        Figure::new("occurrences_per_second", 1e6 / mean(&costs)),
        Figure::new("memory_peak_mib", memory.peak),
    ])
}

#[allow(clippy::cast_precision_loss, reason = "a list of measurements is short")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
