//! Whether the operator is ready: the state behind `/readyz`, which is served elsewhere.
//!
//! It is ready when its caches know what there is, also on the one that stands by.

use crate::lease::Leadership;
use crate::live::Live;

/// What the operator is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does the work.
    Leading,
    /// It would begin at once if the one that leads were gone.
    StandingBy,
}

/// What it is ready for; otherwise what it waits for.
pub fn readiness(live: &Live, leadership: &Leadership) -> Result<Standing, String> {
    if live.is_ready() {
        return Ok(if leadership.is_leading() {
            Standing::Leading
        } else {
            Standing::StandingBy
        });
    }
    let problems: Vec<_> = live.problems().into_values().collect();
    Err(if problems.is_empty() {
        "the first look at the cluster is not over".to_owned()
    } else {
        problems.join("; ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_ready_before_it_knows_the_cluster() {
        let said = readiness(&Live::default(), &Leadership::undisputed()).unwrap_err();
        assert!(said.contains("first look"), "{said}");
    }
}
