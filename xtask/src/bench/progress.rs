//! How far work got, by the time since it began.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::process::wait_for;

/// What was done when.
pub(crate) struct Progress {
    samples: Vec<(Duration, u64)>,
    total: u64,
}

impl Progress {
    /// Asks `how_far` until it says `total`. `begun` is when the work began, by this process's clock.
    pub(crate) fn watch(
        begun: Instant,
        total: u64,
        pause: Duration,
        mut how_far: impl FnMut() -> Result<u64>,
    ) -> Result<Self> {
        let mut samples = Vec::new();
        wait_for("the end of the work", pause, || {
            let done = how_far()?;
            samples.push((begun.elapsed(), done));
            Ok((done >= total).then_some(()))
        })?;
        Ok(Self { samples, total })
    }

    /// When this part of the work was seen done.
    #[allow(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
    pub(crate) fn done_at(&self, part: f64) -> Duration {
        let enough = self.total as f64 * part;
        let reached = self.samples.iter().find(|(_, done)| *done as f64 >= enough);
        reached.map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// When all of it was.
    pub(crate) fn end(&self) -> Duration {
        self.done_at(1.0)
    }

    /// Pieces of work per second.
    #[allow(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
    pub(crate) fn rate(&self) -> f64 {
        self.total as f64 / self.end().as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_when_a_part_was_done() {
        let mut answers = [0, 40, 60, 100].into_iter();
        let begun = Instant::now();
        let progress = Progress::watch(begun, 100, Duration::ZERO, || Ok(answers.next().unwrap())).unwrap();
        assert_eq!(progress.samples.len(), 4);
        assert_eq!(progress.done_at(0.5), progress.samples[2].0);
        assert_eq!(progress.end(), progress.samples[3].0);
    }
}
