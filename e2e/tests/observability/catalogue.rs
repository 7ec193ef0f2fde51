//! `config/observability/metrics.md`, read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The labels that Prometheus itself puts on whatever it scrapes.
pub(crate) const OF_EVERY_TARGET: [&str; 2] = ["job", "instance"];

/// A file or folder of the project.
pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Every metric that may be used.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    pub(crate) metrics: BTreeMap<String, Metric>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) kind: Kind,
    pub(crate) labels: BTreeSet<String>,
    /// Whether the platform's own processes show it.
    pub(crate) is_ours: bool,
}

impl Kind {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "counter" => Some(Self::Counter),
            "gauge" => Some(Self::Gauge),
            "histogram" => Some(Self::Histogram),
            _ => None,
        }
    }
}

impl Catalogue {
    pub(crate) fn read() -> Result<Self> {
        Self::parse(&std::fs::read_to_string(project("config/observability/metrics.md"))?)
    }

    /// Rows of the tables, `| name | kind | labels | … |`; those after `## What others measure` are not ours.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut catalogue = Self::default();
        let mut is_ours = true;
        for line in text.lines() {
            if line.starts_with("## ") {
                is_ours = false;
            }
            let Some(row) = line.strip_prefix("| `") else {
                continue;
            };
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let [name, kind, labels, meaning, ..] = cells[..] else {
                anyhow::bail!("not four columns: {line}");
            };
            ensure!(!meaning.is_empty(), "no meaning: {line}");
            let name = name.trim_matches('`').to_owned();
            let metric = Metric {
                kind: Kind::parse(kind).with_context(|| format!("no kind: {line}"))?,
                labels: labels
                    .split(',')
                    .map(|label| label.trim().trim_matches('`').to_owned())
                    .filter(|label| !label.is_empty())
                    .collect(),
                is_ours,
            };
            ensure!(
                catalogue.metrics.insert(name.clone(), metric).is_none(),
                "{name} is there twice"
            );
        }
        Ok(catalogue)
    }

    /// The metric of a series, and whether the series has the label `le`.
    pub(crate) fn of_series(&self, name: &str) -> Option<(&Metric, bool)> {
        if let Some(metric) = self.metrics.get(name) {
            return (metric.kind != Kind::Histogram).then_some((metric, false));
        }
        ["_bucket", "_sum", "_count"].into_iter().find_map(|ending| {
            let metric = self.metrics.get(name.strip_suffix(ending)?)?;
            (metric.kind == Kind::Histogram).then_some((metric, ending == "_bucket"))
        })
    }
}

#[test]
fn names_follow_the_conventions() -> Result<()> {
    for (name, metric) in Catalogue::read()?.metrics.iter().filter(|(_, metric)| metric.is_ours) {
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
        assert!(metric.kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
        assert!(name.starts_with("todo_") || name.starts_with("http_"), "{name}");
        assert!(!name.contains("_ms") && !name.contains("millis"), "{name}");
    }
    Ok(())
}
