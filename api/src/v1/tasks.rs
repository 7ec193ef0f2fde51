//! `/tasks`, `/tasks/{id}` and what can be done to a task; its history.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use todo_tasks::audit::{self, HistoryEntry};
use todo_tasks::idempotency::{self, Begun, Key};
use todo_tasks::task::{self, Direction, Filter, ListQuery, Priority, Sort, Status, Task, TaskInput};
use todo_tasks::{Caller, ScheduleId, TaskId};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::patch::{RULES, TaskPatch};
use crate::answer::{self, Answer, List, no_content, not_modified, replay};
use crate::error::Result;
use crate::extract::{
    IdempotencyKey, IfMatch, IfNoneMatch, MergePatch, Path, Posted, Query, foreign_cursor, page_size, read_cursor,
};
use crate::problem::{Problems, Stale};
use crate::state::{ApiState, Shared};

pub(super) fn routes() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::default()
        .routes(routes!(list, create))
        .routes(routes!(get, change, delete))
        .routes(routes!(complete))
        .routes(routes!(reopen))
        .routes(routes!(history))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct TaskPath {
    /// The task's id.
    id: TaskId,
}

/// Which tasks, in which order; each filter that is there must hold.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct TaskListQuery {
    /// Of this status.
    status: Option<Status>,
    /// Of this priority.
    priority: Option<Priority>,
    /// Of this category.
    category: Option<String>,
    /// With this tag; several times for several tags, all of which a task must have.
    #[serde(default)]
    tag: Vec<String>,
    /// Due before this instant.
    due_before: Option<Timestamp>,
    /// Due at or after this instant.
    due_after: Option<Timestamp>,
    /// Parts of this task.
    parent_id: Option<TaskId>,
    /// Made by this schedule.
    schedule_id: Option<ScheduleId>,
    /// With this text in title or description, whatever its case.
    q: Option<String>,
    /// What the list is sorted by.
    #[serde(default)]
    sort: Sort,
    /// Which end comes first.
    #[serde(default)]
    direction: Direction,
    /// How many items at most; 50 when absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u16>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The names of the lists in their cursors.
const TASKS: &str = "tasks";
const HISTORY: &str = "history";

/// List tasks
#[utoipa::path(
    get, path = "/tasks", tag = "tasks", operation_id = "list_tasks",
    params(TaskListQuery),
    responses((status = 200, description = "A page of tasks.", body = List<Task>, headers(("Link" = String, description = "The next page."))), Problems),
)]
async fn list(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<TaskListQuery>,
) -> Result<Response> {
    let limit = page_size(query.limit, api.config.max_page_size)?;
    let after = read_cursor(TASKS, query.cursor.as_deref())?;
    let filter = Filter {
        status: query.status,
        priority: query.priority,
        category: query.category,
        tags: query.tag,
        due_before: query.due_before,
        due_after: query.due_after,
        parent_id: query.parent_id,
        schedule_id: query.schedule_id,
        text: query.q,
    };
    let list = ListQuery {
        filter,
        sort: query.sort,
        direction: query.direction,
        after,
        limit,
    };
    if list
        .after
        .as_ref()
        .is_some_and(|after| !after.fits(query.sort, query.direction))
    {
        return Err(foreign_cursor());
    }
    let mut conn = api.pool.acquire().await?;
    let page = task::list(&mut conn, &caller.user, &list).await?;
    answer::page(&uri, TASKS, page)
}

/// Create a task
#[utoipa::path(
    post, path = "/tasks", tag = "tasks", operation_id = "create_task",
    params(IdempotencyKey),
    request_body = TaskInput,
    responses(
        (status = 201, description = "The task.", body = Task, headers(
            ("ETag" = String, description = "The task's version."),
            ("Location" = String, description = "The task's path."),
        )),
        Problems,
    ),
)]
async fn create(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    posted: Posted<TaskInput>,
) -> Result<Response> {
    let fields = posted.body.parse()?;
    let Some(key) = posted.key else {
        // Creating is one statement, and so a transaction of its own: one round trip.
        let mut conn = api.pool.acquire().await?;
        let task = task::create(&mut conn, &caller, fields).await?;
        api.task_changed(&task);
        return Answer::created(&uri, task.id, &task).at_version(task.version).send();
    };
    let mut work = match idempotency::begin(&api.pool, &caller.user, Some(key), None).await? {
        Begun::Fresh(work) => work,
        Begun::Replay(answer) => return Ok(replay(&answer)),
    };
    let task = task::create(&mut work.tx, &caller, fields).await?;
    let response = Answer::created(&uri, task.id, &task)
        .at_version(task.version)
        .finish(work)
        .await?;
    api.task_changed(&task);
    Ok(response)
}

