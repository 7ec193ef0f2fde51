//! From civil times to instants: what happens when clocks change. The time policy for gaps and overlaps is here and
//! nowhere else.
//!
//! A rule ([`CivilRule`]) knows wall-clock times only. Two walks make them instants:
//! - [`next_once`]: each civil match is one occurrence. In an overlap it is the first pass; in a gap [`Gap`] says.
//!   Matches that meet on one instant are one occurrence.
//! - [`next_each_pass`]: the rule follows real time. In an overlap it fires in both passes, in a gap not at all.

use jiff::{Timestamp, ToSpan, civil::DateTime, tz::AmbiguousOffset, tz::TimeZone};

use crate::{calendar, steps};

/// A rule on the wall clock.
pub(crate) trait CivilRule {
    /// The first match at or after `from`, at a whole second; `None` when there are no more.
    fn at_or_after(&self, from: DateTime) -> Option<DateTime>;
}

/// Where a civil time that the clock never shows goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gap {
    /// To the first instant after the gap (cron, as Vixie's does).
    FirstAfter,
    /// On by the length of the gap (RFC 5545 3.3.5).
    Moved,
}

/// A rule without some of its matches: EXDATE.
pub(crate) struct Without<'a, R> {
    pub(crate) rule: &'a R,
    /// Sorted.
    pub(crate) excluded: &'a [DateTime],
}

impl<R: CivilRule> CivilRule for Without<'_, R> {
    fn at_or_after(&self, from: DateTime) -> Option<DateTime> {
        let mut found = self.rule.at_or_after(from)?;
        while self.excluded.binary_search(&found).is_ok() {
            steps::tick();
            found = self.rule.at_or_after(calendar::second_after(found)?)?;
        }
        Some(found)
    }
}

/// The first occurrence after an instant, for rules where a civil match is one occurrence.
pub(crate) fn next_once(rule: &impl CivilRule, zone: &TimeZone, after: Timestamp, gap: Gap) -> Option<Timestamp> {
    let clock_to_come = calendar::second_after(zone.to_datetime(after))?;
    let mut from = clock_to_come;
    if gap == Gap::Moved
        && let Some(clock) = clock_of_moved_times(zone, after)
    {
        from = calendar::second_after(clock)?;
    }
    loop {
        steps::tick();
        let civil = rule.at_or_after(from)?;
        let resolved = zone.to_ambiguous_timestamp(civil);
        match resolved.offset() {
            AmbiguousOffset::Unambiguous { .. } => {
                let at = resolved.earlier().ok()?;
                if at > after {
                    return Some(at);
                }
                // It was shown between the gap and `after`, and only what was moved out of the gap could still come.
                from = clock_to_come.max(calendar::second_after(civil)?);
            }
            AmbiguousOffset::Fold { before, .. } => {
                let first_pass = resolved.earlier().ok()?;
                if first_pass > after {
                    return Some(first_pass);
                }
                // `after` is in the second pass: all that the clock shows again has fired.
                let end = zone.following(first_pass).next()?.timestamp();
                let clock_at_end = before.to_datetime(end);
                from = calendar::round_up(clock_at_end)?.max(calendar::second_after(civil)?);
            }
            AmbiguousOffset::Gap {
                before,
                after: offset_after,
            } => {
                let end = zone
                    .following(offset_after.to_timestamp(civil).ok()?)
                    .next()?
                    .timestamp();
                let clock_at_end = calendar::round_up(offset_after.to_datetime(end))?;
                let at = match gap {
                    Gap::FirstAfter => end,
                    Gap::Moved => {
                        let moved = before.to_timestamp(civil).ok()?;
                        // A time that the clock does show may come before the moved one: 03:15 before 02:30 + 1 h.
                        let shown = rule.at_or_after(clock_at_end.max(clock_to_come));
                        let shown = shown.and_then(|shown| zone.to_timestamp(shown).ok());
                        shown
                            .filter(|&shown| shown > after)
                            .map_or(moved, |shown| shown.min(moved))
                    }
                };
                if at > after {
                    return Some(at);
                }
                from = clock_at_end.max(calendar::second_after(civil)?);
            }
        }
    }
}

/// Less than a gap's length after a gap, times that moved out of it may still be to come: the clock as it would be
/// without the gap, which is where those times stand on it.
fn clock_of_moved_times(zone: &TimeZone, after: Timestamp) -> Option<DateTime> {
    let change = zone.preceding(after.checked_add(1.nanosecond()).ok()?).next()?;
    let before = zone.to_offset(change.timestamp().checked_sub(1.nanosecond()).ok()?);
    let gap = i64::from(change.offset().seconds()) - i64::from(before.seconds());
    let since = after.as_second() - change.timestamp().as_second();
    (since < gap).then(|| before.to_datetime(after))
}

/// The first occurrence after an instant, for rules that follow real time.
pub(crate) fn next_each_pass(rule: &impl CivilRule, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let mut offset = zone.to_offset(after);
    let mut from = calendar::second_after(offset.to_datetime(after))?;
    let mut civil = rule.at_or_after(from)?;
    let mut changes = zone.following(after);
    // The offset is constant from one change to the next, so within that stretch wall clock and real time agree.
    loop {
        steps::tick();
        let at = offset.to_timestamp(civil).ok();
        let Some(change) = changes.next() else { return at };
        if let Some(at) = at.filter(|&at| at < change.timestamp()) {
            return Some(at);
        }
        offset = change.offset();
        let clock = calendar::round_up(offset.to_datetime(change.timestamp()))?;
        // Nothing matches between `from` and `civil`, so only a clock outside of that stretch needs a new search.
        if clock < from || clock > civil {
            from = clock;
            civil = rule.at_or_after(from)?;
        }
    }
}
