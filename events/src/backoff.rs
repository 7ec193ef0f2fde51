//! How long to wait before trying again.

use std::time::Duration;

/// Exponential backoff with jitter, so that many processes that failed together do not return together.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// The longest first wait.
    pub first: Duration,
    /// The longest wait of all.
    pub max: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row, from 1: between half and the whole of
    /// `first · 2^(failures - 1)`, capped at `max`.
    pub fn delay(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let longest = self.first.saturating_mul(1 << doublings).min(self.max);
        longest.mul_f64(rand::random_range(0.5..=1.0))
    }
}

impl Default for Backoff {
    /// From 50 ms to 5 s.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(50),
            max: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_never_vanish() {
        let backoff = Backoff {
            first: Duration::from_millis(100),
            max: Duration::from_secs(1),
        };
        for (failures, longest) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (u32::MAX, 1000)] {
            let longest = Duration::from_millis(longest);
            for _ in 0..100 {
                let delay = backoff.delay(failures);
                assert!(delay <= longest && delay >= longest / 2, "{failures}: {delay:?}");
            }
        }
    }
}
