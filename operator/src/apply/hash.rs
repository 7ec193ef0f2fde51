//! The hash of a desired object: the same text for the same object, however its fields were put in.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// 32 hexadecimal digits. Fields that are `null` do not count, nor does the order of fields.
pub fn hash(body: &Value) -> String {
    let mut digest = Sha256::new();
    feed(&mut digest, body);
    hex::encode(&digest.finalize()[..16])
}

fn feed(digest: &mut Sha256, value: &Value) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().filter(|(_, value)| !value.is_null()).collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            digest.update(b"{");
            for (name, value) in fields {
                text(digest, name);
                feed(digest, value);
            }
            digest.update(b"}");
        }
        Value::Array(items) => {
            digest.update(b"[");
            for item in items {
                feed(digest, item);
            }
            digest.update(b"]");
        }
        scalar => text(digest, scalar),
    }
}

/// With its length before it, so that no two objects are one text.
fn text<T: Serialize + ?Sized>(digest: &mut Sha256, scalar: &T) {
    let text = serde_json::to_vec(scalar).expect("text, numbers and flags are JSON");
    digest.update(text.len().to_be_bytes());
    digest.update(text);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_difference_counts_but_nulls_and_order() {
        let one = hash(&json!({"a": 1, "b": {"c": "x", "d": null}}));
        // Another one would write every object of every platform anew.
        assert_eq!(one, "cda259be5977a476cfa81e3a0909ea40");
        assert_eq!(one, hash(&json!({"b": {"c": "x"}, "a": 1})));
        for other in [
            json!({"a": "1", "b": {"c": "x"}}),
            json!({"a": 1, "b": {"c": "y"}}),
            json!({"a": 1, "b": {}, "c": "x"}),
            json!({"a": 1, "b": ["c", "x"]}),
        ] {
            assert_ne!(one, hash(&other), "{other}");
        }
    }
}
