//! The alerts: can Prometheus evaluate them, and does whoever is woken learn what to do?

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::Value;

use crate::catalogue::{Catalogue, project};
use crate::source::Source;
use crate::{dashboards, expressions};

fn read() -> Result<Value> {
    let text = std::fs::read_to_string(project("config/observability/alerts.yaml"))?;
    Ok(serde_saphyr::from_str(&text)?)
}

/// Whatever an alert may quote: titles of panels, and what is in the source.
struct Quotable {
    titles: BTreeSet<String>,
    source: Source,
}

impl Quotable {
    fn read() -> Result<Self> {
        Ok(Self {
            titles: dashboards::read()?.values().flat_map(dashboards::titles).collect(),
            source: Source::read()?,
        })
    }

    fn has(&self, text: &str) -> bool {
        self.titles.contains(text) || self.source.contains(text)
    }
}

/// What is wrong with the rules.
fn problems(rules: &Value, catalogue: &Catalogue, quotable: &Quotable) -> Vec<String> {
    let mut wrong = vec![];
    let mut names = BTreeSet::new();
    let none = vec![];
    for group in rules["groups"].as_array().unwrap_or(&none) {
        if group["name"].as_str().is_none_or(|name| !names.insert(name)) {
            wrong.push(format!("group {}: its name is missing or there twice", group["name"]));
        }
        for rule in group["rules"].as_array().unwrap_or(&none) {
            let name = rule["alert"].as_str().unwrap_or_default();
            if !name.starts_with("Todo") || !names.insert(name) {
                wrong.push(format!(
                    "alert {name:?}: its name is missing, another's, or there twice"
                ));
            }
            let found = rule_problems(rule, catalogue, quotable);
            wrong.extend(found.into_iter().map(|what| format!("alert {name}: {what}")));
        }
    }
    if names.is_empty() {
        wrong.push("no alerts".to_owned());
    }
    wrong
}

fn rule_problems(rule: &Value, catalogue: &Catalogue, quotable: &Quotable) -> Vec<String> {
    let mut wrong = vec![];
    if !matches!(rule["labels"]["severity"].as_str(), Some("page" | "ticket")) {
        wrong.push("its severity is neither page nor ticket".to_owned());
    }
    if let Some(wait) = rule.get("for")
        && !wait.as_str().is_some_and(is_duration)
    {
        wrong.push(format!("for {wait} is no duration"));
    }
    let labels = match expressions::check(rule["expr"].as_str().unwrap_or_default(), catalogue) {
        Ok(labels) => labels,
        Err(problems) => {
            wrong.extend(problems);
            return wrong;
        }
    };
    for field in ["summary", "description", "action"] {
        let text = rule["annotations"][field].as_str().unwrap_or_default();
        if text.len() < 10 {
            wrong.push(format!("no {field}"));
        }
        let named = text.split("$labels.").skip(1);
        for label in named.map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()) {
            if label.is_none_or(|label| !labels.contains(label)) {
                wrong.push(format!(
                    "its {field} shows {label:?}, which comes not out of the expression"
                ));
            }
        }
    }
    let action = rule["annotations"]["action"].as_str().unwrap_or_default();
    for quoted in action.split('"').skip(1).step_by(2) {
        if !quotable.has(quoted) {
            wrong.push(format!(
                "its action quotes {quoted:?}, which is neither a panel nor in the source"
            ));
        }
    }
    wrong
}

fn is_duration(text: &str) -> bool {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    number.parse::<u32>().is_ok_and(|number| number > 0) && matches!(unit, "s" | "m" | "h")
}

#[test]
fn every_alert_can_fire_and_says_what_to_do() -> Result<()> {
    let found = problems(&read()?, &Catalogue::read()?, &Quotable::read()?);
    assert_eq!(found, Vec::<String>::new());
    Ok(())
}

/// What the platform promises, and what would go wrong unseen.
#[test]
fn what_matters_has_an_alert() -> Result<()> {
    let rules = read()?.to_string();
    for metric in [
        "http_requests_total",
        "http_request_duration_seconds_bucket",
        "todo_outbox_oldest_age_seconds",
        "todo_outbox_depth_events",
        "todo_consumer_lag_seconds",
        "todo_dead_letters",
        "todo_reminder_lateness_seconds_bucket",
        "todo_schedule_delay_seconds_bucket",
        "todo_role_running",
        "todo_dapr_call_seconds_count",
        "todo_secret_reload_failing",
    ] {
        assert!(rules.contains(metric), "{metric}");
    }
    Ok(())
}

#[test]
fn each_mistake_in_an_alert_is_noticed() -> Result<()> {
    let (catalogue, quotable) = (Catalogue::read()?, Quotable::read()?);
    let good = read()?;
    let breakages: [(&str, &str, Value); 10] = [
        ("/groups", "no alerts", Value::Array(vec![])),
        ("/groups/1/name", "there twice", "todo-api".into()),
        ("/groups/0/rules/1/alert", "there twice", "TodoApiErrorsBurnFast".into()),
        (
            "/groups/0/rules/0/expr",
            "no metric is called",
            "rate(no_such_total[5m]) > 1".into(),
        ),
        ("/groups/0/rules/0/expr", "no metric is called", "up > ".into()),
        ("/groups/0/rules/0/for", "no duration", "soon".into()),
        (
            "/groups/0/rules/0/labels/severity",
            "neither page nor ticket",
            "urgent".into(),
        ),
        ("/groups/0/rules/0/annotations/action", "no action", "".into()),
        (
            "/groups/0/rules/0/annotations/summary",
            "comes not out",
            "{{ $labels.route }} fails".into(),
        ),
        (
            "/groups/0/rules/0/annotations/action",
            "neither a panel",
            "Look at \"No such panel\".".into(),
        ),
    ];
    for (pointer, expected, value) in breakages {
        let mut broken = good.clone();
        let is_syntax = value == "up > ";
        *broken
            .pointer_mut(pointer)
            .ok_or_else(|| anyhow::anyhow!("no {pointer}"))? = value;
        let found = problems(&broken, &catalogue, &quotable).join("; ");
        assert!(
            found.contains(expected) || (is_syntax && !found.is_empty()),
            "{pointer}: {found:?}"
        );
    }
    Ok(())
}
