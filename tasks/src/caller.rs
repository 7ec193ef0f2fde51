//! On whose behalf a command runs.

use crate::id::UserId;

/// Whose data a command touches, who is doing it, and the trace that it belongs to.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose data: every query of a command is bound to this user.
    pub user: UserId,
    /// Who acts, as the audit log shows it: a user's id, or `system:ROLE`.
    pub actor: String,
    /// W3C `traceparent` of the request, carried on into the event.
    pub traceparent: Option<String>,
}

impl Caller {
    /// The user acts on their own data.
    pub fn user(user: UserId, traceparent: Option<String>) -> Self {
        Self {
            actor: user.to_string(),
            user,
            traceparent,
        }
    }

    /// A role of the platform acts for the user, e.g. `system:recurring`.
    pub fn system(role: &str, user: UserId) -> Self {
        Self {
            actor: format!("system:{role}"),
            user,
            traceparent: None,
        }
    }
}
