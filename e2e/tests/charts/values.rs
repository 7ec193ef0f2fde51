//! Values are explained, and others refused.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::render::{CRDS, OPERATOR, helm, path};

/// Every value that is no object, or an object that users fill, by its path.
fn leaves(path: &str, value: &Value, schema: &Value, found: &mut BTreeMap<String, Value>) {
    let named = schema["properties"].as_object();
    match (value.as_object(), named) {
        (Some(values), Some(named)) => {
            for (name, value) in values {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                leaves(&path, value, named.get(name).unwrap_or(&Value::Null), found);
            }
        }
        _ => {
            found.insert(path.to_owned(), value.clone());
        }
    }
}

/// The rows of a table of values: name and default.
fn explained(readme: &str) -> BTreeMap<String, String> {
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| {
        let (name, rest) = row.split_once("` | `")?;
        let (default, _) = rest.split_once("` | ")?;
        Some((name.to_owned(), default.to_owned()))
    })
    .collect()
}

#[test]
fn every_value_is_explained_with_its_default() -> Result<()> {
    for chart in [OPERATOR, CRDS] {
        let read = |file: &str| fs::read_to_string(path(&format!("{chart}/{file}")));
        let values: Value = serde_saphyr::from_str(&read("values.yaml")?)?;
        let schema: Value = serde_json::from_str(&read("values.schema.json")?)?;
        let mut found = BTreeMap::new();
        leaves("", &values, &schema, &mut found);
        let explained = explained(&read("README.md")?);
        ensure!(
            found.keys().eq(explained.keys()),
            "{chart}: values.yaml has {:?}, README.md explains {:?}",
            found
                .keys()
                .filter(|name| !explained.contains_key(*name))
                .collect::<Vec<_>>(),
            explained
                .keys()
                .filter(|name| !found.contains_key(*name))
                .collect::<Vec<_>>()
        );
        for (name, default) in &explained {
            let default: Value = serde_saphyr::from_str(default).with_context(|| name.clone())?;
            ensure!(
                found[name] == default,
                "{chart}: {name} is {} and README.md says {default}",
                found[name]
            );
        }
    }
    Ok(())
}

#[test]
fn values_that_would_do_nothing_or_harm_are_refused() -> Result<()> {
    for (wrong, said) in [
        ("imagee.tag=1", "imagee"),
        ("image.tagg=1", "tagg"),
        ("podMonitor.enabled=maybe", "podMonitor"),
        ("leaderElection.enabled=false", "replicas"),
        ("watchNamespaces={Not A Namespace}", "watchNamespaces"),
        ("image.digest=latest", "digest"),
        ("logFormat=xml", "logFormat"),
        // Without a port the rule would allow all of them.
        ("networkPolicy.apiServerPorts={}", "apiServerPorts"),
        ("internalApiUrl=ftp://example.com", "internalApiUrl"),
        (
            "daprSidecar.enabled=true,internalApiUrl=http://example.com",
            "internalApiUrl",
        ),
    ] {
        let rendered = helm(&["template", OPERATOR, "--set", wrong])?;
        let stderr = String::from_utf8_lossy(&rendered.stderr);
        ensure!(
            !rendered.status.success() && stderr.contains(said),
            "--set {wrong}: {stderr}"
        );
    }
    Ok(())
}

#[test]
fn one_replica_needs_no_election() -> Result<()> {
    let alone = ["--set", "leaderElection.enabled=false", "--set", "replicas=1"];
    let rendered = crate::render::render(OPERATOR, &alone)?;
    ensure!(
        !rendered.contains("--leader-election") && !rendered.contains("leases"),
        "{rendered}"
    );
    Ok(())
}
