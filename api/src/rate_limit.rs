//! How often one user may call this process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use todo_tasks::UserId;

use crate::config::RateLimit;

/// How often users who have been quiet are forgotten, so that the map holds only those who call.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// A token bucket for each user (GCRA).
pub(crate) struct UserLimiter {
    buckets: DefaultKeyedRateLimiter<UserId>,
    clock: DefaultClock,
    started: Instant,
    sweep_interval: Duration,
    /// Milliseconds after `started`.
    next_sweep: AtomicU64,
}

impl UserLimiter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self::with_sweeps(limit, SWEEP_INTERVAL)
    }

    fn with_sweeps(limit: RateLimit, sweep_interval: Duration) -> Self {
        Self {
            buckets: RateLimiter::keyed(Quota::per_second(limit.per_second).allow_burst(limit.burst)),
            clock: DefaultClock::default(),
            started: Instant::now(),
            sweep_interval,
            next_sweep: AtomicU64::new(millis(sweep_interval)),
        }
    }

    /// Counts a request, or says how long until the next one is welcome.
    pub(crate) fn check(&self, user: &UserId) -> Result<(), Duration> {
        self.sweep_when_due();
        self.buckets
            .check_key(user)
            .map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Whoever comes first after the interval sweeps: no task of its own that would have to be stopped.
    fn sweep_when_due(&self) {
        let now = millis(self.started.elapsed());
        let due = self.next_sweep.load(Ordering::Relaxed);
        let next = now + millis(self.sweep_interval);
        if now >= due
            && self
                .next_sweep
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.buckets.retain_recent();
            self.buckets.shrink_to_fit();
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_who_have_been_quiet_are_forgotten() {
        let limit = RateLimit::new(20, 1).expect("neither is zero");
        let limiter = UserLimiter::with_sweeps(limit, Duration::from_millis(200));
        for number in 0..1000 {
            let user = UserId::parse(format!("user-{number}")).expect("a valid id");
            assert!(limiter.check(&user).is_ok());
        }
        assert!(
            limiter.buckets.len() > 1,
            "they are remembered while they may be limited"
        );
        std::thread::sleep(Duration::from_millis(300));
        let last = UserId::parse("last").expect("a valid id");
        assert!(limiter.check(&last).is_ok());
        assert_eq!(limiter.buckets.len(), 1);
    }

    #[test]
    fn a_user_over_the_limit_waits_and_others_do_not() {
        let limiter = UserLimiter::new(RateLimit::new(1, 2).expect("neither is zero"));
        let (ada, bob) = (
            UserId::parse("ada").expect("a valid id"),
            UserId::parse("bob").expect("a valid id"),
        );
        assert!(limiter.check(&ada).is_ok());
        assert!(limiter.check(&ada).is_ok());
        let wait = limiter.check(&ada).expect_err("the burst is used up");
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert!(limiter.check(&bob).is_ok());
    }
}
