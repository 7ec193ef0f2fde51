//! How a command fails: one clear line on standard error, and an exit code that says whose turn it is.

use std::fmt;
use std::process::ExitCode;

/// The user's input cannot be used: what they gave is named in the lines, nothing was changed. Exit code 2.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Vec<String>);

impl Refused {
    /// Refused for one reason.
    pub(crate) fn because(reason: impl fmt::Display) -> anyhow::Error {
        Self(vec![reason.to_string()]).into()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Refused {}

/// Prints the failure. 2 for what the user can mend in their input, 1 for the rest.
#[allow(clippy::needless_pass_by_value, reason = "the end of the error's life")]
pub(crate) fn report(error: anyhow::Error) -> ExitCode {
    if let Some(refused) = error.downcast_ref::<Refused>() {
        for line in &refused.0 {
            eprintln!("todo: {line}");
        }
        return ExitCode::from(2);
    }
    // The chain of causes on one line.
    eprintln!("todo: {error:#}");
    ExitCode::FAILURE
}
