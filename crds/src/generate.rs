//! The CRDs as YAML, as `config/crd/` holds them.

use kube::CustomResourceExt as _;
use serde_json::Value;

use crate::platform::TodoPlatform;
use crate::schedule::RecurringSchedule;

/// The CRDs: file names under `config/crd/`, and their texts.
#[allow(
    clippy::missing_panics_doc,
    reason = "the types are constants of this crate, and a test calls it"
)]
pub fn crd_yaml() -> Vec<(String, String)> {
    [plain(TodoPlatform::crd()), plain(RecurringSchedule::crd())]
        .into_iter()
        .map(|crd| {
            let plural = crd["spec"]["names"]["plural"].as_str().expect("each CRD has a plural");
            let file = format!("{}_{plural}.yaml", crate::GROUP);
            let yaml = serde_saphyr::to_string(&crd).expect("a CRD is plain data");
            (
                file,
                format!("# Generated from crds/ by `cargo xtask generate`. Do not edit.\n{yaml}"),
            )
        })
        .collect()
}

/// The CRD as plain data, without what an API server warns of.
fn plain(crd: impl serde::Serialize) -> Value {
    let mut crd = serde_json::to_value(crd).expect("a CRD is plain data");
    clean(&mut crd);
    crd
}

/// Removes the formats of unsigned integers, which Kubernetes does not know, and writes bounds as whole numbers.
///
/// Removes `nullable` too: the API server then drops a null as if the field were absent, before it applies defaults
/// and rules, and `has()` in a rule cannot meet a null. Manifests are read here in the same way.
fn clean(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(|format| format.starts_with("uint"))
            {
                fields.remove("format");
            }
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("nullable");
            }
            for bound in ["minimum", "maximum"] {
                if let Some(number) = fields.get(bound).and_then(Value::as_f64)
                    && number.fract() == 0.0
                    && number.abs() < 9e15
                {
                    #[allow(clippy::cast_possible_truncation, reason = "a whole number, far below 2^53")]
                    fields.insert(bound.to_owned(), Value::from(number as i64));
                }
            }
            fields.values_mut().for_each(clean);
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        _ => {}
    }
}
