//! How soon the operator does by itself what nobody tells it to. What is told is done at once.

use std::time::Duration;

/// How soon the operator does by itself what nobody tells it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How often everything that is watched is listed anew, and each platform looked at. Each time is drawn anew, a
    /// fifth shorter or longer, so that they do not meet.
    ///
    /// A watch numbers no events, so nobody can tell that one was lost on the way: this is how long it may go unnoticed.
    pub look_anew: Duration,
    /// How long what is outside of a platform's namespace may take to go with it. Who would delete it may be gone
    /// themselves, and the platform must not hang on that.
    pub let_go: Duration,
    /// How soon it is looked again while it is on its way out.
    pub look_again: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            look_anew: Duration::from_mins(20),
            let_go: Duration::from_mins(5),
            look_again: Duration::from_secs(15),
        }
    }
}

/// So long, a fifth shorter or longer.
pub(crate) fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.8..1.2))
}
