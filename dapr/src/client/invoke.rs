//! Calls of other apps.

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Answer, Call, Client};
use crate::Error;

/// A call of another app, through its sidecar.
///
/// Make it idempotent whatever its method is: the sidecars try it again by themselves.
#[derive(Debug, Clone)]
pub struct Invocation<'a> {
    /// The app's id.
    pub app: &'a str,
    /// The HTTP method.
    pub method: Method,
    /// The path that the app serves, such as `/internal/tasks`.
    pub path: &'a str,
    /// The query.
    pub query: &'a [(&'a str, &'a str)],
    /// The body, sent as JSON.
    pub body: Option<&'a Value>,
}

/// What the other app answered, success or not.
#[derive(Debug, Clone)]
pub struct InvocationAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

impl InvocationAnswer {
    /// Reads the body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::UnexpectedAnswer(error.to_string()))
    }
}

impl Client {
    /// Calls another app. `Ok` is whatever the app answered; an error says that the call did not get there, or
    /// that its answer did not get back.
    pub async fn invoke(&self, invocation: &Invocation<'_>) -> Result<InvocationAnswer, Error> {
        let path: Vec<&str> = ["v1.0", "invoke", invocation.app, "method"]
            .into_iter()
            .chain(invocation.path.trim_start_matches('/').split('/'))
            .collect();
        let method = invocation.method.clone();
        let idempotent = method.is_idempotent();
        let mut call = Call::new("invoke", method, &path).idempotent(idempotent);
        call.query = invocation
            .query
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        // What the app answers is the caller's to judge.
        call.is_final = |refusal| !is_daprs_own(refusal.code.as_deref());
        if let Some(body) = invocation.body {
            call = call.json(body)?;
        }
        let answer = self.send(&call).await?;
        if answer.status.is_success() || !is_daprs_own(answer.refusal().code.as_deref()) {
            let Answer { status, body, .. } = answer;
            return Ok(InvocationAnswer { status, body });
        }
        Err(Error::Refused(answer.refusal()))
    }
}

/// Whether an error comes from a sidecar rather than from the app. Only its code tells.
fn is_daprs_own(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.starts_with("ERR_DIRECT_INVOKE"))
}
