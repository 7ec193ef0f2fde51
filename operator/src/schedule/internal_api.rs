//! The internal API of a platform, as the operator calls it.
//!
//! Here: the three calls, what they answer, and what their failures mean. Not here: when they are made.
//!
//! A platform is reached at its Service, or through a sidecar of the operator's own where both have one (then with mutual
//! TLS between them), or, for an operator outside of the cluster, at one fixed address.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use todo_crds::DeclaredSchedule;

use crate::names::{Component, Names};

/// A call that takes longer has failed: everything behind it is one transaction.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer that is read: a page of states is far smaller.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// How platforms are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Within the cluster: at the Service of each.
    Cluster {
        /// The domain of services: `cluster.local` in most.
        domain: String,
        /// Where the operator's own sidecar listens, when it has one (`http://127.0.0.1:3500/`): what has a sidecar too
        /// is reached through both, with mutual TLS.
        sidecar: Option<Url>,
    },
    /// All at one address: an operator outside of the cluster, with one platform.
    Fixed(Url),
}

impl Route {
    fn url(&self, platform: &Names, access: &Access, path: &str) -> Result<Url, CallError> {
        let namespace = &platform.namespace;
        let base = match self {
            Self::Cluster {
                sidecar: Some(sidecar), ..
            } if access.has_sidecar => {
                let app = platform.component(Component::Api);
                format!("{sidecar}v1.0/invoke/{app}.{namespace}/method/")
            }
            Self::Cluster { domain, .. } => {
                let service = platform.api_service();
                format!("http://{service}.{namespace}.svc.{domain}/")
            }
            Self::Fixed(base) => base.to_string(),
        };
        let url = format!("{base}internal/v1/schedules{path}");
        Url::parse(&url).map_err(|error| CallError::Bug(format!("{url} is no URL: {error}")))
    }
}

/// What it takes to come at a platform's internal API.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// The key that is in force.
    pub key: String,
    /// The one before the last rotation: a process may not have read the newest yet.
    pub previous: Option<String>,
    /// Whether a sidecar stands before its API.
    pub has_sidecar: bool,
}

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Access");
        shown.field("has_sidecar", &self.has_sidecar).finish_non_exhaustive()
    }
}

/// A schedule as its platform has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct State {
    /// The UID of the resource.
    pub uid: String,
    /// `NAMESPACE/NAME` of the resource.
    pub origin: String,
    /// The hash of what was declared; `None` when somebody has changed it since.
    pub hash: Option<String>,
    /// Whether its user has deleted it.
    pub deleted: bool,
    /// Whether its user was ever seen.
    pub user_known: bool,
    /// Whether it makes no tasks for now.
    pub suspended: bool,
    /// Whether its rule has no further occurrence.
    pub ended: bool,
    /// Why it makes no tasks, when the platform cannot read its rule.
    pub problem: Option<String>,
    /// The next occurrence.
    pub next_at: Option<Timestamp>,
    /// The last occurrence whose task was made.
    pub last_at: Option<Timestamp>,
    /// How many tasks were made.
    pub made: i64,
    /// How many occurrences were not made up for.
    pub missed: i64,
    /// How many were skipped because the task before was open.
    pub skipped: i64,
}

/// What has changed since a cursor.
#[derive(Clone, Debug, Deserialize)]
pub struct Changes {
    /// The schedules that changed, each once.
    pub items: Vec<State>,
    /// Where to go on.
    pub cursor: String,
    /// Whether there is more already.
    pub has_more: bool,
}

/// Why a call did not do what it was to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The resource is not valid: each field with what is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Neither key is taken.
    #[error("the platform does not take the internal key yet")]
    Unauthorized,
    /// The platform has no internal API: an older version, or none that runs.
    #[error("the platform has no internal API: version 0.1.0 or newer has one")]
    NotServed,
    /// The platform cannot be reached, or cannot answer now.
    #[error("the platform's API cannot be reached: {0}")]
    Unavailable(String),
    /// The call was not understood, or its answer was not.
    #[error("the platform's API gave an unexpected answer: {0}")]
    Bug(String),
}

/// A caller of internal APIs.
#[derive(Clone, Debug)]
pub struct InternalApi {
    http: reqwest::Client,
    route: Route,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<FieldProblem>,
}

#[derive(Deserialize)]
struct FieldProblem {
    field: String,
    message: String,
}

