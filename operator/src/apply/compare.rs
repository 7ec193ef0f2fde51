//! Whether an object is as it should be, by the fields that should be something.
//!
//! Only those count: what the API server adds by itself, and what others own, may be anything. Written differently is not
//! different: the API server keeps `1000m` of processor as `1`, and drops what is empty. Two parts are held to be as they
//! are and nothing more: lists, which must be as long, and what Kubernetes takes as one value (selectors above all, where
//! one label more selects nothing).

use std::fmt;

use serde_json::{Map, Value};

/// What Kubernetes' own kinds take as one value, by the field's name.
const ATOMIC: [&str; 9] = [
    "selector",
    "podSelector",
    "namespaceSelector",
    "labelSelector",
    "matchLabels",
    "nodeSelector",
    "ingress",
    "egress",
    "tolerations",
];
/// Fields whose values, or whose fields' values, are quantities.
const QUANTITIES: [&str; 7] = [
    "requests",
    "limits",
    "sizeLimit",
    "storage",
    "averageValue",
    "divisor",
    "capacity",
];
/// Numbers and flags that the API server drops at zero: it cannot tell zero from absent there. Where it can, as in
/// `automountServiceAccountToken`, absent means another thing.
const DROPPED_AT_ZERO: [&str; 9] = [
    "readOnly",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "paused",
    "minReadySeconds",
    "initialDelaySeconds",
    "publishNotReadyAddresses",
    "optional",
];

/// The first field in which a live object is not as desired: `spec.replicas`.
pub(super) fn difference(desired: &Value, live: &Value, is_built_in: bool) -> Option<Path> {
    let mut path = Path::default();
    let (Value::Object(desired), Value::Object(live)) = (desired, live) else {
        return Some(path);
    };
    for (name, desired) in desired {
        // What names the object is the same, and lists leave the type out.
        if matches!(name.as_str(), "apiVersion" | "kind") {
            continue;
        }
        let live = live.get(name).unwrap_or(&Value::Null);
        let context = Context {
            is_built_in,
            is_quantity: false,
            is_atomic: false,
        };
        path.0.push(Step::Field(name.clone()));
        let is_equal = if name == "metadata" {
            is_metadata(desired, live, &mut path)
        } else {
            is_as_desired(desired, live, context, &mut path)
        };
        if !is_equal {
            return Some(path);
        }
        path.0.pop();
    }
    None
}

/// Where in an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Item(usize),
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if place == 0 => write!(formatter, "{name}")?,
                Step::Field(name) => write!(formatter, ".{name}")?,
                Step::Item(at) => write!(formatter, "[{at}]")?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Context {
    is_built_in: bool,
    is_quantity: bool,
    is_atomic: bool,
}

