//! The platform's source, searched for what it measures and says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use crate::catalogue::{Catalogue, Kind, project};

/// The crates whose code runs in the platform's processes.
const CRATES: [&str; 8] = ["api", "crds", "dapr", "events", "operator", "tasks", "todo", "worker"];

/// Every file of the crates' `src`.
pub(crate) struct Source {
    files: Vec<String>,
}

/// How a metric is used in the source.
#[derive(Debug, Default)]
struct Use {
    kinds: BTreeSet<&'static str>,
    labels: BTreeSet<String>,
    described: bool,
    measured: bool,
}

impl Source {
    pub(crate) fn read() -> Result<Self> {
        let mut files = vec![];
        for name in CRATES {
            collect(&project(name).join("src"), &mut files)?;
        }
        Ok(Self { files })
    }

    pub(crate) fn contains(&self, text: &str) -> bool {
        self.files.iter().any(|file| file.contains(text))
    }

    /// What is wrong with what the source measures, beside the catalogue.
    fn problems(&self, catalogue: &Catalogue) -> Vec<String> {
        let mut wrong = vec![];
        let mut uses: BTreeMap<String, Use> = BTreeMap::new();
        for file in &self.files {
            for (kind, describes, arguments) in calls(file) {
                let Some((name, labels)) = read_call(arguments) else {
                    wrong.push(format!(
                        "a metric's name is not written out: {kind}!({}",
                        first_line(arguments)
                    ));
                    continue;
                };
                let found = uses.entry(name).or_default();
                found.kinds.insert(kind);
                if describes {
                    found.described = true;
                } else {
                    found.measured = true;
                    found.labels.extend(labels);
                }
            }
        }
        for (name, found) in &uses {
            let Some(metric) = catalogue.metrics.get(name).filter(|metric| metric.is_ours) else {
                wrong.push(format!("{name} is not in metrics.md"));
                continue;
            };
            let kinds: Vec<_> = found.kinds.iter().copied().collect();
            if kinds.len() != 1 || Kind::parse(kinds[0]) != Some(metric.kind) {
                wrong.push(format!(
                    "{name} is {kinds:?} in the source and {:?} in metrics.md",
                    metric.kind
                ));
            }
            if found.labels != metric.labels {
                let (in_source, listed) = (&found.labels, &metric.labels);
                wrong.push(format!(
                    "{name} has the labels {in_source:?} in the source and {listed:?} in metrics.md"
                ));
            }
            if !found.described {
                wrong.push(format!("{name} is described nowhere"));
            }
            if !found.measured {
                wrong.push(format!("{name} is described and never measured"));
            }
        }
        let ours = catalogue.metrics.iter().filter(|(_, metric)| metric.is_ours);
        for (name, _) in ours.filter(|(name, _)| !uses.contains_key(*name)) {
            wrong.push(format!("{name} is in metrics.md and not in the source"));
        }
        wrong
    }
}

fn collect(folder: &Path, files: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// The calls of the crate `metrics`' macros: the kind, whether it describes, and the text from the first argument on.
fn calls(file: &str) -> impl Iterator<Item = (&'static str, bool, &str)> {
    ["counter", "gauge", "histogram"].into_iter().flat_map(move |kind| {
        let call = format!("{kind}!(");
        let mut found = vec![];
        for (at, _) in file.match_indices(&call) {
            let describes = file[..at].ends_with("describe_");
            let is_word = file[..at]
                .chars()
                .next_back()
                .is_some_and(|before| before.is_alphanumeric() || before == '_');
            if describes || !is_word {
                found.push((kind, describes, &file[at + call.len()..]));
            }
        }
        found
    })
}

/// The name and the labels of a call; `None` when the name is no literal.
fn read_call(arguments: &str) -> Option<(String, BTreeSet<String>)> {
    let (name, rest) = arguments.trim_start().strip_prefix('"')?.split_once('"')?;
    let mut depth = 1;
    let end = rest.find(|character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    let mut labels = BTreeSet::new();
    for (before, _) in rest[..end?]
        .split("=>")
        .collect::<Vec<_>>()
        .windows(2)
        .map(|pair| (pair[0], pair[1]))
    {
        let label = before.trim_end().strip_suffix('"')?.rsplit('"').next()?;
        labels.insert(label.to_owned());
    }
    Some((name.to_owned(), labels))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[test]
fn what_the_source_measures_is_described_and_listed() -> Result<()> {
    assert_eq!(Source::read()?.problems(&Catalogue::read()?), Vec::<String>::new());
    Ok(())
}

#[test]
fn each_difference_from_the_list_is_noticed() -> Result<()> {
    let listed = "| `a_total` | counter | `x` | A. |";
    let good = r#"describe_counter!("a_total", "A."); counter!("a_total", "x" => f(1)).increment(1);"#;
    let found = |source: &str, listed: &str| -> Result<String> {
        let source = Source {
            files: vec![source.to_owned()],
        };
        Ok(source.problems(&Catalogue::parse(listed)?).join("; "))
    };
    assert_eq!(found(good, listed)?, "");
    for (source, listed, expected) in [
        (good, "", "a_total is not in metrics.md"),
        ("", listed, "not in the source"),
        (
            &good.replace("describe_counter!(\"a_total\", \"A.\");", ""),
            listed,
            "described nowhere",
        ),
        ("describe_counter!(\"a_total\", \"A.\");", listed, "never measured"),
        (
            &good.replace("counter!", "gauge!"),
            listed,
            "is [\"gauge\"] in the source",
        ),
        (&good.replace("\"x\"", "\"y\""), listed, "has the labels"),
        (
            &good.replace("counter!(\"a_total\", \"x\"", "counter!(NAME, \"x\""),
            listed,
            "not written out",
        ),
    ] {
        let said = found(source, listed)?;
        assert!(said.contains(expected), "{source}: {said}");
    }
    Ok(())
}
