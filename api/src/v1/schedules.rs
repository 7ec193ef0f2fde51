//! `/schedules`, `/schedules/{id}`, pausing them, and when they would fire.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use todo_tasks::idempotency::{self, Begun, Key};
use todo_tasks::schedule::{self, Schedule, ScheduleInput};
use todo_tasks::{Caller, ScheduleId};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::patch::{RULES, SchedulePatch};
use crate::answer::{self, Answer, Items, List, no_content, not_modified, replay};
use crate::error::{Error, Result};
use crate::extract::{IdempotencyKey, IfMatch, IfNoneMatch, MergePatch, Path, Posted, Query, page_size, read_cursor};
use crate::problem::{Problems, Stale};
use crate::state::{ApiState, Shared};

pub(super) fn routes() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::default()
        .routes(routes!(list, create))
        .routes(routes!(preview_unsaved))
        .routes(routes!(get, change, delete))
        .routes(routes!(preview))
        .routes(routes!(pause))
        .routes(routes!(resume))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct SchedulePath {
    /// The schedule's id.
    id: ScheduleId,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ScheduleListQuery {
    /// How many items at most; 50 when absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u16>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct PreviewQuery {
    /// How many instants; 10 when absent.
    #[param(minimum = 1, maximum = 100)]
    count: Option<usize>,
}

impl PreviewQuery {
    fn count(&self) -> Result<usize> {
        match self.count {
            None => Ok(10),
            Some(count @ 1..=100) => Ok(count),
            Some(_) => Err(Error::invalid("count", "must be 1 to 100")),
        }
    }
}

/// The list's name in its cursors.
const SCHEDULES: &str = "schedules";

/// List schedules
///
/// In the order in which they were made.
#[utoipa::path(
    get, path = "/schedules", tag = "schedules", operation_id = "list_schedules",
    params(ScheduleListQuery),
    responses(
        (status = 200, description = "A page of schedules.", body = List<Schedule>, headers(("Link" = String, description = "The next page."))),
        Problems,
    ),
)]
async fn list(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ScheduleListQuery>,
) -> Result<Response> {
    let limit = page_size(query.limit, api.config.max_page_size)?;
    let after: Option<ScheduleId> = read_cursor(SCHEDULES, query.cursor.as_deref())?;
    let mut conn = api.pool.acquire().await?;
    let page = schedule::list(&mut conn, &caller.user, after, limit).await?;
    answer::page(&uri, SCHEDULES, page)
}

/// Create a schedule
#[utoipa::path(
    post, path = "/schedules", tag = "schedules", operation_id = "create_schedule",
    params(IdempotencyKey),
    request_body = ScheduleInput,
    responses(
        (status = 201, description = "The schedule.", body = Schedule, headers(
            ("ETag" = String, description = "The schedule's version."),
            ("Location" = String, description = "The schedule's path."),
        )),
        Problems,
    ),
)]
async fn create(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    posted: Posted<ScheduleInput>,
) -> Result<Response> {
    let fields = posted.body.parse(Timestamp::now())?;
    let mut work = match idempotency::begin(&api.pool, &caller.user, posted.key, None).await? {
        Begun::Fresh(work) => work,
        Begun::Replay(answer) => return Ok(replay(&answer)),
    };
    let schedule = schedule::create(&mut work.tx, &caller, fields).await?;
    let answer = Answer::created(&uri, schedule.id, &schedule).at_version(schedule.version);
    let response = answer.finish(work).await?;
    api.schedule_changed();
    Ok(response)
}

/// Preview a schedule that is not saved
///
/// When it would fire next if it were made now.
#[utoipa::path(
    post, path = "/schedules/preview", tag = "schedules", operation_id = "preview_unsaved_schedule",
    request_body = ScheduleInput,
    responses((status = 200, description = "Instants, the earliest first.", body = Items<Timestamp>), Problems),
)]
async fn preview_unsaved(Query(query): Query<PreviewQuery>, posted: Posted<ScheduleInput>) -> Result<Response> {
    let count = query.count()?;
    let now = Timestamp::now();
    let fields = posted.body.parse(now)?;
    Answer::ok(Items {
        items: fields.upcoming(now, count),
    })
    .send()
}

/// Read a schedule
#[utoipa::path(
    get, path = "/schedules/{id}", tag = "schedules", operation_id = "get_schedule",
    params(SchedulePath, PreviewQuery, IfNoneMatch),
    responses(
        (status = 200, description = "The schedule.", body = Schedule, headers(("ETag" = String, description = "The schedule's version."))),
        (status = 304, description = "The caller has it already."),
        Problems,
    ),
)]
async fn get(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<SchedulePath>,
    known: IfNoneMatch,
) -> Result<Response> {
    let mut conn = api.pool.acquire().await?;
    let schedule = schedule::get(&mut conn, &caller.user, path.id).await?;
    if known.knows(schedule.version) {
        return Ok(not_modified(schedule.version));
    }
    Answer::ok(&schedule).at_version(schedule.version).send()
}

