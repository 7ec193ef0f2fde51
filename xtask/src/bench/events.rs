//! Events on Dapr and Kafka: the platform spread out over processes on this machine, beside the bare path of an event
//! through the same sidecar's program and the same Kafka, with no platform and no database in it.
//!
//! What is measured is in `e2e/src/bin/bench_events.rs`, where a stack can be started; here are the targets.

use anyhow::Result;

use super::figure::{Figure, Target};
use super::{Bench, reported};

/// Each figure, and what it must reach. Two copies share two cores here with everything else: theirs is a finding.
const FIGURES: [(&str, Option<Target>); 16] = [
    ("visible_p50_ms", None),
    ("visible_p95_ms", Some(Target::Under(60.0))),
    ("visible_p99_ms", None),
    ("events_per_second", Some(Target::OfLimit(0.5))),
    ("sidecar_adds_p95_ms", Some(Target::Under(10.0))),
    ("one_copy_events_per_second", None),
    ("two_copies_events_per_second", None),
    ("two_copies_ratio", None),
    ("event_us_of_10000", None),
    ("event_us_of_1000000", Some(Target::AtMostOfLimit(1.2))),
    ("outage_backlog_events", None),
    ("outage_drained_s", Some(Target::Under(30.0))),
    ("outage_api_p99_ms", Some(Target::AtMostOfLimit(1.5))),
    ("drain_api_p99_ms", None),
    ("history_p50_ms", None),
    ("history_p95_ms", Some(Target::Under(50.0))),
];

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    reported::by("bench_events", bench, &FIGURES)
}
