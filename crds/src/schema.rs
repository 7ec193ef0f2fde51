//! The CRD's own schema, used on this side of the API server.
//!
//! A manifest is checked here against the very schema that the generated CRD holds: types, required and unknown fields,
//! enums, bounds, forms of strings. So what a cluster refuses is refused on one machine too, with a position and with
//! words, and no bound is written twice. CEL rules are not evaluated here: `validate` has them in Rust.

use std::sync::LazyLock;

use kube::CustomResourceExt as _;
use regex_lite::Regex;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;
use todo_recurrence::span::Span;

use crate::platform::TodoPlatform;
use crate::schedule::RecurringSchedule;
use crate::validate::Problem;
use crate::words::{nearest, quoted};
use crate::yaml::path;

/// A [`Span`] in the CRD: a string of its form.
pub(crate) fn span_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": Span::PATTERN, "maxLength": 7})
}

/// A [`Span`] that may be absent.
pub(crate) fn optional_span_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": Span::PATTERN, "maxLength": 7, "nullable": true})
}

/// Keeps an optional field's own description, where that of its type would take its place.
pub(crate) fn own_words(schema: &mut Schema) {
    let explained = schema.get("description").is_some();
    let inner = schema
        .get_mut("anyOf")
        .and_then(|any_of| any_of.get_mut(0))
        .and_then(Value::as_object_mut);
    if let Some(inner) = inner.filter(|_| explained) {
        inner.remove("description");
    }
}

/// The schema of each kind, with `metadata` as manifests use it.
pub(crate) static PLATFORM: LazyLock<Value> = LazyLock::new(|| of(TodoPlatform::crd()));
/// See [`PLATFORM`].
pub(crate) static SCHEDULE: LazyLock<Value> = LazyLock::new(|| of(RecurringSchedule::crd()));

fn of(crd: impl serde::Serialize) -> Value {
    let mut crd = serde_json::to_value(crd).expect("a CRD is plain data");
    let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
    // An API server knows apiVersion, kind and metadata by itself, so a CRD leaves them out.
    schema["properties"]["apiVersion"] = serde_json::json!({"type": "string"});
    schema["properties"]["kind"] = serde_json::json!({"type": "string"});
    schema["properties"]["metadata"] = metadata();
    schema["required"] = serde_json::json!(["metadata", "spec"]);
    schema
}

/// `metadata` as people write it and as `kubectl get -o yaml` prints it.
fn metadata() -> Value {
    let map = serde_json::json!({"type": "object", "additionalProperties": {"type": "string"}});
    let text = serde_json::json!({"type": "string"});
    let any = serde_json::json!({"x-kubernetes-preserve-unknown-fields": true});
    serde_json::json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 253, "pattern": NAME_PATTERN},
            "namespace": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": NAME_PATTERN},
            "labels": map,
            "annotations": map,
            "uid": text,
            "resourceVersion": text,
            "generation": {"type": "integer"},
            "creationTimestamp": text,
            "deletionTimestamp": text,
            "deletionGracePeriodSeconds": {"type": "integer"},
            "generateName": text,
            "selfLink": text,
            "finalizers": any,
            "ownerReferences": any,
            "managedFields": any,
        }
    })
}

/// A name in Kubernetes (RFC 1123 subdomain).
pub(crate) const NAME_PATTERN: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";

/// The forms of strings in the schemas, as people are told them. The schema of each pattern that is not in this list
/// would be refused without a word on what is allowed: a test sees to it that all are.
pub(crate) const FORMS: &[(&str, &str)] = &[
    (
        Span::PATTERN,
        "one number and one of the units s, m, h, d, w, such as 90s, 30m, 8h, 2d or 1w",
    ),
    (
        NAME_PATTERN,
        "lower-case letters, digits, hyphens and dots, letters or digits at both ends",
    ),
    (
        crate::platform::VERSION_PATTERN,
        "a semantic version without a leading v, such as 1.4.0",
    ),
    (
        crate::platform::REPOSITORY_PATTERN,
        "a repository without tag and digest, such as registry.example.com/todo",
    ),
    (crate::platform::DIGEST_PATTERN, "sha256: and 64 hexadecimal digits"),
    (crate::platform::KEY_PATTERN, "letters, digits and any of . _ -"),
    (
        crate::platform::URL_PATTERN,
        "a URL that begins with https:// or http://",
    ),
    (
        crate::platform::ADDRESS_PATTERN,
        "a mail address such as todo@example.com",
    ),
    (crate::schedule::TIME_PATTERN, "a time of day such as 17:00"),
    (
        crate::schedule::CIVIL_PATTERN,
        "a day such as 2026-01-01, or a time such as 2026-01-01T09:00 without an offset",
    ),
];

