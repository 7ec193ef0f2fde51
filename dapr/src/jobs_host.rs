//! What Dapr's scheduler calls when a job is due.
//!
//! A job is an alarm clock and nothing else: it may ring late, twice, for a job that was deleted, or for all the
//! times that were missed at once. So what it carries is not read, and each call is answered with success, also
//! for a name that nobody knows: to be called again would help nobody. Whoever is woken looks at the database.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;

use crate::Secret;
use crate::app_token::only_the_sidecar;

/// What is told the name of a job that is due. It must not block: the scheduler waits for it.
pub type OnJob = Arc<dyn Fn(&str) + Send + Sync>;

/// Serves `POST /job/{name}`.
#[derive(Clone)]
pub struct JobHost {
    token: Option<Secret>,
    on_job: OnJob,
}

impl JobHost {
    /// A host that tells `on_job`. `token` is what the sidecar shows as `dapr-api-token` (`APP_API_TOKEN`);
    /// without it, anyone who reaches the port can wake this process.
    pub fn new(token: Option<Secret>, on_job: OnJob) -> Self {
        Self { token, on_job }
    }

    /// The route that the sidecar calls.
    pub fn router(self) -> Router {
        let routes = Router::new().route("/job/{name}", post(ring)).with_state(self.on_job);
        only_the_sidecar(routes, self.token)
    }
}

impl fmt::Debug for JobHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JobHost").finish_non_exhaustive()
    }
}

/// Does not take the body: however large, it costs no memory.
async fn ring(State(on_job): State<OnJob>, Path(name): Path<String>) -> StatusCode {
    tracing::debug!(job = name, "a job is due");
    on_job(&name);
    StatusCode::OK
}
