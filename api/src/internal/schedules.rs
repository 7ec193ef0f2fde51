//! `/schedules` and `/schedules/{uid}`: what resources declare, and what became of it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequest, Request, State};
use axum::response::Response;
use axum::routing::{get, put};
use serde::{Deserialize, Serialize};
use todo_tasks::schedule::{self, Declaration, DeclaredState, FeedPosition};
use todo_tasks::{Error as DomainError, Invalid};

use crate::answer::{Answer, no_content};
use crate::error::{Error, Result};
use crate::extract::{Path, Query, read_cursor, read_json, write_cursor};
use crate::state::{ApiState, Shared};

/// The largest declaration, in bytes: the longest texts that a resource may have, with each character escaped.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// The most schedules that one answer shows.
const MAX_CHANGES: u16 = 1_000;

/// The list's name in its cursors.
const DECLARED: &str = "declared";

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/schedules", get(changes))
        .route("/schedules/{uid}", put(declare).delete(retract))
}

#[derive(Deserialize)]
struct DeclaredPath {
    /// The UID of the resource.
    uid: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangesQuery {
    /// The `cursor` of the answer before; all schedules without one.
    after: Option<String>,
    /// How many at most; 1,000 when absent.
    limit: Option<u16>,
}

/// What has changed.
#[derive(Serialize)]
struct Changes {
    /// The schedules, each once, in the order of their last changes.
    items: Vec<DeclaredState>,
    /// Where to go on, also when there was nothing.
    cursor: String,
    /// Whether there is more already.
    has_more: bool,
}

/// What a resource declares. A field that is wrong is named as the resource has it.
struct Declared(Declaration);

impl FromRequest<Arc<ApiState>> for Declared {
    type Rejection = Error;

    async fn from_request(request: Request, _api: &Arc<ApiState>) -> Result<Self> {
        read_json(request, MAX_BODY_BYTES).await.map(Self).map_err(in_resource)
    }
}

fn in_resource(error: Error) -> Error {
    match error {
        Error::Domain(DomainError::Invalid(invalid)) => {
            let of_resource = |invalid: Invalid| Invalid {
                field: schedule::resource_field(&invalid.field),
                ..invalid
            };
            invalid.into_iter().map(of_resource).collect::<Vec<_>>().into()
        }
        other => other,
    }
}

/// Has a schedule be what the resource says. The same again changes nothing. Answers with what became of it so far.
async fn declare(
    State(api): Shared,
    Path(path): Path<DeclaredPath>,
    Declared(declaration): Declared,
) -> Result<Response> {
    let mut tx = api.pool.begin().await?;
    let state = schedule::put_declared(&mut tx, &path.uid, &declaration).await?;
    tx.commit().await?;
    api.schedule_changed();
    Answer::ok(state).send()
}

/// Deletes the schedule of a resource that is gone; also says so when there is none. Its tasks stay.
async fn retract(State(api): Shared, Path(path): Path<DeclaredPath>) -> Result<Response> {
    let mut tx = api.pool.begin().await?;
    schedule::delete_declared(&mut tx, &path.uid).await?;
    tx.commit().await?;
    api.schedule_changed();
    Ok(no_content())
}

/// The declared schedules that have changed since the cursor.
async fn changes(State(api): Shared, Query(query): Query<ChangesQuery>) -> Result<Response> {
    let limit = match query.limit {
        None => MAX_CHANGES,
        Some(limit) if (1..=MAX_CHANGES).contains(&limit) => limit,
        Some(_) => return Err(Error::invalid("limit", format!("must be 1 to {MAX_CHANGES}"))),
    };
    let after: Option<FeedPosition> = read_cursor(DECLARED, query.after.as_deref())
        .map_err(|_| Error::invalid("after", "must be the cursor of an answer of this route"))?;
    let mut conn = api.pool.acquire().await?;
    let changes = schedule::changed_after(&mut conn, after, limit).await?;
    Answer::ok(Changes {
        items: changes.items,
        cursor: write_cursor(DECLARED, &changes.position)?,
        has_more: changes.has_more,
    })
    .send()
}
