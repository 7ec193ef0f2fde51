//! A task that makes its next one when it is completed: the next due date.
//!
//! Due dates are civil times; the zone is only asked what time it was when the task was completed.

use jiff::{Timestamp, civil, civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::{
    Cron, Every, MonthEnd, Rrule, SpecError, calendar,
    every::{CalendarSteps, Step, next_exact},
    instants::CivilRule,
    schedule::{EXACTLY_ONE, chosen_field},
    steps, zone,
};

/// From where the next due date counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RepeatMode {
    /// From the due date; when completed late, on to the first occurrence that is still to come.
    #[default]
    FromDue,
    /// From the day of completion, at the due date's time of day.
    FromCompletion,
}

/// How a task repeats, as users write it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RepeatSpec {
    /// A cron expression. Exactly one of `cron`, `rrule` and `every` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The value of an RRULE property (RFC 5545); FREQ is DAILY or longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rrule: Option<String>,
    /// An interval: `30s 5m 2h 1d 2w 1mo 1y`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// From where the next due date counts.
    pub mode: RepeatMode,
    /// As for a schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub month_end: Option<MonthEnd>,
}

impl RepeatSpec {
    /// The names of its fields, as [`ScheduleSpec::FIELDS`](crate::ScheduleSpec::FIELDS).
    pub const FIELDS: &[&str] = &["cron", "rrule", "every", "mode", "month_end"];
}

/// A checked [`RepeatSpec`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeat {
    rule: Rule,
    mode: RepeatMode,
    month_end: Option<MonthEnd>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Cron(Cron),
    Rrule(Rrule),
    Every(Every),
}

/// What is known when a task is completed.
#[derive(Debug, Clone, Copy)]
pub struct Completion<'a> {
    /// When the task was due.
    pub due: Option<DateTime>,
    /// The series' first due date: the anchor that remembers the 31st through February, from which COUNT and INTERVAL
    /// count. Keep it with the task, hand it to each next one, and set it anew when a user moves the due date or
    /// changes the rule. Without it the due date stands in.
    pub series_start: Option<DateTime>,
    /// The zone that the due date is in.
    pub zone: &'a TimeZone,
    /// When the task was completed.
    pub completed_at: Timestamp,
}

impl Repeat {
    /// Checks a specification.
    ///
    /// # Errors
    /// [`SpecError`] names the first field that is wrong.
    pub fn new(spec: &RepeatSpec) -> Result<Self, SpecError> {
        let field = chosen_field([("cron", &spec.cron), ("rrule", &spec.rrule), ("every", &spec.every)])?;
        let rule = match (&spec.cron, &spec.rrule, &spec.every) {
            (Some(text), _, _) => Cron::parse(text).map(Rule::Cron),
            (_, Some(text), _) => Rrule::parse(text).map(Rule::Rrule),
            (_, _, Some(text)) => text.parse().map(Rule::Every),
            (None, None, None) => return Err(SpecError::new(field, EXACTLY_ONE)),
        };
        let rule = rule.map_err(|error| SpecError::new(field, &error))?;
        if spec.mode == RepeatMode::FromCompletion
            && let Rule::Rrule(rrule) = &rule
            && rrule.has_count()
        {
            return Err(SpecError::new(
                "mode",
                "from_completion has no fixed series to count; use UNTIL in place of COUNT, or from_due",
            ));
        }
        if let Rule::Rrule(rrule) = &rule {
            rrule
                .check_possible(spec.month_end)
                .map_err(|error| SpecError::new(field, &error))?;
        }
        Ok(Self {
            rule,
            mode: spec.mode,
            month_end: spec.month_end,
        })
    }

    /// When the next task is due; `None` when the series has ended. Always after the current due date, and in mode
    /// `from_due` also after the completion.
    pub fn next_due(&self, completion: &Completion<'_>) -> Option<DateTime> {
        let completed = completion.zone.to_datetime(completion.completed_at);
        let completed = completed.with().subsec_nanosecond(0).build().ok()?;
        // Without a due date, the completion is where the series begins (T25).
        let due = completion.due.unwrap_or(completed);
        let series_start = match self.mode {
            RepeatMode::FromDue => completion.series_start.unwrap_or(due),
            RepeatMode::FromCompletion => completed.date().to_datetime(due.time()),
        };
        let after = due.max(match self.mode {
            RepeatMode::FromDue => due,
            RepeatMode::FromCompletion => series_start,
        });
        let still_to_come = |at: Timestamp| self.mode == RepeatMode::FromCompletion || at > completion.completed_at;
        match &self.rule {
            Rule::Cron(cron) => {
                let mut at = zone::resolve(due, completion.zone).max(completion.completed_at);
                loop {
                    steps::tick();
                    at = cron.next_after(at, completion.zone)?;
                    let next = completion.zone.to_datetime(at);
                    // In an overlap's second pass the clock has not moved on yet.
                    if next > due {
                        return Some(next);
                    }
                }
            }
            Rule::Rrule(rrule) => {
                let series = rrule
                    .clone()
                    .series(series_start, completion.zone, self.month_end)
                    .ok()?;
                let next = next_match(&series, after, completion, still_to_come)?;
                series
                    .until()
                    .is_none_or(|until| zone::resolve(next, completion.zone) <= until)
                    .then_some(next)
            }
            Rule::Every(every) => {
                let step = every.step();
                if let Some(steps) = CalendarSteps::new(series_start, step, self.month_end.unwrap_or(MonthEnd::Clamp)) {
                    return next_match(&steps, after, completion, still_to_come);
                }
                let Step::Seconds(seconds) = step else { return None };
                let anchor = match self.mode {
                    RepeatMode::FromDue => zone::resolve(due, completion.zone),
                    RepeatMode::FromCompletion => Timestamp::from_second(completion.completed_at.as_second()).ok()?,
                };
                let mut at = match self.mode {
                    RepeatMode::FromDue => anchor.max(completion.completed_at),
                    RepeatMode::FromCompletion => anchor,
                };
                at = at.max(zone::resolve(due, completion.zone));
                loop {
                    steps::tick();
                    at = next_exact(anchor, seconds, at)?;
                    let next = completion.zone.to_datetime(at);
                    if next > due {
                        return Some(next);
                    }
                }
            }
        }
    }
}

/// The first match after a civil time whose instant is wanted.
fn next_match(
    rule: &impl CivilRule,
    after: DateTime,
    completion: &Completion<'_>,
    still_to_come: impl Fn(Timestamp) -> bool,
) -> Option<DateTime> {
    let mut from = calendar::second_after(after)?;
    loop {
        steps::tick();
        let next = rule.at_or_after(from)?;
        if still_to_come(zone::resolve(next, completion.zone)) {
            return Some(next);
        }
        // All up to the completion's date but the last day's are over: jump there.
        let completed = completion.zone.to_datetime(completion.completed_at);
        let day_before = completed
            .date()
            .yesterday()
            .map_or(completed, |date| date.to_datetime(civil::Time::midnight()));
        from = calendar::second_after(next)?.max(day_before);
    }
}
