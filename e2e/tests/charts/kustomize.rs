//! `config/` installs what the charts install.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::render::{CRDS, OPERATOR, documents, hold, identity, path, render, without_helm};

/// Where each template's objects are, for those who do not use Helm.
const FILES: [(&str, &str); 7] = [
    ("serviceaccount.yaml", "config/rbac/serviceaccount.yaml"),
    ("rbac/cluster.yaml", "config/rbac/cluster.yaml"),
    ("rbac/leader-election.yaml", "config/rbac/leader-election.yaml"),
    ("rbac/users.yaml", "config/rbac/users.yaml"),
    ("admissionpolicy.yaml", "config/admission/admissionpolicy.yaml"),
    ("deployment.yaml", "config/manager/deployment.yaml"),
    ("poddisruptionbudget.yaml", "config/manager/poddisruptionbudget.yaml"),
];

const HEADER: &str = "# Made from charts/todo-operator by its tests (e2e/tests/charts). Do not edit.\n";

/// The objects of each template as text, without what only Helm puts there.
fn by_template(rendered: &str) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for (text, _) in documents(rendered)? {
        let text = text.trim();
        let (source, object) = text.split_once('\n').context("a document has lines")?;
        let template = source
            .strip_prefix("# Source: todo-operator/templates/")
            .with_context(|| format!("no template is named in {source}"))?;
        let file: &mut String = files.entry(template.to_owned()).or_insert_with(|| HEADER.to_owned());
        file.push_str("---\n");
        for line in object.lines().map(str::trim_end) {
            let label = line.trim_start();
            let is_helms = label.starts_with("helm.sh/chart:") || label.starts_with("app.kubernetes.io/managed-by:");
            if !is_helms && !line.is_empty() {
                writeln!(file, "{line}")?;
            }
        }
    }
    Ok(files)
}

/// The files are what the chart renders.
fn files_are_fresh() -> Result<()> {
    let rendered = by_template(&render(OPERATOR, &[])?)?;
    let known: BTreeMap<_, _> = FILES.into();
    for template in rendered.keys() {
        ensure!(
            known.contains_key(template.as_str()),
            "{template} is in no file under config/"
        );
    }
    for (template, file) in FILES {
        let expected = rendered
            .get(template)
            .with_context(|| format!("{template} renders nothing"))?;
        hold(file, expected)?;
    }
    Ok(())
}

#[test]
fn kustomize_and_helm_install_the_same() -> Result<()> {
    files_are_fresh()?;
    let built = Command::new(todo_test_tools::kubernetes()?.join("kubectl"))
        .args(["kustomize", "config/default"])
        .current_dir(path("."))
        .output()?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let built = by_identity(&String::from_utf8(built.stdout)?)?;
    let mut installed = by_identity(&render(OPERATOR, &[])?)?;
    for (identity, mut crd) in by_identity(&render(CRDS, &[])?)? {
        let metadata = crd["metadata"].as_object_mut().context("it has metadata")?;
        metadata.retain(|name, _| name == "name");
        installed.insert(identity, crd);
    }
    let namespace = ("Namespace".to_owned(), String::new(), "todo-system".to_owned());
    ensure!(
        built.contains_key(&namespace),
        "kustomize makes the namespace, as helm's --create-namespace does"
    );
    for (identity, object) in &built {
        let same = *identity == namespace || installed.get(identity) == Some(object);
        ensure!(
            same,
            "{identity:?}: kustomize has\n{object:#}\nhelm has\n{:#}",
            installed.get(identity).unwrap_or(&Value::Null)
        );
    }
    ensure!(
        built.len() == installed.len() + 1,
        "helm installs something that kustomize does not"
    );
    Ok(())
}

fn by_identity(text: &str) -> Result<BTreeMap<(String, String, String), Value>> {
    let objects = documents(text)?.into_iter();
    Ok(objects
        .map(|(_, object)| (identity(&object), without_helm(object)))
        .collect())
}
