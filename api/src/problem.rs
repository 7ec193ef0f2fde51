//! The body of every answer that is not a success (RFC 9457).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use todo_tasks::Invalid;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Content, ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

/// Its media type.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Tells kinds of problems apart; stable, for programs.
    #[serde(rename = "type")]
    #[schema(example = "https://todoplatform.dev/problems/invalid")]
    pub(crate) kind: String,
    /// The kind in words; the same for each of its kind.
    #[schema(value_type = String)]
    pub(crate) title: &'static str,
    /// The HTTP status.
    #[schema(example = 422)]
    pub(crate) status: u16,
    /// What went wrong this time.
    #[schema(value_type = String)]
    pub(crate) detail: Cow<'static, str>,
    /// The request's id, as in `X-Request-Id`: name it when you ask for help.
    pub(crate) instance: String,
    /// What is wrong with what was sent, field by field.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) errors: Vec<FieldError>,
}

/// What is wrong with one field.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// A path in the document that was sent, or the name of a query parameter or header.
    #[schema(example = "due.time_zone")]
    pub(crate) field: String,
    /// What is wrong and what is allowed.
    pub(crate) message: String,
}

impl From<&Invalid> for FieldError {
    fn from(invalid: &Invalid) -> Self {
        Self {
            field: invalid.field.clone(),
            message: invalid.message.clone(),
        }
    }
}

/// How every route's OpenAPI entry names its problems.
pub(crate) struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        BTreeMap::from([
            (
                "4XX".to_owned(),
                response("The request cannot be served as it is; `type` says why.")
                    .build()
                    .into(),
            ),
            (
                "5XX".to_owned(),
                response("The platform failed; the same request may succeed later.")
                    .build()
                    .into(),
            ),
        ])
    }
}

/// How a route that takes `If-Match` names what that leads to.
pub(crate) struct Stale;

impl IntoResponses for Stale {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let etag = HeaderBuilder::new()
            .description(Some("The current version."))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
            .build();
        let stale = response("It has changed meanwhile.").header("ETag", etag).build();
        BTreeMap::from([("412".to_owned(), stale.into())])
    }
}

fn response(description: &str) -> ResponseBuilder {
    let problem: Content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    ResponseBuilder::new()
        .description(description)
        .content(MEDIA_TYPE, problem)
}
