//! A schedule: one rule with its zone, its bounds and its exceptions, as users write it and as workers ask it.
//!
//! [`ScheduleSpec`] is the text; [`Schedule::new`] checks all of it once, so that asking cannot fail.

use jiff::{Timestamp, ToSpan, civil, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::{
    Cron, Error, Every, Rrule, SpecError,
    every::{CalendarSteps, Step, next_exact},
    instants::{Gap, Without, next_once},
    rrule::{ical, series::Series},
    steps, zone,
};

/// What becomes of a monthly or yearly occurrence on a day that a month does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum MonthEnd {
    /// It comes on the month's last day, and the day is remembered: 31 January, 28 February, 31 March.
    Clamp,
    /// It is skipped, as in RFC 5545.
    Strict,
}

/// When something comes back, as users write it. Times are wall-clock times in `time_zone`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduleSpec {
    /// A cron expression. Exactly one of `cron`, `rrule` and `every` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The value of an RRULE property (RFC 5545); FREQ is DAILY or longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rrule: Option<String>,
    /// An interval: `30s 5m 2h 1d 2w 1mo 1y`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// The time of day for `rrule` and `every`, such as `17:00`; without it that of `start`, else that of the anchor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub at: Option<civil::Time>,
    /// IANA name.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub time_zone: String,
    /// No occurrence is before it. It is the first date from which `rrule` (its DTSTART) and `every` count, in place
    /// of the anchor. A date alone is its midnight.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "optional_start")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub start: Option<civil::DateTime>,
    /// No occurrence is after it. A date alone means that the whole day is in.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "optional_end")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub end: Option<civil::DateTime>,
    /// Occurrences to leave out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub exdates: Vec<civil::DateTime>,
    /// Occurrences to add. COUNT and UNTIL do not touch them; `start`, `end` and `exdates` do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub rdates: Vec<civil::DateTime>,
    /// For days 29 to 31. Without it, a day that comes from the start is clamped, and one that an RRULE names itself
    /// (`BYMONTHDAY=31`) is strict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub month_end: Option<MonthEnd>,
}

fn optional_start<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<civil::DateTime>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    text.map(|text| parse_start(&text))
        .transpose()
        .map_err(serde::de::Error::custom)
}

fn optional_end<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<civil::DateTime>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    text.map(|text| parse_end(&text))
        .transpose()
        .map_err(serde::de::Error::custom)
}

/// Reads a `start`: `2026-01-31T09:00`, or a date alone for its midnight.
///
/// # Errors
/// [`SpecError`] for the field `start`.
pub fn parse_start(text: &str) -> Result<civil::DateTime, SpecError> {
    parse_bound("start", text, civil::Time::midnight())
}

/// Reads an `end`: `2026-01-31T09:00`, or a date alone for all of that day.
///
/// # Errors
/// [`SpecError`] for the field `end`.
pub fn parse_end(text: &str) -> Result<civil::DateTime, SpecError> {
    parse_bound("end", text, civil::Time::constant(23, 59, 59, 0))
}

fn parse_bound(field: &'static str, text: &str, time_of_date: civil::Time) -> Result<civil::DateTime, SpecError> {
    let text = text.trim();
    let offset = text.ends_with(['Z', 'z']) || text.contains('+') || text.contains('[');
    let date_alone = text.len() == "2026-01-31".len();
    let parsed = if date_alone {
        text.parse::<civil::Date>()
            .map(|date| date.to_datetime(time_of_date))
            .ok()
    } else {
        text.parse::<civil::DateTime>().ok()
    };
    parsed.filter(|_| !offset).ok_or_else(|| {
        SpecError::new(field, "write a date (2026-01-31) or a date and time without an offset (2026-01-31T09:00), in the schedule's time zone")
    })
}

impl ScheduleSpec {
    /// The names of its fields. Reading one ignores others, since a newer version may have stored more; whoever reads
    /// what a user writes refuses what is not among these.
    pub const FIELDS: &[&str] = &[
        "cron",
        "rrule",
        "every",
        "at",
        "time_zone",
        "start",
        "end",
        "exdates",
        "rdates",
        "month_end",
    ];

