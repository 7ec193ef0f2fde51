//! What can go wrong between the operator and a cluster, and what kind of wrong it is.
//!
//! Here: one error for the whole crate ([`Error`]), made of a failed [`Call`], and its [`Class`], which decides how soon
//! the same thing is tried again, how loudly it is told, and what it counts as. Not here: how a problem shows in a
//! status, and what a manifest got wrong.
//!
//! No error holds a secret: what an API server says about a `Secret` may quote its values, and is dropped.

use std::fmt;
use std::time::Duration;

use kube::core::Status;

use crate::child::{ChildKey, Kind};
use crate::lease::NotLeading;

/// How much of an API server's message is kept, in bytes.
const LONGEST_MESSAGE: usize = 512;

/// What kind of wrong an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Someone else was faster, or something is on its way out. The next look settles it; nobody need be told.
    Conflict,
    /// The API server does not answer, not now, or asks for patience.
    Unavailable,
    /// The operator may not. Someone has to change a role, a quota or a policy.
    Denied,
    /// The API server refuses what was sent. It will again, until the manifest or the cluster changes.
    Invalid,
    /// The name is taken by an object of someone else.
    NotOurs,
    /// The operator itself is wrong.
    Bug,
}

impl Class {
    /// The label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::NotOurs => "not_ours",
            Self::Bug => "bug",
        }
    }
}

/// A request to the API server: what was done to what. It is what errors tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call(Box<Parts>);

/// Behind a pointer, so that an error stays small to hand on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parts {
    verb: &'static str,
    resource: String,
    namespace: String,
    name: String,
}

impl Call {
    /// `verb` is a role's (`get`, `list`, `create`, `patch`, …), `resource` a role's too, with the group behind it:
    /// `secrets`, `deployments.apps`. `namespace` and `name` may be empty.
    pub fn new(verb: &'static str, resource: impl Into<String>, namespace: &str, name: &str) -> Self {
        Self(Box::new(Parts {
            verb,
            resource: resource.into(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }))
    }

    /// `verb` on a child.
    pub fn on(verb: &'static str, key: &ChildKey) -> Self {
        Self::new(verb, key.kind.resource_name(), &key.namespace, &key.name)
    }

    fn is_about_secrets(&self) -> bool {
        self.0.resource == "secrets"
    }

    /// The error of this call.
    pub fn failed(self, error: kube::Error) -> Error {
        let message = match error {
            kube::Error::Api(status) => return self.refused(&status),
            kube::Error::Service(source) if source.is::<NotLeading>() => return Error::NotLeading,
            kube::Error::SerdeError(_) if self.is_about_secrets() => {
                return self.bug("the answer is not what the API promises");
            }
            // Its own words for these say that there was an error.
            kube::Error::Service(source) => chain(source.as_ref()),
            kube::Error::HyperError(source) => chain(&source),
            error @ (kube::Error::SerdeError(_)
            | kube::Error::BuildRequest(_)
            | kube::Error::HttpError(_)
            | kube::Error::FromUtf8(_)) => return self.bug(&error.to_string()),
            error => chain(&error),
        };
        Error::Unavailable {
            call: self,
            message,
            retry_after: None,
        }
    }

    /// The error of this call when it took too long.
    pub fn timed_out(self, after: Duration) -> Error {
        Error::Unavailable {
            call: self,
            message: format!("no answer within {} s", after.as_secs_f32()),
            retry_after: None,
        }
    }

    fn bug(self, message: &str) -> Error {
        Error::Bug {
            call: self,
            message: bounded(message),
        }
    }

    fn refused(self, status: &Status) -> Error {
        let details = status.details.as_ref();
        let causes = details.map(|details| details.causes.as_slice()).unwrap_or_default();
        let message = if self.is_about_secrets() && !matches!(status.code, 401 | 403 | 404) {
            let reason = if status.reason.is_empty() {
                "refused"
            } else {
                &status.reason
            };
            format!("{reason} ({})", status.code)
        } else {
            bounded(&status.message)
        };
        match status.code {
            403 if causes.iter().any(|cause| cause.reason == "NamespaceTerminating") => {
                Error::Terminating { object: self.object() }
            }
            // What the API server's authoriser says, and neither admission nor quota does.
            403 if status.message.contains(" cannot ") && status.message.contains("in API group") => {
                Error::Denied { call: self }
            }
            401 | 403 => Error::Refused { call: self, message },
            404 => Error::NotFound { call: self, message },
            409 | 410 | 412 => Error::Conflict { object: self.object() },
            422 => {
                let immutable = causes.iter().find(|cause| is_immutable(&cause.message));
                match immutable {
                    Some(cause) => Error::Immutable {
                        object: self.object(),
                        field: cause.field.clone(),
                    },
                    None => Error::Invalid { call: self, message },
                }
            }
            400 | 405 | 413 | 415 => Error::Invalid { call: self, message },
            code => {
                let seconds = details.map_or(0, |details| details.retry_after_seconds);
                let seconds = if code == 429 { seconds.max(1) } else { seconds };
                Error::Unavailable {
                    call: self,
                    message,
                    retry_after: (seconds > 0).then(|| Duration::from_secs(seconds.into())),
                }
            }
        }
    }

    fn object(&self) -> String {
        [&self.0.resource, &self.0.namespace, &self.0.name]
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("/")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.0.verb, self.object())
    }
}

