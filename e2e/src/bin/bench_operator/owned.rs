//! What the operator has asked for in an object, read back from the API server: the fields that it manages, and no
//! default that the server has added. So the bare client applies what the operator applied, to the byte.

use kube::ResourceExt as _;
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

const MANAGER: &str = "todo-operator";

/// An object as the operator asked for it.
pub(crate) struct Owned {
    /// Whether it was made by a plain creation, not by an apply.
    pub(crate) is_created: bool,
    /// The object, without anything that the API server has set.
    pub(crate) body: Value,
}

/// `None` when the operator manages nothing in it.
pub(crate) fn owned(object: &DynamicObject, api_version: &str, kind: &str) -> Option<Owned> {
    let managed = object.managed_fields().iter();
    let mut managed = managed.filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty());
    let entry = managed.find(|entry| entry.manager.as_deref() == Some(MANAGER))?;
    let fields = &entry.fields_v1.as_ref()?.0;
    let mut body = pick(&serde_json::to_value(object).ok()?, fields);
    body["apiVersion"] = json!(api_version);
    body["kind"] = json!(kind);
    body["metadata"]["name"] = json!(object.name_any());
    body["metadata"]["namespace"] = json!(object.namespace());
    Some(Owned {
        is_created: entry.operation.as_deref() == Some("Update"),
        body,
    })
}

/// The part of a value that a set of fields names, in the form of `FieldsV1`: `f:NAME` is a field, `k:{…}` the item of a
/// list with these keys, `v:…` an item of a set, and what has none of these is all of it.
fn pick(value: &Value, fields: &Value) -> Value {
    let named = || {
        fields
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| *name != ".")
    };
    if named().next().is_none() {
        return value.clone();
    }
    match value {
        Value::Object(object) => {
            let picked = named().filter_map(|(name, fields)| {
                let name = name.strip_prefix("f:")?;
                Some((name.to_owned(), pick(object.get(name)?, fields)))
            });
            Value::Object(picked.collect())
        }
        Value::Array(items) => {
            let picked = items.iter().filter_map(|item| {
                let (_, fields) = named().find(|(name, _)| is_named(item, name))?;
                Some(pick(item, fields))
            });
            Value::Array(picked.collect())
        }
        scalar => scalar.clone(),
    }
}

fn is_named(item: &Value, name: &str) -> bool {
    if let Some(keys) = name.strip_prefix("k:") {
        let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
        return keys.iter().all(|(key, value)| item.get(key) == Some(value));
    }
    name.strip_prefix("v:")
        .is_some_and(|value| serde_json::from_str::<Value>(value).is_ok_and(|value| value == *item))
}