/// Read a task
#[utoipa::path(
    get, path = "/tasks/{id}", tag = "tasks", operation_id = "get_task",
    params(TaskPath, IfNoneMatch),
    responses(
        (status = 200, description = "The task.", body = Task, headers(("ETag" = String, description = "The task's version."))),
        (status = 304, description = "The caller has it already."),
        Problems,
    ),
)]
async fn get(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<TaskPath>,
    known: IfNoneMatch,
) -> Result<Response> {
    let mut conn = api.pool.acquire().await?;
    let task = task::get(&mut conn, &caller.user, path.id).await?;
    if known.knows(task.version) {
        return Ok(not_modified(task.version));
    }
    Answer::ok(&task).at_version(task.version).send()
}

/// Change a task
///
/// A JSON Merge Patch (RFC 7396): a field that is absent stays, one that is null takes its default. Lists (tags,
/// reminders) are replaced as a whole.
#[utoipa::path(
    patch, path = "/tasks/{id}", tag = "tasks", operation_id = "change_task",
    params(TaskPath, IfMatch),
    request_body(content = TaskPatch, content_type = "application/merge-patch+json"),
    responses(
        (status = 200, description = "The task.", body = Task, headers(("ETag" = String, description = "The task's version."))),
        Stale,
        Problems,
    ),
)]
async fn change(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<TaskPath>,
    IfMatch(if_match): IfMatch,
    changes: MergePatch,
) -> Result<Response> {
    let changes = changes
        .with_alternatives("due", &["local", "at"])
        .with_alternatives("recurrence", RULES);
    let mut tx = api.pool.begin().await?;
    let task = task::change(&mut tx, &caller, path.id, if_match, |task| changes.apply(&task)).await?;
    tx.commit().await?;
    api.task_changed(&task);
    Answer::ok(&task).at_version(task.version).send()
}

/// Delete a task
///
/// Its history stays.
#[utoipa::path(
    delete, path = "/tasks/{id}", tag = "tasks", operation_id = "delete_task",
    params(TaskPath, IfMatch),
    responses(
        (status = 204, description = "It is gone."),
        Stale,
        Problems,
    ),
)]
async fn delete(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<TaskPath>,
    IfMatch(if_match): IfMatch,
) -> Result<Response> {
    let mut tx = api.pool.begin().await?;
    let task = task::delete(&mut tx, &caller, path.id, if_match).await?;
    tx.commit().await?;
    api.task_changed(&task);
    Ok(no_content())
}

/// Complete a task
///
/// One that is completed already stays as it is. One that repeats comes back as a new task.
#[utoipa::path(
    post, path = "/tasks/{id}/complete", tag = "tasks", operation_id = "complete_task",
    params(TaskPath, IfMatch, IdempotencyKey),
    responses(
        (status = 200, description = "The task.", body = Task, headers(("ETag" = String, description = "The task's version."))),
        Stale,
        Problems,
    ),
)]
async fn complete(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<TaskPath>,
    IfMatch(if_match): IfMatch,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<Response> {
    set_status(&api, &caller, path.id, if_match, key, Status::Completed).await
}

/// Reopen a task
///
/// One that is open already stays as it is.
#[utoipa::path(
    post, path = "/tasks/{id}/reopen", tag = "tasks", operation_id = "reopen_task",
    params(TaskPath, IfMatch, IdempotencyKey),
    responses(
        (status = 200, description = "The task.", body = Task, headers(("ETag" = String, description = "The task's version."))),
        Stale,
        Problems,
    ),
)]
async fn reopen(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<TaskPath>,
    IfMatch(if_match): IfMatch,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<Response> {
    set_status(&api, &caller, path.id, if_match, key, Status::Open).await
}

/// Completes a task or opens it again, once for each key.
async fn set_status(
    api: &ApiState,
    caller: &Caller,
    id: TaskId,
    if_match: Option<i64>,
    key: Option<Key>,
    status: Status,
) -> Result<Response> {
    let mut work = match idempotency::begin(&api.pool, &caller.user, key, Some(id)).await? {
        Begun::Fresh(work) => work,
        Begun::Replay(answer) => return Ok(replay(&answer)),
    };
    let task = match status {
        Status::Completed => task::complete(&mut work.tx, caller, id, if_match).await?,
        Status::Open => task::reopen(&mut work.tx, caller, id, if_match).await?,
    };
    let response = Answer::ok(&task).at_version(task.version).finish(work).await?;
    api.task_changed(&task);
    Ok(response)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    /// How many items at most; 50 when absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u16>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Read what happened to a task
///
/// The oldest first. A deleted task has a history too.
#[utoipa::path(
    get, path = "/tasks/{id}/history", tag = "tasks", operation_id = "get_task_history",
    params(TaskPath, HistoryQuery),
    responses(
        (status = 200, description = "A page of the history.", body = List<HistoryEntry>, headers(("Link" = String, description = "The next page."))),
        Problems,
    ),
)]
async fn history(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    Path(path): Path<TaskPath>,
    Query(query): Query<HistoryQuery>,
) -> Result<Response> {
    let limit = page_size(query.limit, api.config.max_page_size)?;
    let after: Option<i64> = read_cursor(HISTORY, query.cursor.as_deref())?;
    let mut conn = api.pool.acquire().await?;
    let page = audit::history(&mut conn, &caller.user, path.id, after, limit).await?;
    answer::page(&uri, HISTORY, page)
}
