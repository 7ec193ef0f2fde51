//! What can go wrong in a request, and the one place where it becomes HTTP.
//!
//! A handler's error becomes a response without a body that carries the [`Failure`]; the envelope, which knows the
//! request's id, writes the body and the log line. So nothing internal can leak: a body is made from what
//! [`Error::problem`] chooses to say, and from nothing else.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use todo_tasks::{Error as DomainError, Invalid};

use crate::answer::etag;
use crate::problem::{FieldError, Problem};

const PROBLEM_TYPES: &str = "https://todoplatform.dev/problems/";

/// Why there is no answer, or no API.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot work.
    #[error("{0}")]
    Config(String),
    /// No token, or one that does not hold; the text says what is wrong with it.
    #[error("{}", .0.unwrap_or("a bearer token is required"))]
    Unauthorized(Option<&'static str>),
    /// The issuer of tokens cannot be asked for its keys.
    #[error("the token's issuer cannot be reached: {0}")]
    IssuerUnreachable(String),
    /// The path names another user than the token.
    #[error("the path names another user than the token")]
    ForeignUser,
    /// The user calls too often.
    #[error("too many requests")]
    RateLimited {
        /// When the next one is welcome.
        retry_after: Duration,
    },
    /// No route has this path.
    #[error("there is nothing at this path")]
    UnknownPath,
    /// The path has no such method.
    #[error("this path does not have this method")]
    MethodNotAllowed,
    /// The body is too large.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The most that is taken, in bytes.
        limit: usize,
    },
    /// The body is of a kind that is not understood.
    #[error("the body must be {expected}, without a content encoding")]
    UnsupportedMediaType {
        /// The media types that are.
        expected: &'static str,
    },
    /// The body did not come whole, or is not JSON.
    #[error("{0}")]
    MalformedBody(String),
    /// The request took too long.
    #[error("the request took too long")]
    TimedOut,
    /// The process is not ready for requests.
    #[error("not ready: {0}")]
    NotReady(String),
    /// A handler panicked.
    #[error("panicked: {0}")]
    Panicked(String),
    /// The framework refused the request with this status.
    #[error("refused with status {0}")]
    Refused(StatusCode),
    /// A value could not be written as JSON.
    #[error("cannot write the answer: {0}")]
    Unwritable(#[from] serde_json::Error),
    /// The domain refused or failed.
    #[error(transparent)]
    Domain(#[from] DomainError),
}

/// A request's outcome.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// An error on its way from the handler to the envelope.
#[derive(Clone)]
pub(crate) struct Failure(pub(crate) Arc<Error>);

/// A kind of problem: the status, the last part of its `type`, its title.
type Kind = (StatusCode, &'static str, &'static str);

const INTERNAL: Kind = (
    StatusCode::INTERNAL_SERVER_ERROR,
    "internal",
    "Something went wrong on our side",
);
const UNAVAILABLE: Kind = (
    StatusCode::SERVICE_UNAVAILABLE,
    "unavailable",
    "Temporarily unavailable",
);
const INVALID: Kind = (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The request is not valid");
const NOT_FOUND: Kind = (StatusCode::NOT_FOUND, "not-found", "Not found");

/// A database that is away, restarting or out of connections is worth another try.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        // Classes of https://www.postgresql.org/docs/current/errcodes-appendix.html: connection, transaction
        // rollback, insufficient resources, operator intervention.
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class))),
        _ => false,
    }
}

/// What only a caller's value can cause: a date outside PostgreSQL's range, a character that text cannot hold.
fn is_unstorable(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("22008" | "22021"))
}

