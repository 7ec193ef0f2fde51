//! What platforms say about their schedules, kept up to date without asking for each.
//!
//! One cheap request per platform brings what has changed since the last. Here is what it adds up to: data, and who is to
//! be told of a change. Asking is [`follow`](super::follow)'s.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::internal_api::State;
use crate::names::Names;

/// The schedules of all platforms that are followed, as their platforms have them.
#[derive(Clone, Debug, Default)]
pub struct States {
    platforms: Arc<RwLock<HashMap<Names, Followed>>>,
}

#[derive(Debug, Default)]
struct Followed {
    /// By UID of the resource.
    schedules: HashMap<String, State>,
    /// Whether everything was read once, so that what is not there is not at the platform either.
    is_complete: bool,
}

/// What is known about one schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Its platform was not asked yet.
    NotYet,
    /// Its platform does not have it.
    Absent,
    /// Its platform has it so.
    Present(State),
}

impl States {
    /// What is known about the schedule with this UID.
    pub fn get(&self, platform: &Names, uid: &str) -> Known {
        let platforms = self.platforms.read().unwrap_or_else(PoisonError::into_inner);
        let Some(followed) = platforms.get(platform) else {
            return Known::NotYet;
        };
        match followed.schedules.get(uid) {
            Some(state) => Known::Present(state.clone()),
            None if followed.is_complete => Known::Absent,
            None => Known::NotYet,
        }
    }

    /// Notes what the platform answered to a change of ours.
    pub fn note(&self, platform: &Names, state: State) {
        let mut platforms = self.platforms.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(followed) = platforms.get_mut(platform) {
            followed.schedules.insert(state.uid.clone(), state);
        }
    }

    /// Notes that the platform no longer has the schedule.
    pub fn forget(&self, platform: &Names, uid: &str) {
        let mut platforms = self.platforms.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(followed) = platforms.get_mut(platform) {
            followed.schedules.remove(uid);
        }
    }

    /// Takes what has changed. Returns the states that are new or different.
    pub(super) fn change(&self, platform: &Names, items: Vec<State>) -> Vec<State> {
        let mut platforms = self.platforms.write().unwrap_or_else(PoisonError::into_inner);
        let followed = platforms.entry(platform.clone()).or_default();
        let mut changed = vec![];
        for state in items {
            if followed.schedules.get(&state.uid) != Some(&state) {
                changed.push(state.clone());
                followed.schedules.insert(state.uid.clone(), state);
            }
        }
        changed
    }

    /// Takes everything that the platform has. Returns the states that are new, different, or gone.
    pub(super) fn replace(&self, platform: &Names, items: Vec<State>) -> Vec<State> {
        let mut platforms = self.platforms.write().unwrap_or_else(PoisonError::into_inner);
        let followed = platforms.entry(platform.clone()).or_default();
        let mut before = std::mem::take(&mut followed.schedules);
        let mut changed = vec![];
        for state in items {
            if before.remove(&state.uid).as_ref() != Some(&state) {
                changed.push(state.clone());
            }
            followed.schedules.insert(state.uid.clone(), state);
        }
        changed.extend(before.into_values());
        followed.is_complete = true;
        changed
    }

    /// Forgets a platform that is no longer followed.
    pub(super) fn drop_platform(&self, platform: &Names) {
        let mut platforms = self.platforms.write().unwrap_or_else(PoisonError::into_inner);
        platforms.remove(platform);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(uid: &str, made: i64) -> State {
        State {
            uid: uid.to_owned(),
            origin: format!("todo/{uid}"),
            hash: Some("abc".to_owned()),
            deleted: false,
            user_known: true,
            suspended: false,
            ended: false,
            problem: None,
            next_at: None,
            last_at: None,
            made,
            missed: 0,
            skipped: 0,
        }
    }

    fn platform() -> Names {
        Names {
            namespace: "todo".to_owned(),
            platform: "acme".to_owned(),
        }
    }

    fn uids(states: &[State]) -> Vec<&str> {
        let mut uids: Vec<&str> = states.iter().map(|state| state.uid.as_str()).collect();
        uids.sort_unstable();
        uids
    }

    #[test]
    fn before_everything_was_read_nothing_is_absent() {
        let states = States::default();
        assert_eq!(states.get(&platform(), "a"), Known::NotYet);
        states.change(&platform(), vec![state("b", 0)]);
        assert_eq!(states.get(&platform(), "a"), Known::NotYet);
        states.replace(&platform(), vec![state("b", 0)]);
        assert_eq!(states.get(&platform(), "a"), Known::Absent);
        assert_eq!(states.get(&platform(), "b"), Known::Present(state("b", 0)));
    }

    #[test]
    fn only_what_differs_is_told() {
        let states = States::default();
        let first = states.replace(&platform(), vec![state("a", 0), state("b", 0), state("c", 0)]);
        assert_eq!(uids(&first), ["a", "b", "c"]);
        let changed = states.change(&platform(), vec![state("a", 1), state("b", 0)]);
        assert_eq!(uids(&changed), ["a"]);
        let again = states.replace(&platform(), vec![state("a", 1), state("b", 2)]);
        assert_eq!(uids(&again), ["b", "c"], "c is gone, and that is news");
        assert_eq!(states.get(&platform(), "c"), Known::Absent);
    }

    #[test]
    fn what_we_did_ourselves_is_no_news() {
        let states = States::default();
        states.replace(&platform(), vec![]);
        states.note(&platform(), state("a", 0));
        assert!(states.change(&platform(), vec![state("a", 0)]).is_empty());
        states.forget(&platform(), "a");
        assert_eq!(states.get(&platform(), "a"), Known::Absent);
    }
}
