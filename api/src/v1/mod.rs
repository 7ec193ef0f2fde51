//! The routes of version 1, as they stand under `/api/v1` and under `/api/{user_id}`.
//!
//! One file for each resource. A handler takes what `extract` made of the request, calls one command or query of the
//! domain, and answers; its OpenAPI entry stands right above it.
//!
//! A command runs in a transaction that [`begin`](todo_tasks::idempotency::begin) opens: with an idempotency key its
//! answer is committed together with its effect, and a failed request keeps nothing, so that it may be sent again.

mod conversations;
mod notifications;
mod patch;
mod schedules;
mod task_reminders;
mod tasks;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::state::ApiState;

/// All of them.
pub(crate) fn routes() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::default()
        .merge(tasks::routes())
        .merge(task_reminders::routes())
        .merge(schedules::routes())
        .merge(notifications::routes())
        .merge(conversations::routes())
}