    /// Reads a block of iCalendar lines (DTSTART, RRULE, EXDATE, RDATE) as calendars export them. `time_zone` is for
    /// a DTSTART without TZID. Month ends become [`MonthEnd::Strict`].
    ///
    /// # Errors
    /// [`SpecError`] for the field `rrule`.
    pub fn from_icalendar(text: &str, time_zone: &str) -> Result<Self, SpecError> {
        ical::parse(text, time_zone).map_err(|error| SpecError::new("rrule", &error))
    }
}

/// A checked schedule. Asking it is pure and bounded, and never fails.
#[derive(Debug, Clone)]
pub struct Schedule {
    rule: Rule,
    zone: TimeZone,
    /// One nanosecond before the first instant that is allowed.
    before_start: Option<Timestamp>,
    end: Option<Timestamp>,
    /// Sorted.
    exdates: Vec<civil::DateTime>,
    /// Sorted, without the exceptions.
    rdates: Vec<Timestamp>,
}

#[derive(Debug, Clone)]
enum Rule {
    Cron(Cron),
    Rrule(Box<Series>),
    Calendar(CalendarSteps),
    Exact { anchor: Timestamp, seconds: i64 },
}

impl Schedule {
    /// Checks a specification. `anchor` is the instant from which `every` counts and the start of an `rrule` when the
    /// specification has no `start`: keep it with the schedule (its time of creation), and the same occurrences come
    /// out each time.
    ///
    /// # Errors
    /// [`SpecError`] names the first field that is wrong. A schedule that can never fire is refused.
    pub fn new(spec: &ScheduleSpec, anchor: Timestamp) -> Result<Self, SpecError> {
        Self::build(spec, anchor, Rrule::parse)
    }

    /// As [`Schedule::new`], and an `rrule` may have any FREQ. For looking at foreign rules, not for users' tasks.
    ///
    /// # Errors
    /// As [`Schedule::new`].
    pub fn with_any_frequency(spec: &ScheduleSpec, anchor: Timestamp) -> Result<Self, SpecError> {
        Self::build(spec, anchor, Rrule::parse_any_frequency)
    }

    fn build(
        spec: &ScheduleSpec,
        anchor: Timestamp,
        parse_rrule: fn(&str) -> Result<Rrule, Error>,
    ) -> Result<Self, SpecError> {
        let zone = zone::time_zone(&spec.time_zone).map_err(|error| SpecError::new("time_zone", &error))?;
        let field = chosen_field([("cron", &spec.cron), ("rrule", &spec.rrule), ("every", &spec.every)])?;
        if spec.at.is_some() && spec.cron.is_some() {
            return Err(SpecError::new(
                "at",
                "a cron expression holds its own times; at goes with rrule and every",
            ));
        }
        let first = first_date_time(spec, anchor, &zone);
        let (rule, text) = match (&spec.cron, &spec.rrule, &spec.every) {
            (Some(text), _, _) => (Cron::parse(text).map(Rule::Cron), text),
            (_, Some(text), _) => {
                let series = parse_rrule(text).and_then(|rule| rule.series(first, &zone, spec.month_end));
                (series.map(|series| Rule::Rrule(Box::new(series))), text)
            }
            (_, _, Some(text)) => {
                let exact_anchor = match (spec.start, spec.at) {
                    (None, None) => anchor,
                    _ => zone::resolve(first, &zone),
                };
                (
                    text.parse()
                        .map(|every| Rule::every(every, first, exact_anchor, spec.month_end)),
                    text,
                )
            }
            (None, None, None) => return Err(SpecError::new(field, EXACTLY_ONE)),
        };
        let rule = rule.map_err(|error| SpecError::new(field, &error))?;

        let before_start = spec.start.map(|start| instant_before(zone::resolve(start, &zone)));
        // In an overlap the end is the second pass: what was asked for is in.
        let end = spec
            .end
            .map(|end| zone.to_ambiguous_timestamp(end).later().unwrap_or(Timestamp::MAX));
        if let (Some(start), Some(end)) = (spec.start, spec.end)
            && end < start
        {
            return Err(SpecError::new("end", "it is before start"));
        }
        let mut exdates = spec.exdates.clone();
        exdates.sort_unstable();
        let mut rdates: Vec<Timestamp> = (spec.rdates.iter())
            .filter(|rdate| exdates.binary_search(rdate).is_err())
            .map(|&rdate| zone::resolve(rdate, &zone))
            .collect();
        rdates.sort_unstable();

        let schedule = Self {
            rule,
            zone,
            before_start,
            end,
            exdates,
            rdates,
        };
        // A cron expression has no beginning of its own: without a start it begins at the anchor.
        let beginning = match &schedule.rule {
            Rule::Cron(_) => before_start.unwrap_or_else(|| instant_before(anchor)),
            _ => Timestamp::MIN,
        };
        match schedule.next_after(beginning) {
            Some(_) => Ok(schedule),
            None if spec.end.is_some() => Err(SpecError::new(
                "end",
                "no occurrence is before it, so the schedule would never fire",
            )),
            None => Err(SpecError::new(
                field,
                &Error::NeverFires(text.chars().take(60).collect()),
            )),
        }
    }

