//! Placeholders in the texts of a schedule's tasks: `Weekly review {{date}}`, `Close the books for {{date:%B %Y}}`.
//!
//! A text is parsed once, when the schedule is declared, and refused then if it holds anything unknown: rendering
//! cannot fail. What a placeholder shows is the occurrence's own civil time in the schedule's zone, never the moment
//! at which a worker got to it.

use std::fmt::Write as _;

use jiff::Zoned;
use jiff::fmt::strtime;

/// The placeholders, as messages list them.
pub const PLACEHOLDERS: &str = "{{date}}, {{date:%B %Y}}, {{time}}, {{weekday}}, {{week}}, {{n}}";

/// A text with placeholders, known to render.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// `{{date}}` is `2026-11-30`; `{{time}}` is `17:00`; `{{date:…}}` is whatever strftime pattern it holds.
    Pattern(String),
    /// `{{weekday}}`: the English name.
    Weekday,
    /// `{{week}}`: the ISO 8601 week, `2026-W49`.
    Week,
    /// `{{n}}`: which occurrence of the schedule this is, from 1.
    Count,
}

impl Template {
    /// Reads a text. `{{` always begins a placeholder; a single `{` is itself. The error says what is wrong, and what
    /// is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once("{{") {
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            let Some((name, after)) = after.split_once("}}") else {
                return Err(format!(
                    "\"{{{{\" without \"}}}}\" after it; placeholders are {PLACEHOLDERS}"
                ));
            };
            parts.push(Part::parse(name)?);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// The text for one occurrence: its civil time and zone, and which one it is (from 1).
    pub fn render(&self, local: &Zoned, n: u64) -> String {
        let mut text = String::new();
        for part in &self.parts {
            // Writing to a String cannot fail, and `parse` tried each pattern.
            let written = match part {
                Part::Literal(literal) => text.write_str(literal),
                Part::Pattern(pattern) => write!(text, "{}", local.strftime(pattern)),
                Part::Weekday => write!(text, "{}", local.strftime("%A")),
                Part::Week => {
                    let week = local.date().iso_week_date();
                    write!(text, "{}-W{:02}", week.year(), week.week())
                }
                Part::Count => write!(text, "{n}"),
            };
            debug_assert!(written.is_ok(), "parse lets through only what renders: {part:?}");
        }
        text
    }
}

impl Part {
    fn parse(name: &str) -> Result<Self, String> {
        match name.trim() {
            "date" => Ok(Self::Pattern("%Y-%m-%d".to_owned())),
            "time" => Ok(Self::Pattern("%H:%M".to_owned())),
            "weekday" => Ok(Self::Weekday),
            "week" => Ok(Self::Week),
            "n" => Ok(Self::Count),
            other => match other.split_once(':') {
                Some(("date" | "time", pattern)) => Self::pattern(pattern),
                _ => Err(format!(
                    "unknown placeholder \"{{{{{other}}}}}\"; placeholders are {PLACEHOLDERS}"
                )),
            },
        }
    }

    fn pattern(pattern: &str) -> Result<Self, String> {
        if pattern.trim().is_empty() {
            return Err(format!(
                "a placeholder without a pattern after \":\"; placeholders are {PLACEHOLDERS}"
            ));
        }
        match strtime::format(pattern, &Zoned::default()) {
            Ok(_) => Ok(Self::Pattern(pattern.to_owned())),
            Err(error) => Err(format!(
                "\"{pattern}\" is not a date pattern ({error}); patterns are made of codes such as %Y %m %d %B %A %H %M"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn month_end() -> Zoned {
        let zone = jiff::tz::TimeZoneDatabase::bundled()
            .get("America/New_York")
            .expect("a zone");
        jiff::civil::date(2026, 11, 30)
            .at(17, 0, 0, 0)
            .to_zoned(zone)
            .expect("an instant")
    }

    #[test]
    fn each_placeholder_shows_the_occurrence() {
        for (text, shown) in [
            ("Weekly review {{date}}", "Weekly review 2026-11-30"),
            (
                "Close the books for {{date:%B %Y}}",
                "Close the books for November 2026",
            ),
            ("{{ weekday }} at {{time}}", "Monday at 17:00"),
            ("{{time:%I:%M %p}}", "05:00 PM"),
            ("{{week}} #{{n}}", "2026-W49 #12"),
            ("a { b } c", "a { b } c"),
            ("", ""),
        ] {
            let template = Template::parse(text).expect(text);
            assert_eq!(template.render(&month_end(), 12), shown);
        }
    }

    #[test]
    fn an_iso_week_belongs_to_its_own_year() {
        let zone = jiff::tz::TimeZone::UTC;
        let new_year = jiff::civil::date(2027, 1, 1)
            .at(9, 0, 0, 0)
            .to_zoned(zone)
            .expect("an instant");
        let template = Template::parse("{{week}}").expect("a template");
        assert_eq!(template.render(&new_year, 1), "2026-W53");
    }

    #[test]
    fn what_cannot_be_shown_is_refused_when_it_is_declared() {
        for text in [
            "{{data}}",
            "{{}}",
            "{{date",
            "{{date:}}",
            "{{date:%}}",
            "{{date:%!}}",
            "{{week:%Y}}",
        ] {
            let message = Template::parse(text).expect_err(text);
            assert!(
                message.contains("placeholders are") || message.contains("patterns are"),
                "{message}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_parses_renders(text in "(\\PC{0,8}|\\{\\{(date|time)?:?[%a-zA-Z -]{0,6}\\}\\}){0,3}") {
            if let Ok(template) = Template::parse(&text) {
                template.render(&month_end(), u64::MAX);
            }
        }
    }
}
