//! HTTP in: the REST API over the domain's commands and queries, and who may call it.
//!
//! What lives here: routes, authentication, rate limits, how requests become domain types and results become
//! answers, the OpenAPI document. What does not: rules about tasks and SQL of the domain (`todo-tasks`), and
//! starting a process (`todo`).
//!
//! How a request walks through:
//!
//! 1. [`serve`] accepts the connection and hands the request to the [`router`].
//! 2. `envelope` gives it an id, a trace and a time limit, counts it, and in the end turns whatever went wrong into
//!    `application/problem+json`.
//! 3. `auth` finds out who calls, refuses a foreign `/api/{user_id}/…`, and applies the user's rate limit.
//! 4. `extract` parses path, query, headers and body into domain types, or names the field that is wrong.
//! 5. A handler in `v1`, or for the platform's own parts in `internal`, calls one command or query, commits, and wakes whoever waits for its effect.
//! 6. `answer` writes the result: body, `ETag`, `Location`, `Link`.

mod answer;
mod auth;
mod config;
mod docs;
mod envelope;
mod error;
mod extract;
mod health;
mod internal;
mod metrics;
mod problem;
mod rate_limit;
mod router;
mod serve;
mod starting;
mod state;
pub mod token;
mod trace;
mod v1;

pub use auth::{InternalKeys, TokenSecrets};
pub use config::{ApiConfig, AuthConfig, RateLimit};
pub use docs::{openapi, openapi_json};
pub use error::Error;
pub use health::{Readiness, operations};
pub use metrics::install as install_metrics;
pub use metrics_exporter_prometheus::PrometheusHandle;
pub use router::router;
pub use serve::serve;
pub use starting::Starting;
pub use state::ApiState;
pub use trace::trace_requests;