impl InternalApi {
    /// A caller on this route.
    ///
    /// # Errors
    /// When the route is HTTPS and this machine has no certificates of authorities.
    pub fn new(route: Route) -> Result<Self, CallError> {
        let mut builder = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if !matches!(&route, Route::Fixed(url) if url.scheme() == "https") {
            // A machine without any certificates is no reason not to talk without TLS.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(|error| {
            let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            CallError::Bug(format!("no HTTPS client can be made: {why}"))
        })?;
        Ok(Self { http, route })
    }

    /// Makes the schedule with this UID what is declared. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`CallError`], `Invalid` among them.
    pub async fn put(
        &self,
        platform: &Names,
        access: &Access,
        uid: &str,
        declared: &DeclaredSchedule,
    ) -> Result<State, CallError> {
        let url = self.route.url(platform, access, &format!("/{uid}"))?;
        let answer = self.call(access, |key| self.http.put(url.clone()).bearer_auth(key).json(declared));
        read(answer.await?).await
    }

    /// Deletes the schedule with this UID, if there is one. Its tasks stay.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn delete(&self, platform: &Names, access: &Access, uid: &str) -> Result<(), CallError> {
        let url = self.route.url(platform, access, &format!("/{uid}"))?;
        self.call(access, |key| self.http.delete(url.clone()).bearer_auth(key))
            .await?;
        Ok(())
    }

    /// What has changed since `cursor`; everything without one.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn changes(&self, platform: &Names, access: &Access, cursor: Option<&str>) -> Result<Changes, CallError> {
        let url = self.route.url(platform, access, "")?;
        let after = cursor.map(|cursor| ("after", cursor));
        let answer = self.call(access, |key| {
            let query: Vec<_> = after.into_iter().collect();
            self.http.get(url.clone()).query(&query).bearer_auth(key)
        });
        read(answer.await?).await
    }

    /// Calls with the newest key, and with the one before it when that is not known yet.
    async fn call(
        &self,
        access: &Access,
        request: impl Fn(&str) -> reqwest::RequestBuilder,
    ) -> Result<Response, CallError> {
        let mut answer = send(request(&access.key)).await?;
        if let Some(previous) = access
            .previous
            .as_deref()
            .filter(|_| answer.status() == StatusCode::UNAUTHORIZED)
        {
            answer = send(request(previous)).await?;
        }
        let status = answer.status();
        match status {
            _ if status.is_success() => Ok(answer),
            StatusCode::UNAUTHORIZED => Err(CallError::Unauthorized),
            StatusCode::NOT_FOUND => Err(CallError::NotServed),
            StatusCode::UNPROCESSABLE_ENTITY => Err(CallError::Invalid(reasons(answer).await?)),
            _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(CallError::Unavailable(format!("it answers {status}")))
            }
            _ => Err(CallError::Bug(format!("{status}"))),
        }
    }
}

async fn send(request: reqwest::RequestBuilder) -> Result<Response, CallError> {
    // The address says nothing that the resource does not, and never holds the key.
    request
        .send()
        .await
        .map_err(|error| CallError::Unavailable(error.without_url().to_string()))
}

async fn body(mut answer: Response) -> Result<Vec<u8>, CallError> {
    let mut bytes = vec![];
    let failed = |error: reqwest::Error| CallError::Unavailable(error.without_url().to_string());
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if bytes.len() + chunk.len() > MAX_ANSWER {
            return Err(CallError::Bug(format!("its answer has more than {MAX_ANSWER} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn read<T: for<'de> Deserialize<'de>>(answer: Response) -> Result<T, CallError> {
    serde_json::from_slice(&body(answer).await?).map_err(|error| CallError::Bug(error.to_string()))
}

/// The fields of an RFC 9457 problem, each with what is wrong with it.
async fn reasons(answer: Response) -> Result<String, CallError> {
    let problem: Problem = read(answer).await?;
    if problem.errors.is_empty() {
        return Ok(problem.detail);
    }
    let fields = problem
        .errors
        .iter()
        .map(|error| format!("{}: {}", error.field, error.message));
    Ok(fields.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sidecars_are_the_way_only_where_both_have_one() {
        let platform = Names {
            namespace: "shop".to_owned(),
            platform: "acme".to_owned(),
        };
        let way = |sidecar: Option<&str>, has_sidecar: bool| {
            let route = Route::Cluster {
                domain: "cluster.local".to_owned(),
                sidecar: sidecar.map(|url| Url::parse(url).unwrap()),
            };
            let access = Access {
                key: "key".to_owned(),
                previous: None,
                has_sidecar,
            };
            route.url(&platform, &access, "/1").unwrap().to_string()
        };
        let service = "http://acme-api.shop.svc.cluster.local/internal/v1/schedules/1";
        assert_eq!(way(None, true), service);
        assert_eq!(way(Some("http://127.0.0.1:3500"), false), service);
        assert_eq!(
            way(Some("http://127.0.0.1:3500"), true),
            "http://127.0.0.1:3500/v1.0/invoke/acme-api.shop/method/internal/v1/schedules/1"
        );
    }
}
