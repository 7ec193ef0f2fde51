//! The fields that a resource has, by its CRD's own schema, so that a test over each of them misses none that is added.

use serde_json::{Value, json};

/// Every field of the spec that holds a value, with its schema; `*` stands for each item of a list.
pub(crate) fn leaves(plural: &str) -> Vec<(String, Value)> {
    let (_, yaml) = todo_crds::crd_yaml()
        .into_iter()
        .find(|(file, _)| file.contains(plural))
        .unwrap();
    let crd: Value = serde_saphyr::from_str(&yaml).unwrap();
    let spec = crd
        .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
        .unwrap();
    let mut leaves = vec![];
    walk(spec, String::new(), &mut leaves);
    assert!(leaves.len() > 20, "{}", leaves.len());
    leaves
}

fn walk(schema: &Value, path: String, leaves: &mut Vec<(String, Value)>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, schema) in properties {
            walk(schema, format!("{path}/{name}"), leaves);
        }
    } else if !schema["items"].is_null() {
        walk(&schema["items"], format!("{path}/*"), leaves);
    } else {
        leaves.push((path, schema.clone()));
    }
}

/// Another value that the schema allows, as far as children care.
pub(crate) fn another(value: &Value, schema: &Value) -> Value {
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().find(|word| *word != value).unwrap().clone();
    }
    match value {
        Value::Bool(value) => json!(!value),
        Value::Number(number) => json!(number.as_u64().unwrap() + 1),
        Value::String(text) if text.starts_with("sha256:") => json!(text.replace("sha256:0", "sha256:f")),
        Value::String(text) => match text.strip_suffix(['s', 'm', 'h', 'd', 'w']).map(str::parse::<u32>) {
            Some(Ok(count)) if schema["x-kubernetes-int-or-string"] != true => {
                json!(format!("{}{}", count + 1, &text[text.len() - 1..]))
            }
            _ if text.starts_with(|first: char| first.is_ascii_digit()) => json!(format!("1{text}")),
            _ => json!(text.replacen(|character: char| character.is_ascii_alphabetic(), "z", 1)),
        },
        other => panic!("no scalar: {other}"),
    }
}
