//! Running Helm, and reading what it renders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The chart of the operator.
pub(crate) const OPERATOR: &str = "charts/todo-operator";
/// The chart of the resource types.
pub(crate) const CRDS: &str = "charts/todo-operator-crds";
/// Set to write what would else be compared.
const UPDATE: &str = "TODO_UPDATE_GOLDEN";

/// A file or folder of the repository.
pub(crate) fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(relative)
}

/// Runs Helm, without anything of the user's own.
pub(crate) fn helm(arguments: &[&str]) -> Result<Output> {
    let home = tempfile::tempdir()?;
    Command::new(todo_test_tools::helm()?)
        .args(arguments)
        .current_dir(path("."))
        .env("HOME", home.path())
        .env("KUBECONFIG", home.path().join("none"))
        .output()
        .context("cannot run helm")
}

/// What a chart renders as the release `todo-operator` in `todo-system`.
pub(crate) fn render(chart: &str, more: &[&str]) -> Result<String> {
    let mut arguments = vec!["template", "todo-operator", chart, "--namespace", "todo-system"];
    arguments.extend(more);
    let rendered = helm(&arguments)?;
    ensure!(
        rendered.status.success(),
        "helm {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&rendered.stderr)
    );
    Ok(String::from_utf8(rendered.stdout)?)
}

/// The documents of a text of YAML, each with its text.
pub(crate) fn documents(text: &str) -> Result<Vec<(String, Value)>> {
    let mut documents = Vec::new();
    for document in format!("\n{text}").split("\n---\n") {
        let value: Value = serde_saphyr::from_str(document).with_context(|| document.to_owned())?;
        if !value.is_null() {
            documents.push((document.to_owned(), value));
        }
    }
    Ok(documents)
}

/// Kind, namespace and name.
pub(crate) fn identity(object: &Value) -> (String, String, String) {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    (text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
}

/// Takes away what only Helm puts there.
pub(crate) fn without_helm(mut object: Value) -> Value {
    for pointer in ["/metadata/labels", "/spec/template/metadata/labels"] {
        if let Some(labels) = object.pointer_mut(pointer).and_then(Value::as_object_mut) {
            labels.remove("helm.sh/chart");
            labels.remove("app.kubernetes.io/managed-by");
        }
    }
    object
}

/// Holds a file to what it should be, or writes it.
pub(crate) fn hold(file: &str, expected: &str) -> Result<()> {
    let path = path(file);
    if std::env::var_os(UPDATE).is_some() {
        return fs::write(&path, expected).with_context(|| file.to_owned());
    }
    let present = fs::read_to_string(&path).unwrap_or_default();
    if present == expected {
        return Ok(());
    }
    let first = std::iter::zip(present.lines(), expected.lines())
        .position(|(present, expected)| present != expected)
        .unwrap_or_else(|| present.lines().count().min(expected.lines().count()));
    let line = |text: &str| text.lines().nth(first).unwrap_or("(it ends)").to_owned();
    bail!(
        "{file}, line {}: there is\n  {}\nand rendered is\n  {}\nif that is meant: {UPDATE}=1 cargo test -p todo-e2e --test charts",
        first + 1,
        line(&present),
        line(expected)
    )
}
