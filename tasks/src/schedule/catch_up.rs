//! Which occurrences are made and which are missed. Pure: rule, cursor and clock in, decision out.
//!
//! An occurrence that is at most [`ON_TIME`] old is made whatever the policy says. Older ones came due while nothing
//! ran; the policy, its window and its maximum decide about them, the latest first. What is not made is counted.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use todo_recurrence::Schedule as Rule;

use super::{CatchUpInput, CatchUpPolicy};

/// How old an occurrence may be to count as made on time.
const ON_TIME: SignedDuration = SignedDuration::from_secs(60);

/// The most occurrences that one decision looks at; a schedule that slept over more takes several.
const MAX_STEPS: usize = 20_000;

/// What is to be done about the occurrences after a cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// These are made, in this order.
    pub(super) make: Vec<Timestamp>,
    /// So many are not.
    pub(super) missed: u64,
    /// Everything up to here is dealt with.
    pub(super) cursor: Timestamp,
    /// The next occurrence after the cursor; `None` when the rule has ended.
    pub(super) next: Option<Timestamp>,
}

/// Decides about the occurrences after `cursor` and not after `now`.
pub(super) fn decide(rule: &Rule, catch_up: CatchUpInput, cursor: Timestamp, now: Timestamp) -> Decision {
    let on_time_from = now.saturating_sub(ON_TIME).unwrap_or(Timestamp::MIN);
    let window_from = now.saturating_sub(catch_up.window.duration()).unwrap_or(Timestamp::MIN);
    let keep = match catch_up.policy {
        CatchUpPolicy::All => usize::try_from(catch_up.max).unwrap_or(1),
        CatchUpPolicy::Latest => 1,
        CatchUpPolicy::None => 0,
    };
    let mut decision = Decision {
        cursor,
        ..Decision::default()
    };
    let (mut late, mut on_time) = (VecDeque::new(), Vec::new());
    let mut reached_now = true;
    for (step, occurrence) in rule
        .after(cursor)
        .take_while(|occurrence| *occurrence <= now)
        .enumerate()
    {
        if step == MAX_STEPS {
            reached_now = false;
            break;
        }
        if occurrence >= on_time_from {
            on_time.push(occurrence);
            continue;
        }
        if occurrence >= window_from {
            late.push_back(occurrence);
        } else {
            decision.missed += 1;
            decision.cursor = occurrence;
        }
        if late.len() > keep
            && let Some(dropped) = late.pop_front()
        {
            decision.missed += 1;
            decision.cursor = decision.cursor.max(dropped);
        }
    }
    // Only once all are known is it certain that these are the latest; until then the others are put off.
    if reached_now {
        decision.make = late.into();
        decision.make.append(&mut on_time);
        decision.cursor = decision
            .make
            .last()
            .map_or(decision.cursor, |last| decision.cursor.max(*last));
    }
    decision.next = rule.next_after(decision.cursor);
    decision
}
