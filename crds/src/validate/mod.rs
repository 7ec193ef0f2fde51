//! What makes a resource valid: the schema, the CEL rules again in Rust, and what CEL cannot say.
//!
//! One answer for `todo up` and for the operator: [`TodoPlatform::validate`] and [`RecurringSchedule::validate`]. Every
//! problem names its field by the path that the manifest has. The parts: `platform`, `schedule`, and `names` for host
//! names and the like.

mod names;
mod platform;
mod schedule;

use serde_json::Value;

use crate::platform::TodoPlatform;
use crate::schedule::RecurringSchedule;
use crate::schema;

/// One thing that is wrong with a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field's path, such as `spec.schedule.cron` or `spec.template.reminders[0].before`.
    pub path: String,
    /// What is wrong; what is allowed. One line, in lower case.
    pub message: String,
    /// Whether the field's name is at fault, not its value.
    pub(crate) at_name: bool,
}

impl Problem {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            at_name: false,
        }
    }

    pub(crate) fn at_name(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            at_name: true,
            ..Self::new(path, message)
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.path, self.message)
    }
}

impl TodoPlatform {
    /// What is wrong with the platform: all that the schema refuses, else all that the rules refuse. Empty when it is valid.
    pub fn validate(&self) -> Vec<Problem> {
        check(self, &schema::PLATFORM, Self::rules)
    }
}

impl RecurringSchedule {
    /// What is wrong with the schedule: all that the schema refuses, else all that the rules refuse. Empty when it is valid.
    pub fn validate(&self) -> Vec<Problem> {
        check(self, &schema::SCHEDULE, Self::rules)
    }
}

fn check<T: serde::Serialize>(resource: &T, schema: &Value, rules: fn(&T, &mut Vec<Problem>)) -> Vec<Problem> {
    let mut problems = Vec::new();
    let value = serde_json::to_value(resource).expect("a resource is plain data");
    schema::check(schema, &value, "", &mut problems);
    if problems.is_empty() {
        rules(resource, &mut problems);
    }
    problems
}

/// How many of these are given.
fn given<const N: usize>(fields: [bool; N]) -> usize {
    fields.into_iter().filter(|given| *given).count()
}