/// Others may add finalizers and owners, so these are sets. The rest of the metadata is maps of text.
fn is_metadata(desired: &Value, live: &Value, path: &mut Path) -> bool {
    let Value::Object(desired) = desired else {
        return true;
    };
    let all = Context {
        is_built_in: false,
        is_quantity: false,
        is_atomic: false,
    };
    desired.iter().all(|(name, desired)| {
        let live = &live[name.as_str()];
        path.0.push(Step::Field(name.clone()));
        let is_equal = match name.as_str() {
            "finalizers" => each(desired, |wanted| list(live).contains(wanted)),
            "ownerReferences" => each(desired, |wanted| {
                let mut owners = list(live).iter();
                owners.any(|owner| {
                    owner["uid"] == wanted["uid"] && is_as_desired(wanted, owner, all, &mut Path::default())
                })
            }),
            _ => is_as_desired(desired, live, all, path),
        };
        if is_equal {
            path.0.pop();
        }
        is_equal
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn each(value: &Value, is_there: impl FnMut(&Value) -> bool) -> bool {
    list(value).iter().all(is_there)
}

/// Leaves in `path` where the difference is, when there is one.
fn is_as_desired(desired: &Value, live: &Value, context: Context, path: &mut Path) -> bool {
    match (desired, live) {
        (Value::Object(wanted), Value::Object(found)) => fields_are(wanted, found, context, path),
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len()
                && wanted.iter().zip(found).enumerate().all(|(at, (wanted, found))| {
                    path.0.push(Step::Item(at));
                    let is_equal = is_as_desired(wanted, found, context, path);
                    if is_equal {
                        path.0.pop();
                    }
                    is_equal
                })
        }
        (wanted, Value::Null) => is_empty(wanted),
        (Value::Null, _) => !context.is_atomic || is_empty(live),
        (Value::Number(wanted), Value::Number(found)) => wanted == found || wanted.as_f64() == found.as_f64(),
        (wanted, found) if context.is_quantity && context.is_built_in => {
            wanted == found || quantity(wanted).is_some_and(|amount| Some(amount) == quantity(found))
        }
        (wanted, found) => wanted == found,
    }
}

fn fields_are(wanted: &Map<String, Value>, found: &Map<String, Value>, context: Context, path: &mut Path) -> bool {
    for (name, wanted) in wanted {
        let inner = Context {
            is_quantity: context.is_quantity || is_quantity(name, path),
            is_atomic: context.is_atomic || context.is_built_in && ATOMIC.contains(&name.as_str()),
            ..context
        };
        let found = found.get(name).unwrap_or(&Value::Null);
        let is_dropped = context.is_built_in && found.is_null() && DROPPED_AT_ZERO.contains(&name.as_str());
        if is_dropped && is_zero(wanted) {
            continue;
        }
        path.0.push(Step::Field(name.clone()));
        if !is_as_desired(wanted, found, inner, path) {
            return false;
        }
        path.0.pop();
    }
    let more = found.iter().find(|(name, value)| {
        let is_asked_for = wanted.get(*name).is_some_and(|value| !value.is_null());
        // The one default inside of what is taken as one value.
        let is_default = *name == "protocol" && *value == "TCP";
        context.is_atomic && !is_asked_for && !is_default && !is_empty(value)
    });
    if let Some((name, _)) = more {
        path.0.push(Step::Field(name.clone()));
    }
    more.is_none()
}

/// `value` is one in an autoscaler's `target` only.
fn is_quantity(name: &str, path: &Path) -> bool {
    let is_target = || matches!(path.0.last(), Some(Step::Field(last)) if last == "target");
    QUANTITIES.contains(&name) || name == "value" && is_target()
}

/// What is the same as absent everywhere.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn is_zero(value: &Value) -> bool {
    *value == Value::Bool(false) || value.as_f64() == Some(0.0)
}

/// The amount as digits and a power of ten, or of two, made comparable: thousand-millionths. Source of the form: the
/// documentation of `resource.Quantity`.
fn quantity(value: &Value) -> Option<i128> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(&text)),
    };
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.');
    let (digits, suffix) = text.split_at(end.unwrap_or(text.len()));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || whole.len() > 19 || fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    let factor: i128 = match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => 10_i128.pow(9),
        "k" => 10_i128.pow(12),
        "M" => 10_i128.pow(15),
        "G" => 10_i128.pow(18),
        "T" => 10_i128.pow(21),
        "P" => 10_i128.pow(24),
        "Ki" => 10_i128.pow(9) << 10,
        "Mi" => 10_i128.pow(9) << 20,
        "Gi" => 10_i128.pow(9) << 30,
        "Ti" => 10_i128.pow(9) << 40,
        "Pi" => 10_i128.pow(9) << 50,
        other => {
            let power: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            10_i128.pow(u32::try_from(power.checked_add(9)?).ok().filter(|power| *power <= 27)?)
        }
    };
    let scaled: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    // What is finer than the scale is rounded up, as Kubernetes does.
    let amount = scaled.checked_mul(factor)?;
    Some(sign * (amount / scale + i128::from(amount % scale != 0)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn differs(desired: &Value, live: &Value) -> Option<String> {
        difference(desired, live, true).map(|path| path.to_string())
    }

    #[test]
    fn what_the_api_server_adds_makes_no_difference() {
        let desired = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {"x": "1"}},
            "spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "c", "env": [{"name": "A", "value": ""}]}]}}}});
        let live = json!({"metadata": {"name": "a", "uid": "1", "labels": {"x": "1", "y": "2"}}, "status": {},
            "spec": {"replicas": 2, "strategy": {"type": "RollingUpdate"},
                "template": {"spec": {"containers": [{"name": "c", "env": [{"name": "A"}], "imagePullPolicy": "Always"}]}}}});
        assert_eq!(differs(&desired, &live), None);
    }

    #[test]
    fn each_edit_is_found_where_it_is() {
        let desired = json!({"metadata": {"labels": {"x": "1"}}, "spec": {"replicas": 2, "list": [{"a": 1}, {"a": 2}]}, "data": {"k": "v"}});
        for (edit, at) in [
            (json!({"metadata": {"labels": {"x": "2"}}}), "metadata.labels.x"),
            (json!({"metadata": {"labels": null}}), "metadata.labels"),
            (json!({"spec": {"replicas": 3}}), "spec.replicas"),
            (json!({"spec": {"replicas": null}}), "spec.replicas"),
            (json!({"spec": {"list": [{"a": 1}, {"a": 3}]}}), "spec.list[1].a"),
            (json!({"spec": {"list": [{"a": 1}]}}), "spec.list"),
            (json!({"spec": {"list": [{"a": 1}, {"a": 2}, {"a": 3}]}}), "spec.list"),
            (json!({"data": {"k": "w"}}), "data.k"),
            (json!({"data": null}), "data"),
        ] {
            let mut live = desired.clone();
            for (name, value) in edit.as_object().unwrap() {
                match value.as_object() {
                    Some(fields) => {
                        for (inner, value) in fields {
                            live[name][inner] = value.clone();
                        }
                    }
                    None => live[name] = value.clone(),
                }
            }
            assert_eq!(differs(&desired, &live).as_deref(), Some(at), "{live}");
        }
    }

    #[test]
    fn amounts_compare_by_what_they_are_worth_where_they_are_amounts() {
        let of = |cpu: &str| json!({"spec": {"resources": {"requests": {"cpu": cpu}}}});
        for (desired, live) in [
            ("1000m", "1"),
            ("0.1", "100m"),
            ("1024Mi", "1Gi"),
            ("1e3", "1k"),
            ("0.000000001", "1n"),
        ] {
            assert_eq!(differs(&of(desired), &of(live)), None, "{desired} {live}");
        }
        for (desired, live) in [("1", "2"), ("1G", "1Gi"), ("1", "x"), ("100m", "100")] {
            let at = "spec.resources.requests.cpu";
            assert_eq!(
                differs(&of(desired), &of(live)).as_deref(),
                Some(at),
                "{desired} {live}"
            );
        }
        let text = |value: &str| json!({"data": {"value": value}});
        assert_eq!(differs(&text("1000m"), &text("1")).as_deref(), Some("data.value"));
        let target = |value: &str| json!({"spec": {"metrics": [{"external": {"target": {"value": value}}}]}});
        assert_eq!(differs(&target("1000"), &target("1k")), None);
    }

    #[test]
    fn absent_null_and_empty_are_one() {
        let desired = json!({"spec": {"a": null, "b": [], "c": {}, "d": "", "e": {"f": []}}});
        assert_eq!(differs(&desired, &json!({"spec": {}})), None);
        assert_eq!(differs(&desired, &json!({})), None);
        let mount = json!({"spec": {"mounts": [{"name": "x", "readOnly": false}]}});
        assert_eq!(differs(&mount, &json!({"spec": {"mounts": [{"name": "x"}]}})), None);
    }

    #[test]
    fn a_flag_that_others_removed_is_an_edit_where_absent_means_true() {
        let desired = json!({"automountServiceAccountToken": false});
        assert_eq!(
            differs(&desired, &json!({})).as_deref(),
            Some("automountServiceAccountToken")
        );
    }

    #[test]
    fn one_label_more_in_a_selector_is_an_edit() {
        let desired = json!({"spec": {"selector": {"app": "a"}}});
        let live = json!({"spec": {"selector": {"app": "a", "b": "c"}}});
        assert_eq!(differs(&desired, &live).as_deref(), Some("spec.selector.b"));
        // Who may come in: from everywhere, and not from one place only.
        let desired = json!({"spec": {"ingress": [{"ports": [{"port": 80}]}]}});
        let live = json!({"spec": {"ingress": [{"ports": [{"port": 80, "protocol": "TCP"}]}]}});
        assert_eq!(differs(&desired, &live), None);
        let live = json!({"spec": {"ingress": [{"from": [{"podSelector": {"matchLabels": {"x": "y"}}}], "ports": [{"port": 80}]}]}});
        assert_eq!(differs(&desired, &live).as_deref(), Some("spec.ingress[0].from"));
    }

    #[test]
    fn owners_and_finalizers_of_others_may_stand_beside_ours() {
        let desired = json!({"metadata": {"finalizers": ["a"], "ownerReferences": [{"uid": "1", "controller": true}]}});
        let live = json!({"metadata": {"finalizers": ["b", "a"],
            "ownerReferences": [{"uid": "2"}, {"uid": "1", "controller": true, "kind": "TodoPlatform"}]}});
        assert_eq!(differs(&desired, &live), None);
        let taken = json!({"metadata": {"finalizers": ["a"], "ownerReferences": [{"uid": "2"}]}});
        assert_eq!(differs(&desired, &taken).as_deref(), Some("metadata.ownerReferences"));
    }
}
