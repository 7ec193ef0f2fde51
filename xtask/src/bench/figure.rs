//! What a measurement comes to: a number, the limit that was measured beside it, and the target.

use std::fmt;
use std::time::Duration;

/// One number. Its unit is the end of its name: `p99_ms`, `tasks_per_second`.
pub(crate) struct Figure {
    name: &'static str,
    value: f64,
    limit: Option<f64>,
    target: Option<Target>,
}

/// What a figure must reach.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// So much, or more.
    AtLeast(f64),
    /// Less than so much.
    Under(f64),
    /// This part of the limit, or more.
    OfLimit(f64),
    /// So many times the limit, or less.
    AtMostOfLimit(f64),
}

impl Figure {
    pub(crate) fn new(name: &'static str, value: f64) -> Self {
        Self {
            name,
            value,
            limit: None,
            target: None,
        }
    }

    /// The same of what this machine can do at all.
    pub(crate) fn beside(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self
    }

    pub(crate) fn with_target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// The measured number in the limit's: 0.5 of a rate is half as fast, 2 of a time is half as fast. `None` without a
    /// limit, and where that is nothing at all.
    fn ratio(&self) -> Option<f64> {
        let limit = self.limit.filter(|limit| *limit != 0.0)?;
        Some(self.value / limit)
    }

    /// `None` when there is nothing to reach.
    fn reaches_target(&self) -> Option<bool> {
        Some(match self.target? {
            Target::AtLeast(target) => self.value >= target,
            Target::Under(target) => self.value < target,
            Target::OfLimit(target) => self.ratio().is_some_and(|ratio| ratio >= target),
            Target::AtMostOfLimit(target) => self.ratio().is_some_and(|ratio| ratio <= target),
        })
    }
}

/// The figures of one benchmark.
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn reaches_targets(&self) -> bool {
        self.figures.iter().all(|figure| figure.reaches_target() != Some(false))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<28} {:>12} {:>12} {:>8}  target",
            self.name, "measured", "limit", "ratio"
        )?;
        for figure in &self.figures {
            let limit = figure.limit.map_or_else(String::new, number);
            let ratio = figure.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            write!(
                f,
                "  {:<26} {:>12} {limit:>12} {ratio:>8}",
                figure.name,
                number(figure.value)
            )?;
            if let (Some(target), Some(reached)) = (figure.target, figure.reaches_target()) {
                let verdict = if reached { "PASS" } else { "BELOW" };
                write!(f, "  {target}: {verdict}")?;
            }
            writeln!(f)?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(target) => write!(f, "at least {target}"),
            Self::Under(target) => write!(f, "under {target}"),
            Self::OfLimit(target) => write!(f, "at least {target} of the limit"),
            Self::AtMostOfLimit(target) => write!(f, "at most {target} of the limit"),
        }
    }
}

/// A number with the digits that matter.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Every report as one line of JSON.
pub(crate) fn json(reports: &[Report]) -> String {
    let reports = reports.iter().map(|report| {
        let figures = report.figures.iter().map(|figure| {
            let mut fields = vec![format!(r#""value":{:.4}"#, figure.value)];
            if let Some(limit) = figure.limit {
                fields.push(format!(r#""limit":{limit:.4}"#));
            }
            if let Some(ratio) = figure.ratio() {
                fields.push(format!(r#""ratio":{ratio:.4}"#));
            }
            if let (Some(target), Some(reached)) = (figure.target, figure.reaches_target()) {
                fields.push(format!(r#""target":"{target}","pass":{reached}"#));
            }
            format!(r#""{}":{{{}}}"#, figure.name, fields.join(","))
        });
        let figures: Vec<_> = figures.collect();
        format!(r#""{}":{{{}}}"#, report.name, figures.join(","))
    });
    let reports: Vec<_> = reports.collect();
    format!("{{{}}}", reports.join(","))
}

/// The value in the middle; of an even number, the upper of the two. Zero of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The value that this part of the values is below. Zero of none.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "an index into a list of measurements is small and not negative"
)]
pub(crate) fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let index = (sorted.len() as f64 * part) as usize;
    let last = sorted.len().saturating_sub(1);
    sorted.get(index.min(last)).copied().unwrap_or_default()
}

/// Seconds in milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let figures = vec![
            Figure::new("tasks_per_second", 3000.0)
                .beside(4000.0)
                .with_target(Target::OfLimit(0.5)),
            Figure::new("last_ms", 2500.0).with_target(Target::Under(2000.0)),
            Figure::new("p50_ms", 9.87),
            Figure::new("reads", 5.0).beside(0.0),
        ];
        Report {
            name: "api".to_owned(),
            figures,
        }
    }

    #[test]
    fn a_figure_is_shown_beside_its_limit_and_held_to_its_target() {
        let text = report().to_string();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1][..4], ["tasks_per_second", "3000", "4000", "0.75"]);
        assert_eq!(lines[1].last(), Some(&"PASS"));
        assert_eq!(lines[2], ["last_ms", "2500", "under", "2000:", "BELOW"]);
        assert_eq!(lines[3], ["p50_ms", "9.870"]);
        assert!(!report().reaches_targets());
    }

    #[test]
    fn the_json_says_the_same() {
        assert_eq!(
            json(&[report()]),
            concat!(
                r#"{"api":{"tasks_per_second":{"value":3000.0000,"limit":4000.0000,"ratio":0.7500,"#,
                r#""target":"at least 0.5 of the limit","pass":true},"#,
                r#""last_ms":{"value":2500.0000,"target":"under 2000","pass":false},"p50_ms":{"value":9.8700},"#,
                r#""reads":{"value":5.0000,"limit":0.0000}}}"#
            )
        );
    }

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        let values: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert!((percentile(&values, 0.99) - 99.0).abs() < f64::EPSILON);
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }
}
