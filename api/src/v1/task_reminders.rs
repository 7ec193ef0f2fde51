//! `/tasks/{id}/reminders`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use serde::Deserialize;
use todo_tasks::idempotency::{self, Begun};
use todo_tasks::reminder::{self, Reminder};
use todo_tasks::task::ReminderInput;
use todo_tasks::{Caller, ReminderId, TaskId};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Answer, Items, no_content, replay};
use crate::error::Result;
use crate::extract::{IdempotencyKey, Path, Posted};
use crate::problem::Problems;
use crate::state::{ApiState, Shared};

pub(super) fn routes() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::default()
        .routes(routes!(list, add))
        .routes(routes!(remove))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct TaskPath {
    /// The task's id.
    id: TaskId,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct ReminderPath {
    /// The task's id.
    id: TaskId,
    /// The reminder's id.
    reminder_id: ReminderId,
}

/// List a task's reminders
#[utoipa::path(
    get, path = "/tasks/{id}/reminders", tag = "reminders", operation_id = "list_task_reminders",
    params(TaskPath),
    responses((status = 200, description = "All of them.", body = Items<Reminder>), Problems),
)]
async fn list(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<TaskPath>,
) -> Result<Response> {
    let mut conn = api.pool.acquire().await?;
    let items = reminder::list(&mut conn, &caller.user, path.id).await?;
    Answer::ok(Items { items }).send()
}

/// Add a reminder to a task
///
/// It is a change of the task: the task's version rises.
#[utoipa::path(
    post, path = "/tasks/{id}/reminders", tag = "reminders", operation_id = "add_task_reminder",
    params(TaskPath, IdempotencyKey),
    request_body = ReminderInput,
    responses(
        (status = 201, description = "The reminder.", body = Reminder, headers(("Location" = String, description = "The reminder's path."))),
        Problems,
    ),
)]
async fn add(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    Path(path): Path<TaskPath>,
    posted: Posted<ReminderInput>,
) -> Result<Response> {
    let mut work = match idempotency::begin(&api.pool, &caller.user, posted.key, Some(path.id)).await? {
        Begun::Fresh(work) => work,
        Begun::Replay(answer) => return Ok(replay(&answer)),
    };
    let reminder = reminder::add(&mut work.tx, &caller, path.id, posted.body).await?;
    let response = Answer::created(&uri, reminder.id, &reminder).finish(work).await?;
    api.reminders_changed();
    Ok(response)
}

/// Remove a reminder from its task
///
/// It is a change of the task: the task's version rises.
#[utoipa::path(
    delete, path = "/tasks/{id}/reminders/{reminder_id}", tag = "reminders", operation_id = "remove_task_reminder",
    params(ReminderPath),
    responses((status = 204, description = "It is gone."), Problems),
)]
async fn remove(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<ReminderPath>,
) -> Result<Response> {
    let mut tx = api.pool.begin().await?;
    reminder::remove(&mut tx, &caller, path.id, path.reminder_id).await?;
    tx.commit().await?;
    api.reminders_changed();
    Ok(no_content())
}
