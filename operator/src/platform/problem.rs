//! What stands in a platform's way: found by validation, while building, or while applying.

use super::status::ConditionType;

/// One thing that stands in a platform's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The condition that it shows in. `Degraded` always lists it too.
    pub about: ConditionType,
    /// Why, in one word of the API conventions: `SecretNotFound`.
    pub reason: &'static str,
    /// What is wrong, the field that it concerns, and what to do.
    pub message: String,
    /// How far it stands in the way.
    pub severity: Severity,
}

/// How far a problem stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is amiss; something that was asked for has no effect here, such as a monitor without Prometheus.
    Note,
    /// The rest works.
    Impaired,
    /// Nothing more is applied until it is mended; what runs goes on.
    Blocking,
}
