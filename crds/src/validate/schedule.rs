//! What a schedule's fields must be to each other, and in themselves beyond the schema.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use todo_recurrence::placeholder::Template;
use todo_recurrence::span::Span;
use todo_recurrence::{self as recurrence, Cron, Schedule, ScheduleSpec, SpecError, zone};

use super::{Problem, given};
use crate::schedule::{MonthEnd, RecurringSchedule, RecurringScheduleSpec, TaskTemplate};
use crate::words::quoted;
use crate::yaml::path;

/// The longest span that a schedule's fields take: ten years of days.
const LONGEST: Span = Span::days(3660);
/// The longest time between a reminder and what it is a reminder of.
const LONGEST_REMINDER: Span = Span::days(366);

impl RecurringSchedule {
    /// What the schema does not say: the CEL rules, and what CEL cannot say.
    pub(crate) fn rules(&self, problems: &mut Vec<Problem>) {
        let spec = &self.spec;
        if is_blank_or_has_control(&spec.user) {
            let message = format!(
                "{} is nobody; allowed: the sub of a person's tokens",
                quoted(&spec.user)
            );
            problems.push(Problem::new("spec.user", message));
        }
        when(
            spec,
            self.metadata.creation_timestamp.as_ref().map(|time| time.0),
            problems,
        );
        let window = spec.catch_up.window;
        if window < Span::minutes(1) || window > LONGEST {
            let message = format!("{window} is out of range; allowed: 1m to {LONGEST}");
            problems.push(Problem::new("spec.catchUp.window", message));
        }
        template(&spec.template, problems);
    }
}

impl RecurringScheduleSpec {
    /// When, as `todo-recurrence` takes it.
    ///
    /// # Errors
    /// The field, by its name there, that is not a time. A valid schedule has none.
    pub fn recurrence(&self) -> Result<ScheduleSpec, SpecError> {
        let time = |text: &String| {
            text.parse().map_err(|_| SpecError {
                field: "at",
                message: "write a time of day such as 17:00".to_owned(),
            })
        };
        Ok(ScheduleSpec {
            cron: self.schedule.cron.clone(),
            rrule: self.schedule.rrule.clone(),
            every: self.schedule.every.clone(),
            at: self.at.as_ref().map(time).transpose()?,
            time_zone: self.time_zone.clone(),
            start: self.start.as_deref().map(recurrence::parse_start).transpose()?,
            end: self.end.as_deref().map(recurrence::parse_end).transpose()?,
            exdates: Vec::new(),
            rdates: Vec::new(),
            month_end: self.month_end.map(|month_end| match month_end {
                MonthEnd::Clamp => recurrence::MonthEnd::Clamp,
                MonthEnd::Strict => recurrence::MonthEnd::Strict,
            }),
        })
    }
}

fn when(spec: &RecurringScheduleSpec, created: Option<Timestamp>, problems: &mut Vec<Problem>) {
    let rhythm = &spec.schedule;
    if given([rhythm.cron.is_some(), rhythm.rrule.is_some(), rhythm.every.is_some()]) != 1 {
        let message = "not exactly one rule is given; give one of cron, rrule, every";
        problems.push(Problem::new("spec.schedule", message));
        return;
    }
    // Without a cluster there is no time of creation yet. An early one finds the rule's mistakes, and does not mistake
    // a schedule that has ended for one that never was.
    let anchor = created.unwrap_or_else(|| Timestamp::constant(946_684_800, 0));
    for (name, text, parse) in [
        ("start", &spec.start, recurrence::parse_start as fn(&str) -> _),
        ("end", &spec.end, recurrence::parse_end),
    ] {
        if let Some((text, Err(error))) = text.as_ref().map(|text| (text, parse(text))) {
            problems.push(Problem::new(
                format!("spec.{name}"),
                format!("{} is no day; {}", quoted(text), error.message),
            ));
            return;
        }
    }
    if let Err(error) = spec.recurrence().and_then(|when| Schedule::new(&when, anchor)) {
        problems.push(Problem::of_rule(&error));
    }
}

impl Problem {
    /// What is wrong with when a schedule's occurrences are.
    pub(crate) fn of_rule(error: &SpecError) -> Self {
        Self::new(path_of(error.field), error.message.as_str())
    }
}

/// The manifest's path of a field of [`ScheduleSpec`].
fn path_of(field: &str) -> String {
    match field {
        "cron" | "rrule" | "every" => path::field("spec.schedule", field),
        "time_zone" => "spec.timeZone".to_owned(),
        "month_end" => "spec.monthEnd".to_owned(),
        other => path::field("spec", other),
    }
}

