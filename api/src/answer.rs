//! How a result becomes an answer: body, `ETag`, `Location`, `Link`.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use todo_tasks::idempotency::{self, StoredAnswer, Work};
use todo_tasks::task::Page;
use url::form_urlencoded;
use utoipa::ToSchema;

use crate::error::Result;
use crate::extract::write_cursor;

/// Marks an answer that was given before.
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A version as a strong entity tag.
pub(crate) fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

/// A successful answer with a body, on its way.
pub(crate) struct Answer<T> {
    status: StatusCode,
    headers: Vec<(HeaderName, String)>,
    body: T,
}

impl<T: Serialize> Answer<T> {
    /// 200.
    pub(crate) fn ok(body: T) -> Self {
        Self {
            status: StatusCode::OK,
            headers: Vec::new(),
            body,
        }
    }

    /// 201, at a path of its own below that of the request.
    pub(crate) fn created(collection: &Uri, id: impl std::fmt::Display, body: T) -> Self {
        let location = format!("{}/{id}", collection.path());
        Self {
            status: StatusCode::CREATED,
            headers: vec![(header::LOCATION, location)],
            body,
        }
    }

    /// 201, without a path of its own.
    pub(crate) fn made(body: T) -> Self {
        Self {
            status: StatusCode::CREATED,
            ..Self::ok(body)
        }
    }

    /// With the version that a later request can be conditional on.
    pub(crate) fn at_version(mut self, version: i64) -> Self {
        self.headers.push((header::ETAG, etag(version)));
        self
    }

    /// Sends it.
    pub(crate) fn send(self) -> Result<Response> {
        let mut response = json(self.status, serde_json::to_vec(&self.body)?);
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
        Ok(response)
    }

    /// Commits the work together with its answer, and sends it.
    pub(crate) async fn finish(self, work: Work) -> Result<Response> {
        let headers: BTreeMap<&str, &str> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let answer = StoredAnswer {
            status: self.status.as_u16(),
            headers: serde_json::to_value(headers)?,
            body: serde_json::to_string(&self.body)?,
        };
        idempotency::finish(work, &answer).await?;
        Ok(stored(&answer))
    }
}

/// The answer that a request with this idempotency key got before.
pub(crate) fn replay(answer: &StoredAnswer) -> Response {
    let mut response = stored(answer);
    response
        .headers_mut()
        .insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    response
}

/// First answers go through here too, so that a replay is the same to the byte.
fn stored(answer: &StoredAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = json(status, answer.body.clone());
    let headers = answer.headers.as_object().into_iter().flatten();
    for (name, value) in headers {
        let name = HeaderName::try_from(name);
        let value = HeaderValue::try_from(value.as_str().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, content_type)], body.into()).into_response()
}

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct List<T> {
    /// The items, in the list's order.
    items: Vec<T>,
    /// Send it as `cursor` to read on; `null` on the last page.
    next_cursor: Option<String>,
}

/// A page with the way to the next one, in the body and as a link (RFC 8288). `list` keeps the cursors of one list
/// out of another.
pub(crate) fn page<T: Serialize, P: Serialize>(uri: &Uri, list: &'static str, page: Page<T, P>) -> Result<Response> {
    let next_cursor = page.next.map(|position| write_cursor(list, &position)).transpose()?;
    let link = next_cursor.as_deref().map(|cursor| next_link(uri, cursor));
    let mut answer = Answer::ok(List {
        items: page.items,
        next_cursor,
    });
    answer.headers.extend(link.map(|link| (header::LINK, link)));
    answer.send()
}

/// The same request with another cursor.
fn next_link(uri: &Uri, cursor: &str) -> String {
    let given = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(given.filter(|(name, _)| name != "cursor"))
        .append_pair("cursor", cursor)
        .finish();
    format!("<{}?{query}>; rel=\"next\"", uri.path())
}

/// 204: done, and there is nothing to show.
pub(crate) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// 304: the caller has it already.
pub(crate) fn not_modified(version: i64) -> Response {
    let mut headers = HeaderMap::new();
    headers.extend(
        HeaderValue::try_from(etag(version))
            .ok()
            .map(|etag| (header::ETAG, etag)),
    );
    (StatusCode::NOT_MODIFIED, headers).into_response()
}

/// What an endpoint of plain lists answers, such as the instants of a schedule.
#[derive(Serialize, ToSchema)]
pub(crate) struct Items<T> {
    /// The items, in their order.
    pub(crate) items: Vec<T>,
}
