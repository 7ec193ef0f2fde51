//! The crate's errors: what is wrong with a rule's text, and which field of a specification holds it.

/// What is wrong with one rule, zone or duration.
///
/// Messages are one line in lower case, name the part that is wrong and say what is allowed there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name is not in the bundled IANA time zone database.
    #[error("unknown time zone {0:?}; use an IANA name such as Europe/Berlin or UTC")]
    TimeZone(String),
    /// A cron expression that cannot be read.
    #[error("{0}")]
    Cron(String),
    /// An RRULE, or a line of an iCalendar block, that cannot be read or is not allowed.
    #[error("{0}")]
    Rrule(String),
    /// An `every` interval that cannot be read.
    #[error("{0}")]
    Every(String),
    /// The rule is well formed, but no date ever matches it.
    #[error("{0:?} can never fire: no date matches it")]
    NeverFires(String),
}

/// What is wrong with a [`ScheduleSpec`](crate::ScheduleSpec) or a [`RepeatSpec`](crate::RepeatSpec).
///
/// Callers map it to `problem+json` and to conditions: `field` is the name that the field has in those types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct SpecError {
    /// The field at fault: `cron`, `rrule`, `every`, `at`, `time_zone`, `start`, `end`, `exdates`, `rdates`, `mode`.
    pub field: &'static str,
    /// One line, in lower case: what is wrong and what is allowed.
    pub message: String,
}

impl SpecError {
    pub(crate) fn new(field: &'static str, message: &(impl ToString + ?Sized)) -> Self {
        Self {
            field,
            message: message.to_string(),
        }
    }
}

/// A user's text as it is quoted in a message: escaped, and cut so that a message stays one short line.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
    }
}
