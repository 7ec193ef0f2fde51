//! Whether the process lives, and whether it may get requests.

use std::time::Duration;

use axum::extract::State;

use crate::error::{Error, Result};
use crate::state::Shared;

/// How long the database may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// `GET /healthz`: the process answers. It looks at nothing else, or a database that is away for a moment would make
/// a cluster restart every pod.
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the database answers, and nothing else that the process knows of stands in the way.
pub(crate) async fn ready(State(api): Shared) -> Result<&'static str> {
    let asked = sqlx::query("SELECT 1").execute(&api.pool);
    let answered = tokio::time::timeout(PATIENCE, asked)
        .await
        .is_ok_and(|answer| answer.is_ok());
    if !answered {
        return Err(Error::NotReady("the database does not answer".to_owned()));
    }
    if let Some(check) = &api.ready_check {
        check().await.map_err(Error::NotReady)?;
    }
    Ok("ok\n")
}
