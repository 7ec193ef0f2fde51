//! What a running platform shows on `/metrics`, beside what is listed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use todo_e2e::client::HTTP;
use todo_e2e::scene::Scene;
use todo_e2e::{database, wait_for};

use crate::catalogue::{Catalogue, Kind};

/// A page of metrics, read.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The kind of each family, as it says.
    kinds: BTreeMap<String, String>,
    described: BTreeSet<String>,
    series: Vec<Series>,
}

#[derive(Debug)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Page {
    /// Prometheus' text format 0.0.4, as far as it is used here: no label's value has a comma or a quote in it.
    fn parse(text: &str) -> Result<Self> {
        let mut page = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').context("a kind")?;
                page.kinds.insert(name.to_owned(), kind.to_owned());
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                page.described
                    .insert(rest.split(' ').next().unwrap_or_default().to_owned());
            } else {
                let (series, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                let labels = labels
                    .trim_end_matches('}')
                    .split(',')
                    .filter(|label| !label.is_empty());
                let labels = labels.map(|label| {
                    let (name, value) = label.split_once('=').context("a label")?;
                    Ok((name.to_owned(), value.trim_matches('"').to_owned()))
                });
                page.series.push(Series {
                    name: name.to_owned(),
                    labels: labels.collect::<Result<_>>()?,
                    value: value.parse()?,
                });
            }
        }
        ensure!(!page.series.is_empty(), "no metrics");
        Ok(page)
    }

    /// The value of the series with (at least) these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let is_meant = |series: &&Series| {
            series.name == name
                && labels
                    .iter()
                    .all(|(label, value)| series.labels.get(*label).is_some_and(|found| found == value))
        };
        self.series.iter().find(is_meant).map(|series| series.value)
    }

    /// The families that are shown with a value.
    pub(crate) fn families(&self) -> BTreeSet<&str> {
        self.kinds.keys().map(String::as_str).collect()
    }

    /// What is not as it is listed.
    pub(crate) fn problems(&self, catalogue: &Catalogue) -> Vec<String> {
        let mut wrong = vec![];
        for (name, kind) in &self.kinds {
            match catalogue.metrics.get(name) {
                Some(metric) if Some(metric.kind) == Kind::parse(kind) => {}
                Some(metric) => wrong.push(format!("{name} is a {kind}, not a {:?}", metric.kind)),
                None => wrong.push(format!("{name} is not listed")),
            }
            if !self.described.contains(name) {
                wrong.push(format!("{name} is not described"));
            }
        }
        for series in &self.series {
            let Some((metric, is_bucket)) = catalogue.of_series(&series.name) else {
                wrong.push(format!("{} is of no metric that is listed", series.name));
                continue;
            };
            for label in series.labels.keys() {
                let is_listed = metric.labels.contains(label) || (is_bucket && label == "le");
                if !is_listed {
                    wrong.push(format!("{} has the label {label}", series.name));
                }
            }
        }
        wrong
    }
}

/// Reads `/metrics`.
pub(crate) async fn scrape(base: &str) -> Result<Page> {
    let page = HTTP.get(format!("{base}/metrics")).send().await?.error_for_status()?;
    Page::parse(&page.text().await?)
}

/// What only a sidecar, a broker, a state store or a collector makes a process measure.
const ONLY_SPREAD_OUT: [&str; 13] = [
    "todo_alarm_failures_total",
    "todo_alarms_pending",
    "todo_alarms_received_total",
    "todo_alarms_removed_total",
    "todo_alarms_set_total",
    "todo_bus_failed_entries_total",
    "todo_consumer_lag_seconds",
    "todo_dapr_call_seconds",
    "todo_delivered_messages_total",
    "todo_secret_reload_failing",
    "todo_state_fallback_total",
    "todo_state_merged_total",
    "todo_trace_spans_total",
];

/// What no process of a platform measures: it is the operator that makes platforms.
const OF_THE_OPERATOR: &str = "todo_operator_";

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_shows_what_is_listed_and_as_it_is_listed() -> Result<()> {
    let catalogue = Catalogue::read()?;
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    let mut up = scene.up("up", &url, &[]).await?;
    let alice = scene.client(&up.base, "alice").await?;
    let soon = (jiff::Timestamp::now() + Duration::from_secs(2)).to_string();
    let reminder = json!({"at": {"at": soon, "time_zone": "Europe/Berlin"}});
    alice
        .post("/tasks", &json!({"title": "Call Bob", "reminders": [reminder]}))
        .await?;
    let schedule = json!({
        "name": "every second", "schedule": {"cron": "* * * * * *", "time_zone": "UTC"}, "template": {"title": "Breathe"},
    });
    alice.post("/schedules", &schedule).await?;
    let expected: BTreeSet<&str> = catalogue
        .metrics
        .iter()
        .filter(|(name, metric)| metric.is_ours && !name.starts_with(OF_THE_OPERATOR))
        .filter(|(name, _)| !ONLY_SPREAD_OUT.contains(&name.as_str()))
        .map(|(name, _)| name.as_str())
        .collect();
    let page = wait_for("all metrics to be shown", Duration::from_secs(30), || async {
        let page = scrape(&up.base).await?;
        let missing: Vec<_> = expected.difference(&page.families()).copied().collect();
        if missing.is_empty() {
            return Ok(Some(page));
        }
        eprintln!("missing: {missing:?}");
        Ok(None)
    })
    .await?;
    assert_eq!(page.problems(&catalogue), Vec::<String>::new());
    for role in ["relay", "recurring", "reminders", "audit"] {
        assert_eq!(page.value("todo_role_running", &[("role", role)]), Some(1.0), "{role}");
    }
    assert!(page.value("todo_consumer_event_delay_seconds_count", &[("consumer", "audit")]) > Some(0.0));
    assert!(page.value("todo_database_connections_max", &[]) > Some(0.0));
    assert!(up.process.stop().await?.success());
    Ok(())
}

#[test]
fn each_difference_from_the_list_is_noticed() -> Result<()> {
    let catalogue = Catalogue::parse("| `a_total` | counter | `x` | A. |\n| `b_seconds` | histogram | | B. |")?;
    let good = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"1\"} 1\n";
    let found = |text: &str| -> Result<String> { Ok(Page::parse(text)?.problems(&catalogue).join("; ")) };
    assert_eq!(found(good)?, "");
    for (text, expected) in [
        (good.replace("a_total", "c_total"), "c_total is not listed"),
        (good.replace(" counter", " gauge"), "a_total is a gauge"),
        (good.replace("# HELP a_total A.\n", ""), "a_total is not described"),
        (good.replace("x=", "user="), "a_total has the label user"),
        (
            "# HELP b_seconds B.\n# TYPE b_seconds summary\nb_seconds{quantile=\"0.5\"} 1\n".to_owned(),
            "b_seconds is a summary",
        ),
    ] {
        let said = found(&text)?;
        assert!(said.contains(expected), "{text}: {said}");
    }
    Ok(())
}
