//! What can go wrong in this crate, once for all its modules.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use todo_events::Topic;

/// Why a call to the sidecar failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting cannot work.
    #[error("{name} {problem}")]
    Setting {
        /// The environment variable.
        name: &'static str,
        /// What is wrong with its value, without the value.
        problem: String,
    },
    /// A name or a key that cannot be part of a path: empty, `.` or `..`.
    #[error("{0:?} cannot be a name in a path")]
    Name(String),
    /// The request was never sent: nothing happened.
    #[error("the sidecar cannot be reached: {}", innermost(.0))]
    Unreachable(#[source] reqwest::Error),
    /// No answer in time. The call may have had its effect.
    #[error("the sidecar did not answer in time")]
    TimedOut(#[source] reqwest::Error),
    /// The connection broke before the answer was whole. The call may have had its effect.
    #[error("the connection to the sidecar broke: {}", innermost(.0))]
    Broken(#[source] reqwest::Error),
    /// The sidecar, or what is behind it, says no.
    #[error("{0}")]
    Refused(Refusal),
    /// The stored value is not the one that the caller has seen, or is there when it should not be.
    #[error("the stored value is another one: {0}")]
    EtagMismatch(Refusal),
    /// There is a job of this name, and it was not to be overwritten.
    #[error("the job exists: {0}")]
    JobExists(Refusal),
    /// An answer that the sidecar's API does not have.
    #[error("unexpected answer: {0}")]
    UnexpectedAnswer(String),
    /// A broker keeps refusing some events of a batch.
    #[error("{events} events were not published to {topic}, first {event} of {bytes} bytes: {error}")]
    NotPublished {
        /// Where to.
        topic: Topic,
        /// How many failed when tried last.
        events: usize,
        /// The id of the first of them.
        event: String,
        /// How large it is, as it was given to the sidecar.
        bytes: usize,
        /// Why the first of them failed, in the broker's words.
        error: String,
    },
    /// The sidecar did not become ready.
    #[error("the sidecar was not ready within {patience:?}: {last}")]
    NotReady {
        /// How long it was waited for.
        patience: Duration,
        /// Why it was not ready when asked last.
        last: Box<Error>,
    },
}

impl Error {
    /// Whether the same call may well succeed later. Whether it is safe to make it twice is another question.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::TimedOut(_)
            | Self::Broken(_)
            | Self::NotPublished { .. }
            | Self::NotReady { .. } => true,
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::Setting { .. }
            | Self::Name(_)
            | Self::EtagMismatch(_)
            | Self::JobExists(_)
            | Self::UnexpectedAnswer(_) => false,
        }
    }

    /// What the sidecar said, if it said anything.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) | Self::EtagMismatch(refusal) | Self::JobExists(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Sorts a transport's failure by what it means for the call. Its URL is left out: keys are in it.
    pub(crate) fn transport(error: reqwest::Error) -> Self {
        let error = error.without_url();
        // A connection that could not be made in time is both; that nothing was sent counts for more.
        if error.is_connect() {
            Self::Unreachable(error)
        } else if error.is_timeout() {
            Self::TimedOut(error)
        } else {
            Self::Broken(error)
        }
    }
}

/// An answer that is an error, in Dapr's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// Dapr's error code, such as `ERR_PUBSUB_NOT_FOUND`; `None` when the answer is not in Dapr's form.
    pub code: Option<String>,
    /// Dapr's message, or the beginning of what came in its place.
    pub message: String,
}

impl Refusal {
    /// The most of a body that is not in Dapr's form, in characters.
    const MESSAGE_LENGTH: usize = 500;

    pub(crate) fn new(status: StatusCode, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body {
            #[serde(rename = "errorCode")]
            code: String,
            #[serde(default)]
            message: String,
        }
        match serde_json::from_slice::<Body>(body) {
            Ok(body) => Self {
                status,
                code: Some(body.code),
                message: body.message,
            },
            Err(_) => Self {
                status,
                code: None,
                message: String::from_utf8_lossy(body)
                    .trim()
                    .chars()
                    .take(Self::MESSAGE_LENGTH)
                    .collect(),
            },
        }
    }

    /// Whether time may mend it. Dapr answers 500 for most faults of brokers, stores and schedulers, and for a job
    /// that its scheduler will never take.
    pub fn is_retryable(&self) -> bool {
        self.status == StatusCode::REQUEST_TIMEOUT
            || self.status == StatusCode::TOO_MANY_REQUESTS
            || (self.status.is_server_error()
                && self.status != StatusCode::NOT_IMPLEMENTED
                && !self.message.contains("job failed validation"))
    }

    /// Whether this version of the sidecar does not have the path. Its router takes every other path for a call
    /// of an app, and misses the app's name; one without that fallback answers a 404 of no form.
    pub(crate) fn is_unknown_path(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && matches!(self.code.as_deref(), None | Some("ERR_DIRECT_INVOKE"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.status.as_u16())?;
        if let Some(code) = &self.code {
            write!(formatter, " {code}")?;
        }
        if !self.message.is_empty() {
            write!(formatter, ": {}", self.message)?;
        }
        Ok(())
    }
}

/// The cause of causes: "connection refused" rather than "error sending request".
fn innermost(error: &dyn StdError) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_daprs_code_and_message() {
        let body = br#"{"errorCode":"ERR_STATE_STORE_NOT_FOUND","message":"state store x is not found","details":[]}"#;
        let refusal = Refusal::new(StatusCode::BAD_REQUEST, body);
        assert_eq!(refusal.code.as_deref(), Some("ERR_STATE_STORE_NOT_FOUND"));
        assert_eq!(
            refusal.to_string(),
            "400 ERR_STATE_STORE_NOT_FOUND: state store x is not found"
        );
    }

    #[test]
    fn an_answer_of_something_else_is_kept_in_part() {
        let refusal = Refusal::new(StatusCode::BAD_GATEWAY, &[b'x'; 10_000]);
        assert_eq!(refusal.code, None);
        assert_eq!(refusal.message.len(), Refusal::MESSAGE_LENGTH);
    }

    #[test]
    fn only_what_time_may_mend_is_worth_a_retry() {
        for (status, retryable) in [
            (400, false),
            (401, false),
            (403, false),
            (404, false),
            (408, true),
            (413, false),
            (429, true),
            (500, true),
            (501, false),
            (503, true),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(Refusal::new(status, b"").is_retryable(), retryable, "{status}");
        }
    }
}
