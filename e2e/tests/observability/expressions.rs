//! Expressions of Prometheus: do they parse, and do they ask for what there is?

use std::collections::BTreeSet;

use promql_parser::label::Matchers;
use promql_parser::parser::{self, Expr, LabelModifier, VectorMatchCardinality};

use crate::catalogue::{Catalogue, Kind, OF_EVERY_TARGET};

type Labels = BTreeSet<String>;

/// The labels that the expression's series may have, or what is wrong with it.
pub(crate) fn check(expression: &str, catalogue: &Catalogue) -> Result<Labels, Vec<String>> {
    // What Grafana puts in its place is a duration.
    let expression = expression.replace("$__rate_interval", "5m");
    let parsed = parser::parse(&expression).map_err(|error| vec![format!("{error} in {expression}")])?;
    let mut check = Check {
        catalogue,
        wrong: vec![],
    };
    let labels = check.labels(&parsed);
    if check.wrong.is_empty() {
        Ok(labels)
    } else {
        Err(check.wrong)
    }
}

struct Check<'a> {
    catalogue: &'a Catalogue,
    wrong: Vec<String>,
}

impl Check<'_> {
    fn labels(&mut self, expression: &Expr) -> Labels {
        match expression {
            Expr::VectorSelector(selector) => {
                let (labels, kind) = self.selected(selector.name.as_deref(), &selector.matchers);
                if kind == Some(Kind::Counter) {
                    self.wrong
                        .push(format!("a counter says nothing without a rate: {selector}"));
                }
                labels
            }
            Expr::MatrixSelector(selector) => self.selected(selector.vs.name.as_deref(), &selector.vs.matchers).0,
            Expr::Call(call) => self.called(call),
            Expr::Aggregate(aggregate) => {
                let inner = self.labels(&aggregate.expr);
                let operator = aggregate.op.to_string();
                match &aggregate.modifier {
                    Some(modifier) => self.grouped(modifier, &inner),
                    None if matches!(operator.as_str(), "topk" | "bottomk") => inner,
                    None => Labels::new(),
                }
            }
            Expr::Binary(binary) => {
                let (left, right) = (self.labels(&binary.lhs), self.labels(&binary.rhs));
                let Some(modifier) = &binary.modifier else {
                    return self.matched(&left, &right, expression);
                };
                if let Some(matching) = &modifier.matching {
                    for label in &matching.labels().labels {
                        if !left.contains(label) || !right.contains(label) {
                            self.wrong.push(format!("{label} is not on both sides of {expression}"));
                        }
                    }
                    return match modifier.card {
                        VectorMatchCardinality::OneToMany(_) => right,
                        _ => left,
                    };
                }
                self.matched(&left, &right, expression)
            }
            Expr::Paren(inner) => self.labels(&inner.expr),
            Expr::Unary(inner) => self.labels(&inner.expr),
            Expr::Subquery(inner) => self.labels(&inner.expr),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => Labels::new(),
        }
    }

    /// Without `on`, two sides only meet in series with the same labels. A side without any is a number, or one series.
    fn matched(&mut self, left: &Labels, right: &Labels, expression: &Expr) -> Labels {
        if !left.is_empty() && !right.is_empty() && left != right {
            self.wrong.push(format!(
                "the sides have other labels, {left:?} and {right:?}: {expression}"
            ));
        }
        left.union(right).cloned().collect()
    }

    fn selected(&mut self, name: Option<&str>, matchers: &Matchers) -> (Labels, Option<Kind>) {
        let name = name.unwrap_or_default();
        let Some((metric, is_bucket)) = self.catalogue.of_series(name) else {
            self.wrong.push(format!("no metric is called {name:?}"));
            return (Labels::new(), None);
        };
        let mut labels = metric.labels.clone();
        labels.extend(OF_EVERY_TARGET.map(str::to_owned));
        if is_bucket {
            labels.insert("le".to_owned());
        }
        for matcher in matchers.matchers.iter().chain(matchers.or_matchers.iter().flatten()) {
            if !labels.contains(&matcher.name) {
                self.wrong.push(format!("{name} has no label {}", matcher.name));
            }
        }
        let kind = match metric.kind {
            Kind::Histogram => Kind::Counter,
            kind => kind,
        };
        (labels, Some(kind))
    }

    fn called(&mut self, call: &parser::Call) -> Labels {
        let mut labels = Labels::new();
        for arg in &call.args.args {
            if call.func.name == "absent" {
                // It asks for the metric, not for its value.
                if let Expr::VectorSelector(selector) = arg.as_ref() {
                    self.selected(selector.name.as_deref(), &selector.matchers);
                }
                continue;
            }
            labels.extend(self.labels(arg));
            if let (Expr::MatrixSelector(selector), "rate" | "irate" | "increase") = (arg.as_ref(), call.func.name) {
                let name = selector.vs.name.as_deref().unwrap_or_default();
                let metric = self.catalogue.of_series(name);
                if metric.is_some_and(|(metric, _)| metric.kind == Kind::Gauge) {
                    self.wrong.push(format!("a gauge has no rate: {call}"));
                }
            }
        }
        if call.func.name == "histogram_quantile" && !labels.remove("le") {
            self.wrong.push(format!("the buckets are gone without le: {call}"));
        }
        labels
    }

    fn grouped(&mut self, modifier: &LabelModifier, inner: &Labels) -> Labels {
        let named: Labels = modifier.labels().labels.iter().cloned().collect();
        for label in named.difference(inner) {
            self.wrong.push(format!("grouped by {label}, which there is not"));
        }
        match modifier {
            LabelModifier::Include(_) => named,
            LabelModifier::Exclude(_) => inner.difference(&named).cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "
| `a_total` | counter | `x`, `y` | A. |
| `b_seconds` | histogram | `x` | B. |
| `c` | gauge | | C. |
";

    fn checked(expression: &str) -> Result<Vec<String>, Vec<String>> {
        let catalogue = Catalogue::parse(METRICS).expect("a catalogue");
        check(expression, &catalogue).map(|labels| labels.into_iter().collect())
    }

    #[test]
    fn a_good_expression_says_which_labels_come_out() {
        let labels = |expression: &str| checked(expression).expect(expression);
        assert_eq!(labels("sum by (x) (rate(a_total{y=\"1\"}[$__rate_interval]))"), ["x"]);
        assert_eq!(
            labels("histogram_quantile(0.9, sum by (le, x) (rate(b_seconds_bucket[5m]))) > 1"),
            ["x"]
        );
        assert_eq!(labels("max(c) or vector(0)"), Vec::<String>::new());
        assert_eq!(labels("c"), ["instance", "job"]);
        assert_eq!(labels("absent(c)"), Vec::<String>::new());
    }

    #[test]
    fn each_mistake_is_noticed() {
        for (wrong, why) in [
            ("sum(rate(a_total[5m])", "unclosed"),
            ("rate(d_total[5m])", "no metric is called \"d_total\""),
            ("c_bucket", "no metric is called \"c_bucket\""),
            ("b_seconds", "no metric is called \"b_seconds\""),
            ("rate(a_total{z=\"1\"}[5m])", "a_total has no label z"),
            ("a_total > 1", "without a rate"),
            ("b_seconds_count", "without a rate"),
            ("rate(c[5m])", "a gauge has no rate"),
            ("sum by (z) (c)", "grouped by z"),
            (
                "histogram_quantile(0.9, sum by (x) (rate(b_seconds_bucket[5m])))",
                "without le",
            ),
            (
                "sum by (x) (rate(a_total[5m])) / sum by (y) (rate(a_total[5m]))",
                "other labels",
            ),
            (
                "sum by (x) (rate(a_total[5m])) / on (y) sum by (x) (rate(a_total[5m]))",
                "not on both sides",
            ),
        ] {
            let said = checked(wrong).expect_err(wrong).join("; ");
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }
}