/// Change a schedule
///
/// A JSON Merge Patch (RFC 7396): a field that is absent stays, one that is null takes its default. What it made
/// already stays as it is.
#[utoipa::path(
    patch, path = "/schedules/{id}", tag = "schedules", operation_id = "change_schedule",
    params(SchedulePath, IfMatch),
    request_body(content = SchedulePatch, content_type = "application/merge-patch+json"),
    responses(
        (status = 200, description = "The schedule.", body = Schedule, headers(("ETag" = String, description = "The schedule's version."))),
        Stale,
        Problems,
    ),
)]
async fn change(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<SchedulePath>,
    IfMatch(if_match): IfMatch,
    changes: MergePatch,
) -> Result<Response> {
    let changes = changes.with_alternatives("schedule", RULES);
    let mut tx = api.pool.begin().await?;
    let schedule = schedule::change(&mut tx, &caller, path.id, if_match, |schedule| changes.apply(&schedule)).await?;
    tx.commit().await?;
    api.schedule_changed();
    Answer::ok(&schedule).at_version(schedule.version).send()
}

/// Delete a schedule
///
/// The tasks that it made stay.
#[utoipa::path(
    delete, path = "/schedules/{id}", tag = "schedules", operation_id = "delete_schedule",
    params(SchedulePath, IfMatch),
    responses(
        (status = 204, description = "It is gone."),
        Stale,
        Problems,
    ),
)]
async fn delete(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<SchedulePath>,
    IfMatch(if_match): IfMatch,
) -> Result<Response> {
    let mut tx = api.pool.begin().await?;
    schedule::delete(&mut tx, &caller, path.id, if_match).await?;
    tx.commit().await?;
    api.schedule_changed();
    Ok(no_content())
}

/// Preview a schedule
///
/// When it fires next, from now on.
#[utoipa::path(
    get, path = "/schedules/{id}/preview", tag = "schedules", operation_id = "preview_schedule",
    params(SchedulePath, PreviewQuery),
    responses((status = 200, description = "Instants, the earliest first.", body = Items<Timestamp>), Problems),
)]
async fn preview(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<SchedulePath>,
    Query(query): Query<PreviewQuery>,
) -> Result<Response> {
    let count = query.count()?;
    let mut conn = api.pool.acquire().await?;
    let schedule = schedule::get(&mut conn, &caller.user, path.id).await?;
    Answer::ok(Items {
        items: schedule::upcoming(&schedule, Timestamp::now(), count),
    })
    .send()
}

/// Pause a schedule
///
/// It makes nothing until it is resumed. One that is paused already stays as it is.
#[utoipa::path(
    post, path = "/schedules/{id}/pause", tag = "schedules", operation_id = "pause_schedule",
    params(SchedulePath, IdempotencyKey),
    responses(
        (status = 200, description = "The schedule.", body = Schedule, headers(("ETag" = String, description = "The schedule's version."))),
        Problems,
    ),
)]
async fn pause(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<SchedulePath>,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<Response> {
    set_suspended(&api, &caller, path.id, key, true).await
}

/// Resume a schedule
///
/// From now on: what fell into the pause is not made. One that is not paused stays as it is.
#[utoipa::path(
    post, path = "/schedules/{id}/resume", tag = "schedules", operation_id = "resume_schedule",
    params(SchedulePath, IdempotencyKey),
    responses(
        (status = 200, description = "The schedule.", body = Schedule, headers(("ETag" = String, description = "The schedule's version."))),
        Problems,
    ),
)]
async fn resume(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<SchedulePath>,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<Response> {
    set_suspended(&api, &caller, path.id, key, false).await
}

/// Pauses or resumes a schedule, once for each key.
async fn set_suspended(
    api: &ApiState,
    caller: &Caller,
    id: ScheduleId,
    key: Option<Key>,
    suspended: bool,
) -> Result<Response> {
    let mut work = match idempotency::begin(&api.pool, &caller.user, key, None).await? {
        Begun::Fresh(work) => work,
        Begun::Replay(answer) => return Ok(replay(&answer)),
    };
    let schedule = if suspended {
        schedule::pause(&mut work.tx, caller, id).await?
    } else {
        schedule::resume(&mut work.tx, caller, id).await?
    };
    let response = Answer::ok(&schedule).at_version(schedule.version).finish(work).await?;
    api.schedule_changed();
    Ok(response)
}
