//! With `watchNamespaces` the operator gets no right outside of them.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use crate::render::{OPERATOR, documents, identity, render};

#[test]
fn some_namespaces_mean_no_right_in_the_others() -> Result<()> {
    let rendered = render(
        OPERATOR,
        &["--values", &format!("{OPERATOR}/tests/values/namespaced.yaml")],
    )?;
    let mut roles = BTreeSet::new();
    for (_, object) in documents(&rendered)? {
        let (kind, namespace, name) = identity(&object);
        ensure!(!namespace.is_empty(), "{kind} {name} belongs to no namespace");
        if kind == "Role" {
            roles.insert((namespace, name));
        }
    }
    let expected = [
        ("back-office", "todo-system-todo-operator"),
        ("kafka", "todo-system-todo-operator-kafka"),
        ("shop", "todo-system-todo-operator"),
        ("todo-system", "todo-operator-leader-election"),
    ];
    let expected = expected
        .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
        .into();
    ensure!(roles == expected, "{roles:?}");
    Ok(())
}

#[test]
fn a_policy_that_was_asked_for_speaks_of_the_watched_namespaces_only() -> Result<()> {
    let values = format!("{OPERATOR}/tests/values/namespaced.yaml");
    let rendered = render(
        OPERATOR,
        &["--values", &values, "--set", "admissionPolicy.enabled=true"],
    )?;
    let bindings = documents(&rendered)?.into_iter().map(|(_, object)| object);
    let bindings: Vec<_> = bindings
        .filter(|object| object["kind"] == "ValidatingAdmissionPolicyBinding")
        .collect();
    ensure!(bindings.len() == 2, "{} bindings", bindings.len());
    for binding in bindings {
        let named = &binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"][0]["values"];
        ensure!(*named == serde_json::json!(["shop", "back-office"]), "{binding}");
    }
    Ok(())
}

#[test]
fn nobody_may_do_what_no_rule_says_or_everything_there_is() -> Result<()> {
    for values in ["namespaced", "everything"] {
        let rendered = render(
            OPERATOR,
            &["--values", &format!("{OPERATOR}/tests/values/{values}.yaml")],
        )?;
        for (text, object) in documents(&rendered)? {
            let (kind, _, name) = identity(&object);
            if !matches!(kind.as_str(), "Role" | "ClusterRole") {
                continue;
            }
            ensure!(!text.contains('*'), "{kind} {name} has a wildcard");
            let rules = object["rules"].as_array().cloned().unwrap_or_default();
            ensure!(!rules.is_empty(), "{kind} {name} has no rule");
            // A comment for each rule, but for one that shares that of the rule before it.
            let explained = text
                .lines()
                .filter(|line| line.trim_start().starts_with("# ") && !line.contains("Source:"));
            let shares = usize::from(name.ends_with("leader-election"));
            ensure!(
                explained.count() + shares >= rules.len(),
                "{kind} {name} has a rule without a reason"
            );
        }
    }
    Ok(())
}
