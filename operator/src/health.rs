//! Whether the operator lives, and whether it is ready: the state behind `/livez` and `/readyz`, which are served
//! elsewhere.
//!
//! It lives while its loops turn: each beats in time or is stuck. It is ready when its caches know what there is, also on
//! the one that stands by.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::lease::Leadership;
use crate::live::Live;

/// What is known of the operator's health. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Beat>>>);

#[derive(Debug)]
struct Beat {
    last: Instant,
    within: Duration,
}

/// One loop's pulse. Dropped, the loop has ended, and is asked for no more.
#[derive(Debug)]
pub struct Pulse {
    name: &'static str,
    health: Health,
}

/// What the operator is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does the work.
    Leading,
    /// It would begin at once if the one that leads were gone.
    StandingBy,
}

impl Health {
    /// A loop that beats at least every `within`.
    pub fn pulse(&self, name: &'static str, within: Duration) -> Pulse {
        let last = Instant::now();
        self.beats().insert(name, Beat { last, within });
        Pulse {
            name,
            health: self.clone(),
        }
    }

    /// The loops that do not turn; none is how it should be.
    pub fn stuck(&self) -> Vec<&'static str> {
        let beats = self.beats();
        let stuck = beats.iter().filter(|(_, beat)| beat.last.elapsed() > beat.within);
        stuck.map(|(name, _)| *name).collect()
    }

    fn beats(&self) -> MutexGuard<'_, BTreeMap<&'static str, Beat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pulse {
    /// The loop has come round.
    pub fn beat(&self) {
        if let Some(beat) = self.health.beats().get_mut(self.name) {
            beat.last = Instant::now();
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.health.beats().remove(self.name);
    }
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
    fn a_loop_that_does_not_turn_is_named_until_it_does() {
        let health = Health::default();
        let slow = health.pulse("watch", Duration::from_millis(20));
        let _quick = health.pulse("queue", Duration::from_mins(1));
        assert!(health.stuck().is_empty());
        std::thread::sleep(Duration::from_millis(40));
        assert_eq!(health.stuck(), ["watch"]);
        slow.beat();
        assert!(health.stuck().is_empty());
        std::thread::sleep(Duration::from_millis(40));
        drop(slow);
        assert!(health.stuck().is_empty());
    }

    #[test]
    fn it_is_not_ready_before_it_knows_the_cluster() {
        let said = readiness(&Live::default(), &Leadership::undisputed()).unwrap_err();
        assert!(said.contains("first look"), "{said}");
    }
}
