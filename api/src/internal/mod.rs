//! What the platform's own parts ask of the API: routes under `/internal/v1`, for the operator.
//!
//! They exist only in a process that was given an internal key, and open only to who shows it; a user's token does
//! nothing here, and the key nothing elsewhere. They act for any user, so they are in no document for users and belong
//! behind no ingress.
//!
//! What lives here: the schedules that resources of a cluster declare. What does not: what becomes of a declaration
//! (`todo-tasks`), and the resources (the operator).

mod schedules;

use std::sync::Arc;

use axum::Router;

use crate::state::ApiState;

/// All of them, as they stand under `/internal/v1`.
pub(crate) fn routes() -> Router<Arc<ApiState>> {
    schedules::routes()
}
