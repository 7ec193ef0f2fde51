//! The difference between an object as it is and as it would be, without what no one asked for (versions, times, who
//! wrote which field) and without any secret.

use std::fmt;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use similar::TextDiff;

use crate::child::ChildKey;
use crate::names::APPLIED;

/// What would become of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// It would be made.
    Create,
    /// It would be changed.
    Change,
    /// It would be deleted.
    Delete,
}

/// One object that would not stay as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which one.
    pub key: ChildKey,
    /// What would become of it.
    pub step: Step,
    /// The lines that go and come, as a unified diff of YAML.
    pub diff: String,
}

impl Change {
    /// What lies between `before` and `after`; `None` when nothing does.
    pub fn between(key: &ChildKey, before: Option<&Value>, after: Option<&Value>) -> Option<Self> {
        let step = match (before, after) {
            (None, Some(_)) => Step::Create,
            (Some(_), Some(_)) => Step::Change,
            (Some(_), None) => Step::Delete,
            (None, None) => return None,
        };
        let (old, new) = (shown(before), shown(after));
        if old == new {
            return None;
        }
        let diff = TextDiff::from_lines(&old, &new)
            .unified_diff()
            .context_radius(3)
            .to_string();
        Some(Self {
            key: key.clone(),
            step,
            diff,
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.step {
            Step::Create => '+',
            Step::Change => '~',
            Step::Delete => '-',
        };
        writeln!(formatter, "{sign} {}", self.key)?;
        formatter.write_str(&self.diff)
    }
}

/// An object, or a list of them, as YAML with every Secret's values masked.
pub fn masked(mut object: Value) -> String {
    match &mut object {
        Value::Array(objects) => objects.iter_mut().for_each(mask),
        one => mask(one),
    }
    serde_saphyr::to_string(&object).unwrap_or_else(|error| format!("it cannot be shown: {error}\n"))
}

/// An object as YAML, without what no one asked for. Nothing, when it is not there.
fn shown(object: Option<&Value>) -> String {
    let Some(object) = object else {
        return String::new();
    };
    let mut object = object.clone();
    strip(&mut object);
    masked(object)
}

/// Takes away what the API server adds by itself.
fn strip(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    fields.remove("status");
    let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    for field in [
        "managedFields",
        "resourceVersion",
        "uid",
        "generation",
        "creationTimestamp",
        "selfLink",
    ] {
        metadata.remove(field);
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(APPLIED);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
}

/// Replaces every value of a Secret by the beginning of its hash, so that a change shows and nothing else.
fn mask(object: &mut Value) {
    // One of a list does not say its kind, and only Secrets and ConfigMaps have values: better too many are masked.
    if object["kind"] != "Secret" && object["type"].is_null() {
        return;
    }
    for field in ["data", "stringData"] {
        if let Some(values) = object.get_mut(field).and_then(Value::as_object_mut) {
            mask_values(values);
        }
    }
}

fn mask_values(values: &mut Map<String, Value>) {
    for value in values.values_mut() {
        let text = value.as_str().unwrap_or_default();
        let digest = Sha256::digest(text);
        *value = Value::String(format!("(secret, {:02x}{:02x}…)", digest[0], digest[1]));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::child::Kind;

    fn key(kind: Kind) -> ChildKey {
        ChildKey {
            kind,
            namespace: "todo".to_owned(),
            name: "acme".to_owned(),
        }
    }

    #[test]
    fn what_the_api_server_adds_is_no_change() {
        let before = json!({
            "kind": "ConfigMap",
            "metadata": {"name": "acme", "uid": "1", "resourceVersion": "7", "managedFields": [],
                "annotations": {APPLIED: "abc"}},
            "data": {"a": "1"},
            "status": {},
        });
        let after = json!({"kind": "ConfigMap", "metadata": {"name": "acme"}, "data": {"a": "1"}});
        assert_eq!(
            Change::between(&key(Kind::ConfigMap), Some(&before), Some(&after)),
            None
        );
    }

    #[test]
    fn a_change_shows_its_lines() {
        let (before, after) = (
            json!({"data": {"a": "1", "b": "2"}}),
            json!({"data": {"a": "1", "b": "3"}}),
        );
        let change = Change::between(&key(Kind::ConfigMap), Some(&before), Some(&after)).unwrap();
        assert_eq!(change.step, Step::Change);
        let shown = change.to_string();
        assert!(shown.starts_with("~ ConfigMap todo/acme\n"), "{shown}");
        assert!(
            shown.contains("-  b: \"2\"") && shown.contains("+  b: \"3\""),
            "{shown}"
        );
    }

    #[test]
    fn a_secret_changes_without_being_shown() {
        let secret = |value: &str| json!({"kind": "Secret", "metadata": {"name": "acme"}, "data": {"key": value}});
        let (before, after) = (secret("aHVudGVyMg=="), secret("aHVudGVyMw=="));
        let change = Change::between(&key(Kind::Secret), Some(&before), Some(&after)).unwrap();
        assert!(!change.diff.contains("aHVudGVy"), "{}", change.diff);
        assert!(
            change.diff.contains("-  key: ") && change.diff.contains("+  key: "),
            "{}",
            change.diff
        );
        let made = Change::between(&key(Kind::Secret), None, Some(&after)).unwrap();
        assert!(
            made.step == Step::Create && !made.diff.contains("aHVudGVy"),
            "{}",
            made.diff
        );
    }
}