impl Error {
    /// `field` of the request is wrong as `message` says.
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Domain(Invalid::new(field, message).into())
    }

    /// What an answer of the framework's own means.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::UnknownPath,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            other => Self::Refused(other),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Unauthorized(_) => (StatusCode::UNAUTHORIZED, "unauthorized", "A valid token is required"),
            Self::ForeignUser => (StatusCode::FORBIDDEN, "forbidden", "Forbidden"),
            Self::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate-limited", "Too many requests"),
            Self::UnknownPath | Self::Domain(DomainError::NotFound(_)) => NOT_FOUND,
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "Method not allowed",
            ),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::UnsupportedMediaType { .. } => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "Unsupported media type",
            ),
            Self::MalformedBody(_) => (StatusCode::BAD_REQUEST, "malformed-body", "The body cannot be read"),
            Self::Refused(status) if status.is_client_error() => (*status, "refused", "The request was refused"),
            Self::Domain(DomainError::VersionMismatch { .. }) => (
                StatusCode::PRECONDITION_FAILED,
                "version-mismatch",
                "It has changed meanwhile",
            ),
            Self::Domain(DomainError::Invalid(_)) => INVALID,
            Self::Domain(DomainError::Conflict(_)) => {
                (StatusCode::CONFLICT, "conflict", "It collides with what is there")
            }
            Self::Domain(DomainError::IdempotencyKeyReused) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The key belongs to another request",
            ),
            Self::Domain(DomainError::Database(error)) if is_unstorable(error) => INVALID,
            Self::Domain(DomainError::Database(error)) if is_passing(error) => UNAVAILABLE,
            Self::TimedOut | Self::NotReady(_) | Self::IssuerUnreachable(_) => UNAVAILABLE,
            Self::Config(_) | Self::Panicked(_) | Self::Refused(_) | Self::Unwritable(_) | Self::Domain(_) => INTERNAL,
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.kind().0
    }

    /// What the caller is told.
    pub(crate) fn problem(&self, request_id: &str) -> Problem {
        let (status, slug, title) = self.kind();
        let detail = match self {
            _ if status == StatusCode::INTERNAL_SERVER_ERROR => {
                Cow::Borrowed("this is our fault and was logged; the request's id helps to find it")
            }
            Self::TimedOut | Self::NotReady(_) => self.to_string().into(),
            _ if status == StatusCode::SERVICE_UNAVAILABLE => {
                Cow::Borrowed("a part of the platform is away; try again soon")
            }
            Self::Domain(DomainError::Database(_)) => {
                Cow::Borrowed("a date lies outside of all calendars, or a text contains the character U+0000")
            }
            Self::Domain(DomainError::Invalid(invalid)) => match invalid.as_slice() {
                [only] => only.to_string().into(),
                more => format!("{} fields are wrong", more.len()).into(),
            },
            Self::Refused(_) => status.canonical_reason().unwrap_or("refused").to_lowercase().into(),
            other => other.to_string().into(),
        };
        let errors = match self {
            Self::Domain(DomainError::Invalid(invalid)) => invalid.iter().map(FieldError::from).collect(),
            Self::Domain(error @ DomainError::IdempotencyKeyReused) => {
                vec![FieldError {
                    field: "Idempotency-Key".to_owned(),
                    message: error.to_string(),
                }]
            }
            _ => Vec::new(),
        };
        Problem {
            kind: format!("{PROBLEM_TYPES}{slug}"),
            title,
            status: status.as_u16(),
            detail,
            instance: request_id.to_owned(),
            errors,
        }
    }

    /// What the caller is told in a header.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        let (name, value) = match self {
            Self::Unauthorized(None) => (header::WWW_AUTHENTICATE, r#"Bearer realm="todo""#.to_owned()),
            Self::Unauthorized(Some(reason)) => (
                header::WWW_AUTHENTICATE,
                format!(r#"Bearer realm="todo", error="invalid_token", error_description="{reason}""#),
            ),
            Self::RateLimited { retry_after } => {
                let whole_seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
                (header::RETRY_AFTER, whole_seconds.max(1).to_string())
            }
            Self::Domain(DomainError::VersionMismatch { current }) => (header::ETAG, etag(*current)),
            Self::UnsupportedMediaType { expected } => (header::ACCEPT, (*expected).to_owned()),
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => (header::RETRY_AFTER, "1".to_owned()),
            _ => return None,
        };
        HeaderValue::try_from(value).ok().map(|value| (name, value))
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        if let Some((name, value)) = self.header() {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(Failure(Arc::new(self)));
        response
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Domain(error.into())
    }
}

impl From<Vec<Invalid>> for Error {
    fn from(invalid: Vec<Invalid>) -> Self {
        Self::Domain(DomainError::Invalid(invalid))
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Domain(invalid.into())
    }
}
