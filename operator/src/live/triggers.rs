//! Which platforms are to be looked at, for whoever looks.
//!
//! A platform that waits to be looked at waits once, however much happens meanwhile: so what waits is bounded by the
//! number of platforms.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::Stream;
use futures::stream::unfold;
use tokio::sync::Notify;

use crate::names::Names;

#[derive(Debug, Default)]
pub(super) struct Triggers(Mutex<Vec<Weak<Waiting>>>);

#[derive(Debug, Default)]
struct Waiting {
    platforms: Mutex<BTreeSet<Names>>,
    woken: Notify,
}

impl Waiting {
    fn take(&self) -> Option<Names> {
        let mut platforms = self.platforms.lock().unwrap_or_else(PoisonError::into_inner);
        platforms.pop_first()
    }
}

impl Triggers {
    /// Tells everyone who listens.
    pub(super) fn send(&self, platforms: &[Names]) {
        if platforms.is_empty() {
            return;
        }
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| {
            let Some(waiting) = listener.upgrade() else {
                return false;
            };
            let mut waits = waiting.platforms.lock().unwrap_or_else(PoisonError::into_inner);
            waits.extend(platforms.iter().cloned());
            drop(waits);
            waiting.woken.notify_one();
            true
        });
    }

    /// What is sent from now on. Never ends.
    pub(super) fn listen(&self) -> impl Stream<Item = Names> + Send + use<> {
        let waiting = Arc::new(Waiting::default());
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.push(Arc::downgrade(&waiting));
        drop(listeners);
        unfold(waiting, |waiting| async {
            loop {
                if let Some(next) = waiting.take() {
                    return Some((next, waiting));
                }
                waiting.woken.notified().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    fn names(platform: &str) -> Names {
        Names {
            namespace: "shop".into(),
            platform: platform.into(),
        }
    }

    #[test]
    fn a_platform_waits_once_and_each_listener_hears_of_it() {
        let triggers = Triggers::default();
        triggers.send(&[names("early")]);
        let mut one = pin!(triggers.listen());
        let mut other = pin!(triggers.listen());
        for _ in 0..3 {
            triggers.send(&[names("a"), names("b")]);
        }
        assert_eq!(one.next().now_or_never(), Some(Some(names("a"))));
        assert_eq!(one.next().now_or_never(), Some(Some(names("b"))));
        assert_eq!(one.next().now_or_never(), None);
        triggers.send(&[names("a")]);
        assert_eq!(one.next().now_or_never(), Some(Some(names("a"))));
        assert_eq!(other.next().now_or_never(), Some(Some(names("a"))));
    }
}
