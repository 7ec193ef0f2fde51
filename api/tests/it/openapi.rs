//! `/openapi.json` and its blessed copy.

use std::path::Path;

use serde_json::Value;

use crate::app::App;

#[test]
fn the_blessed_document_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let blessed = std::fs::read_to_string(&path).unwrap_or_default();
    let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openapi.json");
    std::fs::write(&fresh, todo_api::openapi_json()).unwrap();
    assert!(
        blessed == todo_api::openapi_json(),
        "api/openapi.json is stale: look at `diff {} {}`, then write it anew with `todo generate`",
        path.display(),
        fresh.display(),
    );
}

#[tokio::test]
async fn the_document_that_is_served_is_the_blessed_one() {
    let app = App::spawn().await;
    let served = app.nobody().get("/openapi.json").await.expect(200);
    assert_eq!(served.header("content-type"), "application/json");
    assert_eq!(served.text, todo_api::openapi_json());
}

#[test]
fn every_operation_is_described_and_says_how_it_fails() {
    let document = serde_json::to_value(todo_api::openapi()).unwrap();
    let mut ids = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        assert!(path.starts_with("/api/v1/"), "{path}");
        for (method, operation) in operations.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{name}");
            assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{name}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("4XX") && responses.contains_key("5XX"), "{name}");
            ids.push(operation["operationId"].as_str().unwrap().to_owned());
            let parameters = operation["parameters"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            for parameter in path.split(['{', '}']).skip(1).step_by(2) {
                let described = |given: &Value| given["name"] == parameter && given["in"] == "path";
                assert_eq!(
                    parameters.iter().filter(|given| described(given)).count(),
                    1,
                    "{name}: {parameter}"
                );
            }
            let has_key = parameters.iter().any(|given| given["name"] == "Idempotency-Key");
            let changes_nothing = path.ends_with("/preview");
            assert_eq!(has_key, method == "post" && !changes_nothing, "{name}");
        }
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "operation ids are unique");
}

#[test]
fn every_reference_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = serde_json::to_value(todo_api::openapi()).unwrap();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}
