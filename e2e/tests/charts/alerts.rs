//! The operator's alerts ask for what it measures.

use std::fs;

use anyhow::{Result, anyhow, ensure};
use promql_parser::parser;
use serde_json::Value;

use crate::render::{OPERATOR, path};

#[test]
fn alerts_parse_and_ask_for_what_is_measured() -> Result<()> {
    let alerts: Value = serde_saphyr::from_str(&fs::read_to_string(path(&format!("{OPERATOR}/files/alerts.yaml")))?)?;
    let measured = fs::read_to_string(path("operator/src/metrics.rs"))?;
    let rules = alerts["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
    ensure!(rules.len() >= 5, "{} rules", rules.len());
    for rule in rules {
        let expression = rule["expr"].as_str().unwrap_or_default();
        parser::parse(expression).map_err(|error| anyhow!("{}: {error}", rule["alert"]))?;
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metrics: Vec<_> = words.filter(|word| word.starts_with("todo_")).collect();
        ensure!(
            !metrics.is_empty(),
            "{} asks for nothing of the operator's",
            rule["alert"]
        );
        for metric in metrics {
            ensure!(
                measured.contains(&format!("\"{metric}\"")),
                "{}: nobody measures {metric}",
                rule["alert"]
            );
        }
        for text in ["summary", "description", "action"] {
            ensure!(rule["annotations"][text].is_string(), "{} has no {text}", rule["alert"]);
        }
    }
    Ok(())
}