static COMPILED: LazyLock<Vec<(&'static str, Regex, &'static str)>> = LazyLock::new(|| {
    let compile = |&(pattern, allowed)| {
        (
            pattern,
            Regex::new(pattern).expect("the patterns are constants"),
            allowed,
        )
    };
    FORMS.iter().map(compile).collect()
});

/// Checks `value` against `schema` and adds what is wrong to `problems`. A null stands for an absent field.
pub(crate) fn check(schema: &Value, value: &Value, at: &str, problems: &mut Vec<Problem>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    if schema["x-kubernetes-int-or-string"] == true {
        if !(value.is_string() || value.is_i64()) {
            problems.push(wrong_type(at, value, "a quantity such as 100m, 2 or 64Mi"));
        }
        return;
    }
    match (schema["type"].as_str(), value) {
        (Some("object"), Value::Object(fields)) => check_object(schema, fields, at, problems),
        (Some("object"), _) => problems.push(wrong_type(at, value, &object_allowed(schema))),
        (Some("array"), Value::Array(items)) => {
            check_length(schema, items.len(), ["minItems", "maxItems"], "items", at, problems);
            for (index, item) in items.iter().enumerate() {
                check(&schema["items"], item, &path::item(at, index), problems);
            }
        }
        (Some("array"), _) => problems.push(wrong_type(at, value, "a list")),
        (Some("string"), Value::String(text)) => check_string(schema, text, at, problems),
        (Some("string"), Value::Bool(_) | Value::Number(_)) => {
            problems.push(wrong_type(at, value, "a string: put it in quotes"));
        }
        (Some("string"), _) => problems.push(wrong_type(at, value, "a string")),
        (Some("boolean"), Value::Bool(_)) => {}
        (Some("boolean"), _) => problems.push(wrong_type(at, value, "true or false")),
        (Some("integer"), Value::Number(number)) if number.is_i64() => check_range(schema, number, at, problems),
        (Some("integer"), _) => problems.push(wrong_type(at, value, &format!("a whole number{}", range(schema)))),
        (kind, _) => debug_assert!(false, "{at}: the schema has the type {kind:?}, which is not checked"),
    }
}

fn check_object(schema: &Value, fields: &serde_json::Map<String, Value>, at: &str, problems: &mut Vec<Problem>) {
    let properties = schema["properties"].as_object();
    let mut misspelt = Vec::new();
    for (name, value) in fields {
        let here = path::field(at, name);
        let property = properties.and_then(|properties| properties.get(name));
        if let Some(property) = property {
            if !value.is_null() {
                check(property, value, &here, problems);
            }
        } else if schema["additionalProperties"].is_object() {
            check(&schema["additionalProperties"], value, &path::entry(at, name), problems);
        } else {
            let known: Vec<&str> = properties
                .into_iter()
                .flat_map(|known| known.keys().map(String::as_str))
                .collect();
            misspelt.extend(nearest(name, &known));
            problems.push(unknown_field(here, name, &known));
        }
    }
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        // A required field under a wrong name is one mistake, not two.
        if fields.get(name).is_none_or(Value::is_null) && !misspelt.contains(&name) {
            let allowed = describe(&schema["properties"][name]);
            problems.push(Problem::at_name(path::field(at, name), format!("missing; {allowed}")));
        }
    }
}

/// What an absent field would have held, for the message.
fn describe(schema: &Value) -> String {
    let first_sentence = schema["description"]
        .as_str()
        .and_then(|text| text.split(['.', '\n']).next());
    match first_sentence {
        Some(sentence) => format!("it is required: {}", sentence.trim()),
        None => "it is required".to_owned(),
    }
}

fn object_allowed(schema: &Value) -> String {
    match schema["properties"].as_object() {
        Some(properties) => format!(
            "the fields {}",
            properties.keys().cloned().collect::<Vec<_>>().join(", ")
        ),
        None => "fields".to_owned(),
    }
}