/// A cron expression and the zone that it is read in, under `at`.
pub(super) fn cron(expression: &str, time_zone: &str, at: &str, problems: &mut Vec<Problem>) {
    if let Err(error) = Cron::parse(expression) {
        problems.push(Problem::new(format!("{at}.cron"), error.to_string()));
    }
    if let Err(error) = zone::time_zone(time_zone) {
        problems.push(Problem::new(format!("{at}.timeZone"), error.to_string()));
    }
}

fn template(template: &TaskTemplate, problems: &mut Vec<Problem>) {
    let at = "spec.template";
    title(&template.title, problems);
    if let Some(description) = &template.description {
        if let Err(message) = Template::parse(description) {
            problems.push(Problem::new(format!("{at}.description"), message));
        } else if description.contains('\0') {
            problems.push(Problem::new(
                format!("{at}.description"),
                "it holds the character U+0000; leave it out",
            ));
        }
    }
    if let Some(category) = &template.category
        && is_blank_or_has_control(category)
    {
        let message = format!(
            "{} is not a category; allowed: 1 to 100 characters, not blank, on one line",
            quoted(category)
        );
        problems.push(Problem::new(format!("{at}.category"), message));
    }
    let tags: Vec<String> = template.tags.iter().map(|tag| tag.trim().to_lowercase()).collect();
    for (index, tag) in template.tags.iter().enumerate() {
        let here = path::item(&format!("{at}.tags"), index);
        if is_blank_or_has_control(tag) {
            let message = format!(
                "{} is not a tag; allowed: 1 to 50 characters, not blank, on one line",
                quoted(tag)
            );
            problems.push(Problem::new(here, message));
        } else if tags[..index].contains(&tags[index]) {
            problems.push(Problem::new(
                here,
                format!("{} is there twice; keep one of them", quoted(tag)),
            ));
        }
    }
    if let Some(due_in) = template.due_in.filter(|due_in| *due_in > LONGEST) {
        let message = format!("{due_in} is out of range; allowed: up to {LONGEST}");
        problems.push(Problem::new(format!("{at}.dueIn"), message));
    }
    reminders(template, problems);
}

fn title(title: &str, problems: &mut Vec<Problem>) {
    let at = "spec.template.title";
    if is_blank_or_has_control(title) {
        let message = format!(
            "{} is not a title; allowed: 1 to 500 characters, not blank, on one line",
            quoted(title)
        );
        problems.push(Problem::new(at, message));
        return;
    }
    match Template::parse(title) {
        Err(message) => problems.push(Problem::new(at, message)),
        Ok(template) => {
            // A Wednesday in September: no date is longer in English.
            let long_day = jiff::civil::date(2026, 9, 30).at(20, 30, 0, 0).to_zoned(TimeZone::UTC);
            let shown = long_day.map_or(0, |day| template.render(&day, 1_000_000).chars().count());
            if shown > 500 {
                let message =
                    format!("with its placeholders filled in it has {shown} characters; allowed: 1 to 500 characters");
                problems.push(Problem::new(at, message));
            }
        }
    }
}

fn is_blank_or_has_control(text: &str) -> bool {
    text.trim().is_empty() || text.contains(char::is_control)
}

/// A reminder before the occurrence would be due before its task exists.
fn reminders(template: &TaskTemplate, problems: &mut Vec<Problem>) {
    let at = "spec.template.reminders";
    let Some(due_in) = template.due_in else {
        if !template.reminders.is_empty() {
            let message = "reminders are before the due time, and there is none; give spec.template.dueIn";
            problems.push(Problem::new(at, message));
        }
        return;
    };
    for (index, reminder) in template.reminders.iter().enumerate() {
        let here = path::field(&path::item(at, index), "before");
        if reminder.before > LONGEST_REMINDER {
            let message = format!("{} is out of range; allowed: up to {LONGEST_REMINDER}", reminder.before);
            problems.push(Problem::new(here, message));
        } else if reminder.before > due_in {
            let before = reminder.before;
            let message =
                format!("{before} before the due time is before the task exists; allowed: at most dueIn, {due_in}");
            problems.push(Problem::new(here, message));
        } else if template.reminders[..index].contains(reminder) {
            problems.push(Problem::new(
                here,
                format!("{} is there twice; keep one of them", reminder.before),
            ));
        }
    }
}
