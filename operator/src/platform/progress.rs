//! When progress is told: at once, unless many platforms wait for their pass.
//!
//! A status costs the API server as much as several children. Where hundreds of platforms come at once, what is over
//! before anybody could read it is not written, and the others have their turn sooner. What is amiss, what is ready and
//! what is ready no more is always told at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use todo_crds::platform::TodoPlatformStatus;
use tokio::time::Instant;

use super::status::ConditionType;
use crate::names::Names;
use crate::waiting::Waiting;

/// How long progress may go untold while others wait.
const UNTOLD: Duration = Duration::from_secs(1);

/// Since when the progress of platforms goes untold. Clones share it.
#[derive(Clone, Debug)]
pub struct Progress {
    waiting: Waiting,
    /// How many that wait are many.
    many: usize,
    untold: Arc<Mutex<HashMap<Names, Instant>>>,
}

impl Progress {
    /// `concurrency` platforms are worked on at once; `waiting` are those that wait.
    pub fn new(waiting: Waiting, concurrency: usize) -> Self {
        Self {
            waiting,
            many: concurrency.max(1),
            untold: Arc::default(),
        }
    }

    /// How long `after`, which follows on `before`, may still go untold; `None` when it is to be told now.
    pub(super) fn may_wait(
        &self,
        names: &Names,
        before: Option<&TodoPlatformStatus>,
        after: &TodoPlatformStatus,
    ) -> Option<Duration> {
        if self.waiting.len() < self.many || !is_progress(before, after) {
            return None;
        }
        let since = *self.untold().entry(names.clone()).or_insert_with(Instant::now);
        let left = UNTOLD.checked_sub(since.elapsed())?;
        (!left.is_zero()).then_some(left)
    }

    /// It has been told, or the platform is gone.
    pub(super) fn forget(&self, names: &Names) {
        self.untold().remove(names);
    }

    fn untold(&self) -> MutexGuard<'_, HashMap<Names, Instant>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a status says nothing but how far things are on their way.
fn is_progress(before: Option<&TodoPlatformStatus>, after: &TodoPlatformStatus) -> bool {
    let says = |status: &TodoPlatformStatus, kind: ConditionType| {
        let mut conditions = status.conditions.iter();
        conditions.any(|condition| condition.type_ == kind.as_str() && condition.status == "True")
    };
    let was_ready = before.is_some_and(|before| says(before, ConditionType::Ready));
    says(after, ConditionType::Progressing)
        && !says(after, ConditionType::Degraded)
        && says(after, ConditionType::Ready) == was_ready
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(of: &[(ConditionType, bool)]) -> TodoPlatformStatus {
        let conditions = of.iter().map(|(kind, is_so)| {
            json!({
                "type": kind.as_str(),
                "status": if *is_so { "True" } else { "False" },
                "reason": "Test",
                "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        });
        let conditions: Vec<_> = conditions.collect();
        serde_json::from_value(json!({ "conditions": conditions })).unwrap()
    }

    fn names() -> Names {
        Names {
            namespace: "shop".into(),
            platform: "acme".into(),
        }
    }

    /// What two platforms wait for that are worked on at once, where so many others wait.
    fn with_waiting(count: usize) -> Progress {
        let waiting = Waiting::default();
        for number in 0..count {
            waiting.add(("shop".to_owned(), number.to_string()));
        }
        Progress::new(waiting, 2)
    }

    const MIGRATING: [(ConditionType, bool); 2] = [(ConditionType::Progressing, true), (ConditionType::Ready, false)];

    #[test]
    fn progress_is_told_at_once_unless_many_wait() {
        let migrating = status(&MIGRATING);
        assert_eq!(with_waiting(1).may_wait(&names(), None, &migrating), None);
        assert!(with_waiting(2).may_wait(&names(), None, &migrating).is_some());
    }

    #[test]
    fn what_is_more_than_progress_is_told_at_once() {
        use ConditionType::{Degraded, Progressing, Ready};
        let progress = with_waiting(9);
        let ready = status(&[(Progressing, true), (Ready, true)]);
        let settled = status(&[(Progressing, false), (Ready, true)]);
        let degraded = status(&[(Progressing, true), (Ready, false), (Degraded, true)]);
        let migrating = status(&MIGRATING);
        for (before, after) in [
            (None, &settled),
            (None, &degraded),
            (Some(&migrating), &ready),
            (Some(&ready), &migrating),
        ] {
            assert_eq!(progress.may_wait(&names(), before, after), None, "{before:?} {after:?}");
        }
        assert!(progress.may_wait(&names(), Some(&settled), &ready).is_some());
    }

    #[tokio::test]
    async fn it_goes_untold_for_a_second_at_most() {
        let progress = with_waiting(9);
        let migrating = status(&MIGRATING);
        let wait = progress.may_wait(&names(), None, &migrating).unwrap();
        assert!(wait <= UNTOLD);
        let begun = Instant::now().checked_sub(UNTOLD).unwrap();
        progress.untold().insert(names(), begun);
        assert_eq!(progress.may_wait(&names(), None, &migrating), None);
        assert_eq!(progress.may_wait(&names(), None, &migrating), None, "not told yet");
        progress.forget(&names());
        assert!(progress.may_wait(&names(), None, &migrating).is_some());
    }
}
