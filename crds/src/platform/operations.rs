//! How a platform is looked after: upgrades and their windows, metrics, alerts and logs.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use todo_recurrence::span::Span;

use crate::schema::span_schema;

/// How a new version is rolled out.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeSpec {
    /// Whether a changed `version` rolls out by itself, or waits for a person's approval.
    #[serde(default)]
    pub strategy: UpgradeStrategy,

    /// Whether a version that does not become ready is taken back.
    #[serde(default = "UpgradeSpec::default_auto_rollback")]
    pub auto_rollback: bool,

    /// How long a component must be ready before the next one follows, for example "2m".
    #[serde(default = "UpgradeSpec::default_soak")]
    #[schemars(schema_with = "span_schema")]
    pub soak: Span,

    /// How long one component may take to become ready, for example "20m".
    #[serde(default = "UpgradeSpec::default_timeout")]
    #[schemars(schema_with = "span_schema")]
    pub timeout: Span,

    /// When roll-outs may begin. Without it: at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub maintenance_window: Option<MaintenanceWindow>,
}

impl UpgradeSpec {
    fn default_auto_rollback() -> bool {
        true
    }

    fn default_soak() -> Span {
        Span::minutes(2)
    }

    fn default_timeout() -> Span {
        Span::minutes(20)
    }
}

impl Default for UpgradeSpec {
    fn default() -> Self {
        Self {
            strategy: UpgradeStrategy::default(),
            auto_rollback: Self::default_auto_rollback(),
            soak: Self::default_soak(),
            timeout: Self::default_timeout(),
            maintenance_window: None,
        }
    }
}

/// Whether a changed version rolls out by itself.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpgradeStrategy {
    /// It does.
    #[default]
    Automatic,
    /// It waits for approval.
    Manual,
}

/// When roll-outs may begin.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceWindow {
    /// When the window opens, as a cron expression of five fields.
    #[schemars(length(min = 1, max = 256))]
    pub cron: String,

    /// How long it stays open, for example "4h".
    #[schemars(schema_with = "span_schema")]
    pub duration: Span,

    /// The IANA time zone that `cron` is read in.
    #[serde(default = "crate::default_time_zone")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
}

/// Metrics, alerts, dashboards and logs.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ObservabilitySpec {
    /// Whether to make a `PodMonitor` for the Prometheus operator.
    #[serde(default)]
    pub pod_monitor: bool,

    /// Whether to make a `PrometheusRule` with the platform's alerts.
    #[serde(default)]
    pub alerts: bool,

    /// Whether to make a `ConfigMap` with Grafana dashboards.
    #[serde(default)]
    pub dashboards: bool,

    /// How log lines look. Without it: text on a terminal, JSON elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::own_words)]
    pub log_format: Option<LogFormat>,
}

/// How log lines look.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}