/// How the API server words that a field keeps its first value. There is no reason in its answer that says so alone.
fn is_immutable(message: &str) -> bool {
    [
        "immutable",
        "may not change once set",
        "may not be changed",
        "updates to statefulset spec",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// The text, cut to what is kept.
fn bounded(text: &str) -> String {
    if text.len() <= LONGEST_MESSAGE {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(LONGEST_MESSAGE);
    format!("{}…", &text[..end])
}

/// An error and what caused it. The outer ones of HTTP say little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    bounded(&text)
}

/// Why something between the operator and a cluster did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object changed between the look at it and the write.
    #[error("{object} was changed or replaced by someone else at the same time")]
    Conflict {
        /// `RESOURCE/NAMESPACE/NAME`
        object: String,
    },
    /// The object, or its namespace, is on its way out.
    #[error("{object} is being deleted: it is made again when it is gone, if its namespace stays")]
    Terminating {
        /// `RESOURCE/NAMESPACE/NAME`
        object: String,
    },
    /// Another process leads.
    #[error("this process does not lead, so it writes nothing")]
    NotLeading,
    /// The API server did not answer, or not now.
    #[error("{call} did not work: {message}")]
    Unavailable {
        /// What was tried.
        call: Call,
        /// Why it did not work.
        message: String,
        /// How long the API server asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The operator's role does not allow it.
    #[error("{call} is not allowed: give the operator's role the verb {} on {}{}", call.0.verb, call.0.resource, within(call))]
    Denied {
        /// What was tried.
        call: Call,
    },
    /// A policy, a quota or an admission webhook does not allow it.
    #[error("{call} was refused: {message}")]
    Refused {
        /// What was tried.
        call: Call,
        /// What the API server says.
        message: String,
    },
    /// What the call needs is not there: the object, or the namespace or the kind of one that was to be made.
    #[error("{call} found nothing there: {message}")]
    NotFound {
        /// What was tried.
        call: Call,
        /// What the API server says.
        message: String,
    },
    /// The API server does not take what was sent.
    #[error("{call} is invalid: {message}")]
    Invalid {
        /// What was tried.
        call: Call,
        /// What the API server says.
        message: String,
    },
    /// A field that keeps its first value was to get another.
    #[error("{object}: {field} cannot be changed. delete the object to have it made anew, or take the change back")]
    Immutable {
        /// `RESOURCE/NAMESPACE/NAME`
        object: String,
        /// The field, as the API server names it.
        field: String,
    },
    /// The name is taken.
    #[error("{object} is there and not this platform's: it {owner}. rename the platform, or remove that object")]
    NotOurs {
        /// What has the name.
        object: ChildKey,
        /// Whose it is, as the rest of a sentence.
        owner: String,
    },
    /// The cluster has no such kind, or no more.
    #[error("this cluster does not serve {}: install what brings it", .0.resource_name())]
    NotServed(Kind),
    /// A platform's own processes did not do what they were asked for. The text says what and why.
    #[error("{0}")]
    Platform(String),
    /// The operator sent or read what cannot be.
    #[error("{call} failed by a mistake in the operator: {message}")]
    Bug {
        /// What was tried.
        call: Call,
        /// What is wrong.
        message: String,
    },
}

fn within(call: &Call) -> String {
    if call.0.namespace.is_empty() {
        String::new()
    } else {
        format!(" in the namespace {}", call.0.namespace)
    }
}

impl Error {
    /// What kind of wrong this is.
    pub const fn class(&self) -> Class {
        match self {
            Self::Conflict { .. } | Self::Terminating { .. } | Self::NotLeading => Class::Conflict,
            Self::Unavailable { .. } | Self::NotServed(_) | Self::Platform(_) => Class::Unavailable,
            Self::Denied { .. } | Self::Refused { .. } => Class::Denied,
            Self::NotFound { .. } | Self::Invalid { .. } | Self::Immutable { .. } => Class::Invalid,
            Self::NotOurs { .. } => Class::NotOurs,
            Self::Bug { .. } => Class::Bug,
        }
    }

    /// How long the API server asks to be left alone.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether what was asked for is simply not there.
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// What this crate's functions answer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    fn status(code: u16, reason: &str, message: &str) -> kube::Error {
        kube::Error::Api(Status::failure(message, reason).with_code(code).boxed())
    }

    fn with_cause(code: u16, cause: StatusCause) -> kube::Error {
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: vec![cause],
            retry_after_seconds: 0,
        };
        let status = Status::failure("no", "Invalid").with_code(code).with_details(details);
        kube::Error::Api(status.boxed())
    }

    fn patch(error: kube::Error) -> Error {
        Call::new("patch", "deployments.apps", "shop", "todo-api").failed(error)
    }

    #[test]
    fn each_answer_is_of_the_class_that_says_when_to_try_again() {
        for (code, reason, class) in [
            (400, "BadRequest", Class::Invalid),
            (401, "Unauthorized", Class::Denied),
            (404, "NotFound", Class::Invalid),
            (409, "Conflict", Class::Conflict),
            (410, "Expired", Class::Conflict),
            (422, "Invalid", Class::Invalid),
            (429, "TooManyRequests", Class::Unavailable),
            (500, "InternalError", Class::Unavailable),
            (503, "ServiceUnavailable", Class::Unavailable),
            (504, "Timeout", Class::Unavailable),
        ] {
            assert_eq!(patch(status(code, reason, "no")).class(), class, "{code}");
        }
        let lost = kube::Error::ReadEvents(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert_eq!(patch(lost).class(), Class::Unavailable);
        assert_eq!(
            patch(kube::Error::Service(Box::new(NotLeading))).class(),
            Class::Conflict
        );
    }

    #[test]
    fn a_role_that_lacks_a_verb_is_told_from_a_quota() {
        let rbac = "deployments.apps \"todo-api\" is forbidden: User \"system:serviceaccount:a:b\" cannot patch resource \
                    \"deployments\" in API group \"apps\" in the namespace \"shop\"";
        let denied = patch(status(403, "Forbidden", rbac));
        assert_eq!(
            denied.to_string(),
            "patch deployments.apps/shop/todo-api is not allowed: give the operator's role the verb patch on \
             deployments.apps in the namespace shop"
        );
        let quota = "deployments.apps \"todo-api\" is forbidden: exceeded quota: small";
        assert_eq!(
            patch(status(403, "Forbidden", quota)).to_string(),
            format!("patch deployments.apps/shop/todo-api was refused: {quota}")
        );
        let terminating = with_cause(
            403,
            StatusCause {
                reason: "NamespaceTerminating".into(),
                message: String::new(),
                field: String::new(),
            },
        );
        assert_eq!(patch(terminating).class(), Class::Conflict);
    }

    #[test]
    fn a_field_that_cannot_change_is_named() {
        let cause = StatusCause {
            reason: "FieldValueInvalid".into(),
            message: "Invalid value: {…}: field is immutable".into(),
            field: "spec.template".into(),
        };
        assert_eq!(
            patch(with_cause(422, cause)).to_string(),
            "deployments.apps/shop/todo-api: spec.template cannot be changed. delete the object to have it made anew, \
             or take the change back"
        );
    }

    #[test]
    fn the_wait_that_the_api_server_asks_for_is_kept() {
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: vec![],
            retry_after_seconds: 7,
        };
        let asked = Status::failure("no", "TooManyRequests")
            .with_code(429)
            .with_details(details);
        let waits = patch(kube::Error::Api(asked.boxed())).retry_after();
        assert_eq!(waits, Some(Duration::from_secs(7)));
        assert_eq!(
            patch(status(429, "", "Too many requests")).retry_after(),
            Some(Duration::from_secs(1))
        );
        assert_eq!(patch(status(500, "", "")).retry_after(), None);
    }

    #[test]
    fn no_value_of_a_secret_is_repeated() {
        let quoted = status(
            422,
            "Invalid",
            "Secret \"x\" is invalid: data[a]: Invalid value: \"hunter2\"",
        );
        let said = Call::new("patch", "secrets", "shop", "x").failed(quoted).to_string();
        assert_eq!(said, "patch secrets/shop/x is invalid: Invalid (422)");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let said = bounded(&"ü".repeat(LONGEST_MESSAGE));
        assert!(said.len() <= LONGEST_MESSAGE + '…'.len_utf8() && said.ends_with("ü…"));
    }
}