    /// The zone that the schedule's clock is in.
    pub fn time_zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first occurrence after an instant; `None` when there are no more.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = self.before_start.map_or(after, |start| start.max(after));
        let added = self
            .rdates
            .get(self.rdates.partition_point(|&rdate| rdate <= after))
            .copied();
        let next = match (self.next_by_rule(after), added) {
            (Some(by_rule), Some(added)) => by_rule.min(added),
            (by_rule, added) => by_rule.or(added)?,
        };
        (self.end.is_none_or(|end| next <= end)).then_some(next)
    }

    /// All occurrences after an instant, in order. The iterator may be endless.
    pub fn after(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next_after(after), |&last| self.next_after(last))
    }

    fn next_by_rule(&self, after: Timestamp) -> Option<Timestamp> {
        let excluded = &self.exdates;
        match &self.rule {
            Rule::Cron(cron) => cron.next_of(&Without { rule: cron, excluded }, after, &self.zone),
            Rule::Rrule(series) => {
                let next = next_once(
                    &Without {
                        rule: &**series,
                        excluded,
                    },
                    &self.zone,
                    after,
                    Gap::Moved,
                )?;
                series.until().is_none_or(|until| next <= until).then_some(next)
            }
            Rule::Calendar(rule) => next_once(&Without { rule, excluded }, &self.zone, after, Gap::Moved),
            &Rule::Exact { anchor, seconds } => {
                let mut next = next_exact(anchor, seconds, after)?;
                while excluded.binary_search(&self.zone.to_datetime(next)).is_ok() {
                    steps::tick();
                    next = next_exact(anchor, seconds, next)?;
                }
                Some(next)
            }
        }
    }
}

impl Rule {
    fn every(every: Every, first: civil::DateTime, exact_anchor: Timestamp, month_end: Option<MonthEnd>) -> Self {
        let step = every.step();
        match (
            step,
            CalendarSteps::new(first, step, month_end.unwrap_or(MonthEnd::Clamp)),
        ) {
            (_, Some(steps)) => Self::Calendar(steps),
            (Step::Seconds(seconds), None) => Self::Exact {
                anchor: exact_anchor,
                seconds,
            },
            (Step::Days(_) | Step::Months(_), None) => unreachable!("calendar steps are always a calendar rule"),
        }
    }
}

/// Where `rrule` and `every` count from.
fn first_date_time(spec: &ScheduleSpec, anchor: Timestamp, zone: &TimeZone) -> civil::DateTime {
    let base = spec.start.unwrap_or_else(|| zone.to_datetime(anchor));
    let time = spec.at.unwrap_or_else(|| base.time());
    base.date()
        .to_datetime(time.with().subsec_nanosecond(0).build().unwrap_or(time))
}

fn instant_before(at: Timestamp) -> Timestamp {
    at.checked_sub(1.nanosecond()).unwrap_or(Timestamp::MIN)
}

pub(crate) const EXACTLY_ONE: &str = "exactly one of cron, rrule, every must be given";

/// The one field that is given; the second one is at fault when there are more.
pub(crate) fn chosen_field(fields: [(&'static str, &Option<String>); 3]) -> Result<&'static str, SpecError> {
    let mut given = fields.iter().filter(|(_, text)| text.is_some()).map(|(name, _)| *name);
    match (given.next(), given.next()) {
        (Some(field), None) => Ok(field),
        (_, Some(second)) => Err(SpecError::new(second, EXACTLY_ONE)),
        (None, None) => Err(SpecError::new("cron", EXACTLY_ONE)),
    }
}