fn check_string(schema: &Value, text: &str, at: &str, problems: &mut Vec<Problem>) {
    if let Some(values) = schema["enum"].as_array() {
        let allowed: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        if !allowed.contains(&text) {
            let meant = nearest(text, &allowed)
                .map(|name| format!("did you mean {name}? "))
                .unwrap_or_default();
            let allowed = allowed.join(", ");
            problems.push(Problem::new(
                at,
                format!("{} is not a value; {meant}allowed: {allowed}", quoted(text)),
            ));
        }
        return;
    }
    if !check_length(
        schema,
        text.chars().count(),
        ["minLength", "maxLength"],
        "characters",
        at,
        problems,
    ) {
        return;
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        let form = COMPILED.iter().find(|(known, _, _)| *known == pattern);
        debug_assert!(form.is_some(), "{at}: the pattern {pattern} is missing in FORMS");
        if let Some((_, regex, allowed)) = form
            && !regex.is_match(text)
        {
            problems.push(Problem::new(
                at,
                format!("{} has the wrong form; allowed: {allowed}", quoted(text)),
            ));
        }
    }
}

/// Adds a problem when `length` is out of the bounds that the schema names with `keys`. True when it is within.
fn check_length(
    schema: &Value,
    length: usize,
    keys: [&str; 2],
    unit: &str,
    at: &str,
    problems: &mut Vec<Problem>,
) -> bool {
    let [least, most] = keys.map(|key| schema[key].as_u64());
    let length = length as u64;
    if least.is_some_and(|least| length < least) || most.is_some_and(|most| length > most) {
        let allowed = match (least.unwrap_or(0), most) {
            (least, Some(most)) => format!("{least} to {most}"),
            (least, None) => format!("at least {least}"),
        };
        let wrong = if length == 0 {
            "it is empty".to_owned()
        } else {
            format!("it has {length} {unit}")
        };
        problems.push(Problem::new(at, format!("{wrong}; allowed: {allowed} {unit}")));
        return false;
    }
    true
}

fn check_range(schema: &Value, number: &serde_json::Number, at: &str, problems: &mut Vec<Problem>) {
    let below = |bound: &Value| {
        bound
            .as_f64()
            .is_some_and(|bound| number.as_f64().is_some_and(|number| number < bound))
    };
    let above = |bound: &Value| {
        bound
            .as_f64()
            .is_some_and(|bound| number.as_f64().is_some_and(|number| number > bound))
    };
    if below(&schema["minimum"]) || above(&schema["maximum"]) {
        problems.push(Problem::new(
            at,
            format!("{number} is out of range; allowed: a whole number{}", range(schema)),
        ));
    }
}

fn range(schema: &Value) -> String {
    match (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
        (Some(least), Some(most)) => format!(" from {least} to {most}"),
        (Some(least), None) => format!(", {least} or more"),
        (None, Some(most)) => format!(" up to {most}"),
        (None, None) => String::new(),
    }
}

fn wrong_type(at: &str, value: &Value, allowed: &str) -> Problem {
    let found = match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("the boolean {value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string {}", quoted(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "fields".to_owned(),
    };
    Problem::new(at, format!("{found} does not belong here; allowed: {allowed}"))
}

fn unknown_field(at: String, name: &str, known: &[&str]) -> Problem {
    let meant = nearest(name, known)
        .map(|name| format!("did you mean {name}? "))
        .unwrap_or_default();
    let allowed = if known.is_empty() {
        "nothing".to_owned()
    } else {
        known.join(", ")
    };
    Problem::at_name(at, format!("unknown field; {meant}allowed: {allowed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(fields) => {
                if let (Some(pattern), Some(_)) = (schema["pattern"].as_str(), schema["type"].as_str()) {
                    found.push(pattern.to_owned());
                }
                fields.values().for_each(|value| patterns(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| patterns(value, found)),
            _ => {}
        }
    }

    #[test]
    fn each_pattern_is_explained_to_people() {
        let mut found = Vec::new();
        patterns(&PLATFORM, &mut found);
        patterns(&SCHEDULE, &mut found);
        assert!(found.len() > 10);
        for pattern in found {
            assert!(
                FORMS.iter().any(|(known, _)| *known == pattern),
                "{pattern} has no words in FORMS"
            );
        }
    }
}
