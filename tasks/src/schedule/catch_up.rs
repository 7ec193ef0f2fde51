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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;
    use todo_recurrence::ScheduleSpec;

    use super::*;

    fn minutely() -> Rule {
        cron("* * * * *")
    }

    fn cron(expression: &str) -> Rule {
        let spec = ScheduleSpec {
            cron: Some(expression.to_owned()),
            time_zone: "UTC".to_owned(),
            ..ScheduleSpec::default()
        };
        Rule::new(&spec, at("2026-01-01T00:00:00Z")).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn catch_up(policy: CatchUpPolicy, window: &str, max: i32) -> CatchUpInput {
        CatchUpInput {
            policy,
            window: window.parse().unwrap(),
            max,
        }
    }

    const ALL: CatchUpPolicy = CatchUpPolicy::All;

    #[test]
    fn what_is_due_now_is_made_whatever_the_policy() {
        for policy in [ALL, CatchUpPolicy::Latest, CatchUpPolicy::None] {
            let (cursor, now) = (at("2026-01-01T09:00:00Z"), at("2026-01-01T09:01:59Z"));
            let decision = decide(&minutely(), catch_up(policy, "0s", 1), cursor, now);
            let expected = Decision {
                make: vec![at("2026-01-01T09:01:00Z")],
                missed: 0,
                cursor: at("2026-01-01T09:01:00Z"),
                next: Some(at("2026-01-01T09:02:00Z")),
            };
            assert_eq!(decision, expected, "{policy:?}");
        }
    }

    #[test]
    fn a_minute_old_is_on_time_and_a_second_more_is_late() {
        let cursor = at("2026-01-01T09:00:00Z");
        let none = catch_up(CatchUpPolicy::None, "30d", 1);
        for (now, made, missed) in [("2026-01-01T09:02:00Z", 2, 0), ("2026-01-01T09:02:01Z", 1, 1)] {
            let decision = decide(&minutely(), none, cursor, at(now));
            assert_eq!((decision.make.len(), decision.missed), (made, missed), "{now}");
        }
    }

    #[test]
    fn window_and_maximum_keep_the_latest() {
        let (cursor, now) = (at("2026-01-01T09:00:00Z"), at("2026-01-01T19:00:00Z"));
        for (catch_up, late) in [
            (catch_up(ALL, "30d", 1000), 598),
            (catch_up(ALL, "1h", 1000), 59),
            (catch_up(ALL, "1h", 7), 7),
            (catch_up(ALL, "0s", 7), 0),
            (catch_up(CatchUpPolicy::Latest, "30d", 1000), 1),
            (catch_up(CatchUpPolicy::Latest, "1m", 1000), 0),
            (catch_up(CatchUpPolicy::None, "30d", 1000), 0),
        ] {
            let decision = decide(&minutely(), catch_up, cursor, now);
            // The two of the last minute are on time.
            assert_eq!(decision.make.len(), late + 2, "{catch_up:?}");
            assert_eq!(decision.missed, 598 - late as u64, "{catch_up:?}");
            assert_eq!((decision.cursor, decision.make.last()), (now, Some(&now)));
            assert!(decision.make.is_sorted());
        }
    }

    #[test]
    fn when_nothing_is_due_nothing_moves() {
        let cursor = at("2026-01-01T09:00:00Z");
        let decision = decide(&minutely(), CatchUpInput::default(), cursor, at("2026-01-01T09:00:59Z"));
        assert_eq!((decision.make.len(), decision.missed, decision.cursor), (0, 0, cursor));
        // Nor does a clock that stands before the cursor.
        let decision = decide(&minutely(), CatchUpInput::default(), cursor, at("2026-01-01T08:00:00Z"));
        assert_eq!((decision.make.len(), decision.missed, decision.cursor), (0, 0, cursor));
    }

    #[test]
    fn a_decision_looks_at_a_bounded_number_and_puts_off_what_it_keeps() {
        let (cursor, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T10:00:00Z"));
        let decision = decide(&cron("* * * * * *"), catch_up(ALL, "30d", 10_000), cursor, now);
        assert_eq!((decision.make.len(), decision.missed), (0, 10_000));
        assert_eq!(decision.cursor, cursor + SignedDuration::from_secs(10_000));
        assert_eq!(decision.next, Some(cursor + SignedDuration::from_secs(10_001)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn made_and_missed_are_all_there_is(
            slept in 0..60_000_i64,
            policy in prop::sample::select(vec![ALL, CatchUpPolicy::Latest, CatchUpPolicy::None]),
            window in 0..999_999_u32,
            max in 1..10_000_i32,
        ) {
            let rule = cron("*/2 * * * * *");
            let start = at("2026-01-01T00:00:00Z");
            let now = start + SignedDuration::from_secs(slept);
            let catch_up = catch_up(policy, &format!("{window}s"), max);
            let (mut cursor, mut made, mut missed) = (start, Vec::new(), 0);
            // Turn by turn, as the worker does.
            loop {
                let decision = decide(&rule, catch_up, cursor, now);
                prop_assert!(decision.cursor >= cursor);
                prop_assert!(decision.next > Some(decision.cursor));
                cursor = decision.cursor;
                made.extend(decision.make);
                missed += decision.missed;
                if decision.next > Some(now) {
                    break;
                }
            }
            prop_assert_eq!(made.len() as u64 + missed, slept.unsigned_abs() / 2);
            prop_assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
