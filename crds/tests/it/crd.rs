//! The generated CRDs: fresh, structural, documented, and as `kubectl` users expect them.

use std::path::Path;

use serde_json::Value;
use todo_crds::crd_yaml;

fn crd(plural: &str) -> Value {
    let name = format!("todoplatform.dev_{plural}.yaml");
    let (_, text) = crd_yaml().into_iter().find(|(file, _)| *file == name).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

fn schema(plural: &str) -> Value {
    crd(plural)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Calls `visit` with each schema and its path.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    for nested in ["items", "additionalProperties"] {
        if schema[nested].is_object() {
            walk(&schema[nested], &format!("{path}[]"), visit);
        }
    }
}

#[test]
fn the_files_in_config_crd_are_fresh() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/crd");
    for (file, text) in crd_yaml() {
        let written = std::fs::read_to_string(folder.join(&file)).unwrap_or_default();
        assert!(
            written == text,
            "config/crd/{file} is stale: run `cargo xtask generate`"
        );
    }
}

#[test]
fn every_field_that_users_write_is_explained() {
    for plural in ["todoplatforms", "recurringschedules"] {
        let mut fields = 0;
        walk(&schema(plural), "", &mut |path, schema| {
            let items = path.ends_with("[]") && schema["type"] == "string";
            fields += 1;
            assert!(
                items || schema["description"].is_string(),
                "{plural}{path} has no description"
            );
        });
        assert!(fields > 30, "{fields}");
    }
}

#[test]
fn the_schemas_are_structural() {
    for plural in ["todoplatforms", "recurringschedules"] {
        walk(&schema(plural), "", &mut |path, schema| {
            let free = schema["x-kubernetes-int-or-string"] == true;
            assert!(
                free || schema["type"].is_string(),
                "{plural}{path} has no type: {schema}"
            );
            for forbidden in [
                "anyOf",
                "oneOf",
                "allOf",
                "not",
                "$ref",
                "definitions",
                "$defs",
                "const",
                "uniqueItems",
                "nullable",
            ] {
                assert!(
                    schema.get(forbidden).is_none(),
                    "{plural}{path} has {forbidden}: {schema}"
                );
            }
            let both = schema.get("properties").is_some() && schema.get("additionalProperties").is_some();
            assert!(!both, "{plural}{path} has properties and additionalProperties");
            let format = schema["format"].as_str().unwrap_or("int64");
            assert!(
                ["int32", "int64", "date-time"].contains(&format),
                "{plural}{path}: kubernetes does not know {format}"
            );
        });
    }
}

/// The API server estimates what a rule may cost from these bounds, and refuses a CRD that could cost too much.
#[test]
fn everything_in_the_spec_is_bounded() {
    for plural in ["todoplatforms", "recurringschedules"] {
        walk(&schema(plural)["properties"]["spec"], "spec", &mut |path, schema| {
            let bound = match schema["type"].as_str() {
                Some("string") if schema.get("enum").is_none() => "maxLength",
                Some("array") => "maxItems",
                Some("integer") => "maximum",
                _ => return,
            };
            assert!(schema[bound].is_u64(), "{plural}: {path} has no {bound}: {schema}");
        });
    }
}

#[test]
fn the_names_and_columns_are_what_people_type_and_see() {
    let names = |plural: &str| crd(plural)["spec"]["names"].clone();
    assert_eq!(names("todoplatforms")["shortNames"], serde_json::json!(["todo"]));
    assert_eq!(
        names("recurringschedules")["shortNames"],
        serde_json::json!(["taskschedule", "tsched"])
    );
    let columns = |plural: &str| -> Vec<String> {
        let columns = crd(plural)["spec"]["versions"][0]["additionalPrinterColumns"].clone();
        columns
            .as_array()
            .unwrap()
            .iter()
            .filter(|column| column["priority"].as_i64().unwrap_or(0) == 0)
            .map(|column| column["name"].as_str().unwrap().to_uppercase())
            .collect()
    };
    assert_eq!(
        columns("recurringschedules"),
        [
            "PLATFORM",
            "SCHEDULE",
            "ZONE",
            "NEXT",
            "LAST",
            "MADE",
            "MISSED",
            "SUSPENDED",
            "READY"
        ]
    );
    for plural in ["todoplatforms", "recurringschedules"] {
        let crd = crd(plural);
        assert_eq!(crd["spec"]["group"], "todoplatform.dev");
        assert_eq!(crd["spec"]["scope"], "Namespaced");
        assert_eq!(crd["spec"]["names"]["categories"], serde_json::json!(["todoplatform"]));
        assert_eq!(crd["spec"]["versions"][0]["name"], "v1alpha1");
        assert!(crd["spec"]["versions"][0]["subresources"]["status"].is_object());
    }
}

#[test]
fn defaults_are_visible() {
    let spec = schema("recurringschedules")["properties"]["spec"]["properties"].clone();
    assert_eq!(spec["timeZone"]["default"], "UTC");
    assert_eq!(spec["overlap"]["default"], "Allow");
    assert_eq!(
        spec["catchUp"]["default"],
        serde_json::json!({"policy": "All", "window": "30d", "max": 1000})
    );
    assert_eq!(spec["template"]["properties"]["priority"]["default"], "medium");
    let platform = schema("todoplatforms")["properties"]["spec"]["properties"].clone();
    assert_eq!(platform["deletionPolicy"]["default"], "Retain");
    assert_eq!(
        platform["api"]["properties"]["rateLimit"]["properties"]["perSecond"]["default"],
        50
    );
}
