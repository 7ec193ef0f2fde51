//! What scrapes, warns and shows: a `PodMonitor`, a `PrometheusRule` and dashboards, from `config/observability`, each
//! narrowed to this platform's series, so that one Prometheus and one Grafana may serve many.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::draft::{Draft, fingerprint};
use super::promql::narrow;
use super::{ROLES, pod};
use crate::child::{Child, Kind};

const ALERTS: &str = include_str!("../../../../config/observability/alerts.yaml");

const DASHBOARDS: [(&str, &str); 3] = [
    (
        "overview",
        include_str!("../../../../config/observability/dashboards/overview.json"),
    ),
    (
        "events",
        include_str!("../../../../config/observability/dashboards/events.json"),
    ),
    (
        "reminders-and-schedules",
        include_str!("../../../../config/observability/dashboards/reminders-and-schedules.json"),
    ),
];

static RULES: LazyLock<Value> =
    LazyLock::new(|| serde_saphyr::from_str(ALERTS).expect("the alerts are a file of this project"));

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    let asked = &draft.spec.observability;
    let mut children = vec![];
    if asked.pod_monitor {
        children.push(pod_monitor(draft));
    }
    if asked.alerts {
        children.push(rule(draft));
    }
    if asked.dashboards {
        children.push(dashboards(draft));
    }
    children
}

/// Whether a `PodMonitor` has Prometheus ask the pods.
pub(super) fn is_scraped(draft: &Draft) -> bool {
    draft.spec.observability.pod_monitor && draft.inputs.capabilities.has(Kind::PodMonitor)
}

/// What tells this platform's series apart. A `PodMonitor` makes its own name the job.
fn matchers(draft: &Draft) -> String {
    let names = &draft.names;
    if is_scraped(draft) {
        format!(r#"job="{}/{}""#, names.namespace, names.monitoring())
    } else {
        format!(r#"namespace="{}", pod=~"{}-.+""#, names.namespace, names.platform)
    }
}

fn pod_monitor(draft: &Draft) -> Child {
    let mut endpoints = vec![json!({"port": pod::PORT_NAME, "path": "/metrics"})];
    if draft.has_sidecars() {
        endpoints.push(json!({"port": "dapr-metrics", "path": "/"}));
    }
    let object = draft
        .object(Kind::PodMonitor, draft.names.monitoring())
        .component("monitoring");
    object.content(&json!({"spec": {
        "selector": {"matchLabels": {
            "app.kubernetes.io/name": "todo-platform",
            "app.kubernetes.io/instance": draft.names.platform,
        }},
        "podMetricsEndpoints": endpoints,
    }}))
}

/// The alerts, without those that miss a role which the manifest suspends.
fn rule(draft: &Draft) -> Child {
    let matchers = matchers(draft);
    let mut spec = RULES.clone();
    let suspended: Vec<String> = ROLES
        .into_iter()
        .filter(|role| draft.is_suspended(*role))
        .map(|role| format!("absent(todo_role_running{{role=\"{role}\"}})"))
        .collect();
    let groups = spec["groups"].as_array_mut();
    for group in groups.into_iter().flatten() {
        let Some(rules) = group["rules"].as_array_mut() else {
            continue;
        };
        let expression = |rule: &Value| rule["expr"].as_str().unwrap_or_default().trim().to_owned();
        rules.retain(|rule| !suspended.contains(&expression(rule)));
        for rule in rules {
            rule["expr"] = narrow(&expression(rule), &matchers).into();
            rule["labels"]["namespace"] = draft.names.namespace.as_str().into();
            rule["labels"]["platform"] = draft.names.platform.as_str().into();
        }
    }
    let object = draft
        .object(Kind::PrometheusRule, draft.names.monitoring())
        .component("monitoring");
    object.content(&json!({"spec": spec}))
}

/// Dashboards as files. Grafana's sidecar puts those of all platforms into one folder, so their names differ.
fn dashboards(draft: &Draft) -> Child {
    let names = &draft.names;
    let matchers = matchers(draft);
    let platform = format!("{}/{}", names.namespace, names.platform);
    let files = DASHBOARDS.map(|(name, text)| {
        let mut dashboard: Value = serde_json::from_str(text).expect("the dashboards are files of this project");
        narrow_each(&mut dashboard, &matchers);
        let title = dashboard["title"].as_str().unwrap_or(name);
        dashboard["title"] = format!("{title} ({platform})").into();
        dashboard["uid"] = format!("todo-{}", fingerprint(&(&platform, name))).into();
        let file = format!("{}-{}-{name}.json", names.namespace, names.platform);
        (file, dashboard.to_string())
    });
    let map = ConfigMap {
        data: Some(files.into()),
        ..ConfigMap::default()
    };
    let object = draft
        .object(Kind::ConfigMap, names.dashboards())
        .component("monitoring");
    object.label("grafana_dashboard", "1").content(&map)
}

/// Narrows every expression of a dashboard.
fn narrow_each(value: &mut Value, matchers: &str) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "expr" => *text = narrow(text, matchers),
                    _ => narrow_each(value, matchers),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| narrow_each(item, matchers)),
        _ => {}
    }
}
