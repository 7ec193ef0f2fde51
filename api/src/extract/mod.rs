//! Requests become domain types, or an error that names what is wrong.
//!
//! One file for each part of a request. Handlers take these and never look at a raw request.

mod body;
mod conditional;
mod page;
mod path;
mod query;

pub(crate) use body::{IdempotencyKey, MergePatch, Posted, read_json};
pub(crate) use conditional::{IfMatch, IfNoneMatch};
pub(crate) use page::{foreign_cursor, page_size, read_cursor, write_cursor};
pub(crate) use path::Path;
pub(crate) use query::Query;

use serde_json::error::Category;
use todo_tasks::Invalid;
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};

use crate::error::Error;

/// An optional request header in a route's OpenAPI entry.
fn header_parameter(name: &str, description: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
        .build()
}

/// Which field of a JSON document is wrong, and how. Text that is no JSON at all has no fields.
fn explain_json(error: serde_path_to_error::Error<serde_json::Error>) -> Error {
    let path = error.path().to_string();
    let error = error.into_inner();
    match error.classify() {
        Category::Data => explain(&path, &error.to_string()).into(),
        Category::Syntax | Category::Eof | Category::Io => malformed(&error),
    }
}

fn malformed(error: &serde_json::Error) -> Error {
    Error::MalformedBody(format!("the body is not JSON: {error}"))
}

/// serde names an unknown or a missing field in its message and only its parent in the path.
fn explain(path: &str, message: &str) -> Invalid {
    let message = message.split(" at line ").next().unwrap_or_default();
    let path = if path == "." { "" } else { path };
    let quoted = |prefix: &str| message.strip_prefix(prefix)?.split('`').next();
    let below = |name: &str| match path {
        "" => name.to_owned(),
        path if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        path => format!("{path}.{name}"),
    };
    if let Some(name) = quoted("missing field `") {
        return Invalid::new(below(name), "is required");
    }
    if let Some(name) = quoted("unknown field `") {
        let allowed = message
            .split_once(", ")
            .map_or("nothing is expected here", |(_, allowed)| allowed);
        return Invalid::new(below(name), format!("is not known; {allowed}"));
    }
    if let Some(name) = quoted("duplicate field `") {
        return Invalid::new(below(name), "is there twice");
    }
    Invalid::new(if path.is_empty() { "body" } else { path }, message)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[allow(dead_code, reason = "only its errors matter")]
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[allow(dead_code, reason = "only its errors matter")]
        count: u8,
    }

    fn complaint(text: &str) -> String {
        let deserializer = &mut serde_json::Deserializer::from_str(text);
        match explain_json(serde_path_to_error::deserialize::<_, Outer>(deserializer).expect_err("it is wrong")) {
            Error::Domain(todo_tasks::Error::Invalid(invalid)) => invalid[0].to_string(),
            other => format!("malformed: {other}"),
        }
    }

    #[test]
    fn the_field_that_is_wrong_is_named_with_its_whole_path() {
        assert_eq!(complaint("{}"), "inner: is required");
        assert_eq!(
            complaint(r#"{"inner":[{"count":1},{}]}"#),
            "inner[1].count: is required"
        );
        assert_eq!(
            complaint(r#"{"inner":[{"count":1,"size":2}]}"#),
            "inner[0].size: is not known; expected `count`"
        );
        assert_eq!(complaint(r#"{"outer":1}"#), "outer: is not known; expected `inner`");
        assert_eq!(complaint(r#"{"inner":[],"inner":[]}"#), "inner: is there twice");
        assert_eq!(
            complaint(r#"{"inner":[{"count":"x"}]}"#),
            "inner[0].count: invalid type: string \"x\", expected u8"
        );
        assert!(complaint("{").starts_with("malformed: "));
    }
}
