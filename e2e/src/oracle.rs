//! When schedules fire, asked of `todo next --stdin`: the engine's own answer, away from the worker that acts on it.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::process::todo;

const MOST: usize = 10_000;

/// The occurrences of a rule after one instant and not after another. `anchor` is where an interval counts from.
pub fn occurrences(rule: &Value, anchor: Timestamp, after: Timestamp, until: Timestamp) -> Result<BTreeSet<Timestamp>> {
    let mut question = json!({"id": 1, "tz": rule["time_zone"], "from": after, "count": MOST});
    match (rule["cron"].as_str(), rule["every"].as_str()) {
        (Some(cron), None) => question["expr"] = cron.into(),
        (None, Some(every)) => {
            // An interval of exact time is the RRULE that counts from its anchor.
            let seconds = seconds(every)?;
            question["rrule"] = format!("FREQ=SECONDLY;INTERVAL={seconds}").into();
            question["dtstart"] = anchor.to_string().into();
        }
        _ => bail!("the tests know no rule like {rule}"),
    }
    let answer = ask(&question)?;
    let next = answer["next"]
        .as_array()
        .with_context(|| format!("{question} was answered {answer}"))?;
    let instants: Vec<Timestamp> = next
        .iter()
        .map(|at| Ok(at.as_str().unwrap_or_default().parse()?))
        .collect::<Result<_>>()?;
    ensure!(
        instants.len() < MOST || instants.last().is_some_and(|last| *last > until),
        "more than {MOST} occurrences of {rule} after {after}"
    );
    Ok(instants.into_iter().filter(|at| *at <= until).collect())
}

fn seconds(every: &str) -> Result<i64> {
    let (number, unit) = every.split_at(every.len() - 1);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => bail!("the tests know no interval like {every}"),
    };
    Ok(number.parse::<i64>()? * unit)
}

fn ask(question: &Value) -> Result<Value> {
    let mut process = todo(["next", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let mut input = process.stdin.take().context("its input is piped")?;
    writeln!(input, "{question}")?;
    drop(input);
    let output = process.wait_with_output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}
