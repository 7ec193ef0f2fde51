//! `/notifications`: a user's feed, and the reminders behind a digest.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use serde::Deserialize;
use todo_tasks::idempotency::{self, Begun};
use todo_tasks::notification::{self, Notification};
use todo_tasks::{Caller, NotificationId};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{self, Answer, List, replay};
use crate::error::Result;
use crate::extract::{IdempotencyKey, Path, Query, page_size, read_cursor};
use crate::problem::Problems;
use crate::state::{ApiState, Shared};

pub(super) fn routes() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(mark_read))
        .routes(routes!(reminders))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct NotificationPath {
    /// The notification's id.
    id: NotificationId,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct FeedQuery {
    /// Only what was not read yet.
    #[serde(default)]
    unread: bool,
    /// How many items at most; 50 when absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u16>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DigestQuery {
    /// How many items at most; 50 when absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u16>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The names of the lists in their cursors.
const FEED: &str = "notifications";
const DIGEST: &str = "digest";

/// List notifications
///
/// The newest first.
#[utoipa::path(
    get, path = "/notifications", tag = "notifications", operation_id = "list_notifications",
    params(FeedQuery),
    responses(
        (status = 200, description = "A page of notifications.", body = List<Notification>, headers(("Link" = String, description = "The next page."))),
        Problems,
    ),
)]
async fn list(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<FeedQuery>,
) -> Result<Response> {
    let limit = page_size(query.limit, api.config.max_page_size)?;
    let after: Option<NotificationId> = read_cursor(FEED, query.cursor.as_deref())?;
    let mut conn = api.pool.acquire().await?;
    let page = notification::list(&mut conn, &caller.user, query.unread, after, limit).await?;
    answer::page(&uri, FEED, page)
}

/// Mark a notification as read
///
/// One that was read already keeps its time.
#[utoipa::path(
    post, path = "/notifications/{id}/read", tag = "notifications", operation_id = "mark_notification_read",
    params(NotificationPath, IdempotencyKey),
    responses((status = 200, description = "The notification.", body = Notification), Problems),
)]
async fn mark_read(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<NotificationPath>,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<Response> {
    let mut work = match idempotency::begin(&api.pool, &caller.user, key, None).await? {
        Begun::Fresh(work) => work,
        Begun::Replay(answer) => return Ok(replay(&answer)),
    };
    let notification = notification::mark_read(&mut work.tx, &caller.user, path.id).await?;
    Answer::ok(&notification).finish(work).await
}

/// List the reminders that a digest stands for
///
/// The earliest first.
#[utoipa::path(
    get, path = "/notifications/{id}/reminders", tag = "notifications", operation_id = "list_digest_reminders",
    params(NotificationPath, DigestQuery),
    responses(
        (status = 200, description = "A page of notifications.", body = List<Notification>, headers(("Link" = String, description = "The next page."))),
        Problems,
    ),
)]
async fn reminders(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    Path(path): Path<NotificationPath>,
    Query(query): Query<DigestQuery>,
) -> Result<Response> {
    let limit = page_size(query.limit, api.config.max_page_size)?;
    let after: Option<NotificationId> = read_cursor(DIGEST, query.cursor.as_deref())?;
    let mut conn = api.pool.acquire().await?;
    let page = notification::digest(&mut conn, &caller.user, path.id, after, limit).await?;
    answer::page(&uri, DIGEST, page)
}
