//! The operator on a real API server: many platforms at once beside a bare client that applies the same objects, what ten
//! thousand schedules and other people's Secrets cost in memory, and how soon it comes to what is new.
//!
//! What is measured is in `e2e/src/bin/bench_operator`, where a cluster can be started; here are the targets.

use anyhow::Result;

use super::figure::{Figure, Target};
use super::{Bench, reported};

/// Each figure, and what it must reach. Memory is what is resident, the program's own pages included.
const FIGURES: [(&str, Option<Target>); 23] = [
    ("idle_mib", Some(Target::Under(32.0))),
    ("idle_heap_mib", None),
    ("idle_peak_mib", None),
    ("foreign_secrets", None),
    ("foreign_secrets_come_mib", Some(Target::Under(5.0))),
    ("foreign_secrets_there_mib", Some(Target::Under(5.0))),
    ("foreign_secrets_peak_mib", None),
    ("settle_platforms", None),
    ("settle_objects", None),
    ("settle_s", Some(Target::AtMostOfLimit(1.5))),
    ("settle_writes", None),
    ("settle_reads", None),
    ("settle_processor_s", None),
    ("settled_mib", None),
    ("schedules", None),
    ("schedules_settled_s", None),
    ("schedules_mib", Some(Target::Under(128.0))),
    ("schedules_peak_mib", Some(Target::Under(128.0))),
    ("schedules_restart_peak_mib", Some(Target::Under(128.0))),
    ("new_schedule_p50_ms", None),
    ("new_schedule_p99_ms", Some(Target::Under(1000.0))),
    ("new_platform_p50_ms", None),
    ("new_platform_p99_ms", Some(Target::Under(1000.0))),
];

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    reported::by("bench_operator", bench, &FIGURES)
}
