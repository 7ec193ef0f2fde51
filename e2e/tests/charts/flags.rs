//! What the chart tells the operator is what the binary takes.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use todo_e2e::process::todo;

use crate::render::{OPERATOR, documents, render};

#[test]
fn the_binary_knows_every_flag_that_the_chart_gives_it() -> Result<()> {
    let help = todo(["operator", "--help"]).output()?;
    ensure!(help.status.success(), "{help:?}");
    let help = String::from_utf8(help.stdout)?;
    for values in ["namespaced", "everything"] {
        let rendered = render(
            OPERATOR,
            &["--values", &format!("{OPERATOR}/tests/values/{values}.yaml")],
        )?;
        let objects = documents(&rendered)?.into_iter().map(|(_, object)| object);
        let deployment = objects.into_iter().find(|object| object["kind"] == "Deployment");
        let deployment = deployment.context("there is a Deployment")?;
        let arguments = deployment
            .pointer("/spec/template/spec/containers/0/args")
            .and_then(Value::as_array);
        let arguments = arguments.context("it has arguments")?;
        ensure!(arguments[0] == "operator", "{arguments:?}");
        for argument in &arguments[1..] {
            let flag = argument
                .as_str()
                .and_then(|argument| argument.split('=').next())
                .unwrap_or_default();
            let is_known = help.split_whitespace().any(|word| word.trim_end_matches(',') == flag);
            ensure!(flag.starts_with("--") && is_known, "todo operator knows no {flag}");
        }
    }
    Ok(())
}
