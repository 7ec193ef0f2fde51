//! When: cron expressions, RFC 5545 rules and plain intervals to instants, in time zones.
//!
//! Here lives all that the platform knows about calendars and clocks. It is pure: no I/O, and no clock of its own; who
//! asks brings the instant. What a due occurrence does, and what was missed while nothing ran, is not here.
//!
//! The path of data: a text becomes a rule on the wall clock ([`Cron`], [`Rrule`], [`Every`]), a rule with a zone, a
//! start and exceptions becomes a [`Schedule`], and `instants` turns its civil matches into instants with one policy
//! for clock changes. [`Repeat`] is the same for one task that comes back when it is completed.
//!
//! Promises: occurrences strictly increase, `next(t) > t`, every search is bounded, and no input panics. An impossible
//! rule is refused when it is made. What a rule means depends on nothing but its text, its anchor and the zone data of
//! [`zone::database_version`].

mod calendar;
mod cron;
mod error;
mod every;
mod instants;
pub mod placeholder;
#[cfg(test)]
mod properties;
mod repeat;
mod rrule;
mod schedule;
pub mod span;
mod steps;
pub mod zone;

pub use self::{
    cron::Cron,
    error::{Error, SpecError},
    every::Every,
    repeat::{Completion, Repeat, RepeatMode, RepeatSpec},
    rrule::Rrule,
    schedule::{MonthEnd, Schedule, ScheduleSpec, parse_end, parse_start},
};
