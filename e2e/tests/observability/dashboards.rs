//! The dashboards: can Grafana show them, and do they ask for what there is?

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::catalogue::{Catalogue, project};
use crate::expressions;

/// Grafana's names of the units that are used.
const UNITS: [&str; 5] = ["s", "short", "ops", "reqps", "percentunit"];

/// Grafana's grid is this wide.
const COLUMNS: u64 = 24;

/// The dashboards by their file names.
pub(crate) fn read() -> Result<BTreeMap<String, Value>> {
    let mut dashboards = BTreeMap::new();
    for entry in std::fs::read_dir(project("config/observability/dashboards"))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .context("a file has a name")?
            .to_string_lossy()
            .into_owned();
        let text = std::fs::read_to_string(&path)?;
        let dashboard = serde_json::from_str(&text).with_context(|| name.clone())?;
        dashboards.insert(name, dashboard);
    }
    Ok(dashboards)
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The titles of a dashboard's panels.
pub(crate) fn titles(dashboard: &Value) -> Vec<String> {
    list(dashboard, "panels")
        .iter()
        .map(|panel| text(panel, "title").to_owned())
        .collect()
}

/// What is wrong with a dashboard.
pub(crate) fn problems(dashboard: &Value, catalogue: &Catalogue) -> Vec<String> {
    let mut wrong = vec![];
    for field in ["uid", "title", "description"] {
        if text(dashboard, field).is_empty() {
            wrong.push(format!("no {field}"));
        }
    }
    let has_variable = list(&dashboard["templating"], "list")
        .iter()
        .any(|variable| text(variable, "type") == "datasource" && text(variable, "name") == "datasource");
    if !has_variable {
        wrong.push("no variable for the data source".to_owned());
    }
    let mut ids = BTreeSet::new();
    let mut titles = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in list(dashboard, "panels") {
        let title = text(panel, "title");
        let mut say = |what: String| wrong.push(format!("panel {title:?}: {what}"));
        if title.is_empty() {
            say("no title".to_owned());
        }
        if !titles.insert(title) {
            say("its title is there twice".to_owned());
        }
        if panel["id"].as_u64().is_none_or(|id| !ids.insert(id)) {
            say(format!("its id {} is missing or there twice", panel["id"]));
        }
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap_or_default();
        if side("w") == 0 || side("h") == 0 || side("x") + side("w") > COLUMNS {
            say("has no place on the grid".to_owned());
        }
        let cells = (side("x")..side("x") + side("w"))
            .flat_map(|x| (side("y")..side("y") + side("h")).map(move |y| (x, y)))
            .collect::<Vec<_>>();
        // Not `all`: every cell is to be taken.
        if cells.into_iter().filter(|cell| !taken.insert(*cell)).count() > 0 {
            say("lies over another".to_owned());
        }
        if text(panel, "type") != "row" {
            panel_problems(panel, catalogue).into_iter().for_each(say);
        }
    }
    if ids.is_empty() {
        wrong.push("no panels".to_owned());
    }
    wrong
}

fn panel_problems(panel: &Value, catalogue: &Catalogue) -> Vec<String> {
    let mut wrong = vec![];
    if text(panel, "description").is_empty() {
        wrong.push("no description".to_owned());
    }
    let unit = text(&panel["fieldConfig"]["defaults"], "unit");
    if !UNITS.contains(&unit) {
        wrong.push(format!("no unit that is known: {unit:?}"));
    }
    let targets = list(panel, "targets");
    if targets.is_empty() {
        wrong.push("asks for nothing".to_owned());
    }
    let mut names = BTreeSet::new();
    for asked in std::iter::once(panel).chain(targets) {
        if asked["datasource"]["uid"] != "${datasource}" {
            wrong.push("its data source is not the variable".to_owned());
        }
    }
    for target in targets {
        if !names.insert(text(target, "refId")) {
            wrong.push("a refId is there twice".to_owned());
        }
        match expressions::check(text(target, "expr"), catalogue) {
            Err(problems) => wrong.extend(problems),
            Ok(labels) => {
                for label in legend(text(target, "legendFormat")) {
                    if !labels.contains(label) {
                        wrong.push(format!(
                            "its legend shows {label}, which comes not out of the expression"
                        ));
                    }
                }
            }
        }
    }
    wrong
}

/// The labels in `{{…}}`.
fn legend(format: &str) -> impl Iterator<Item = &str> {
    format
        .split("{{")
        .skip(1)
        .filter_map(|rest| rest.split_once("}}"))
        .map(|(label, _)| label.trim())
}

#[test]
fn every_dashboard_can_be_shown_and_asks_for_what_there_is() -> Result<()> {
    let catalogue = Catalogue::read()?;
    let dashboards = read()?;
    assert_eq!(dashboards.len(), 3);
    let mut uids = BTreeSet::new();
    for (name, dashboard) in &dashboards {
        assert_eq!(problems(dashboard, &catalogue), Vec::<String>::new(), "{name}");
        assert!(uids.insert(text(dashboard, "uid")), "{name}: its uid is taken");
    }
    Ok(())
}

#[test]
fn each_mistake_in_a_dashboard_is_noticed() -> Result<()> {
    let catalogue = Catalogue::read()?;
    let good = read()?.remove("overview.json").context("it is there")?;
    let breakages = [
        ("/title", "no title", Value::Null),
        ("/templating/list", "no variable", json!([])),
        ("/panels/1/id", "there twice", json!(3)),
        ("/panels/1/title", "no title", json!("")),
        ("/panels/1/gridPos/x", "lies over another", json!(5)),
        ("/panels/1/gridPos/w", "no place", json!(25)),
        ("/panels/1/fieldConfig/defaults/unit", "no unit", json!("furlongs")),
        ("/panels/1/datasource/uid", "is not the variable", json!("prom-1")),
        ("/panels/1/targets", "asks for nothing", json!([])),
        (
            "/panels/1/targets/0/expr",
            "no metric is called",
            json!("rate(no_such_total[5m])"),
        ),
        (
            "/panels/1/targets/0/legendFormat",
            "its legend shows",
            json!("{{route}}"),
        ),
    ];
    for (pointer, expected, value) in breakages {
        let mut broken = good.clone();
        *broken.pointer_mut(pointer).with_context(|| pointer.to_owned())? = value;
        let found = problems(&broken, &catalogue).join("; ");
        assert!(found.contains(expected), "{pointer}: {found:?}");
    }
    Ok(())
}
