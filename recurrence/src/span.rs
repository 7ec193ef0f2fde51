//! `Span`: a length of time as people write it, `90s`, `30m`, `8h`, `2d`, `1w`.
//!
//! One number and one unit, and an exact count of seconds: a day is 24 hours, whatever the clocks do. What is meant in
//! civil time (tomorrow, next month) is a schedule, not a span. A span prints as it was written.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time: a number of at most [`Span::MAX_COUNT`] and a unit. Two spans are equal when they last equally long.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    count: u32,
    unit: Unit,
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
}

impl Unit {
    const ALL: [Self; 5] = [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week];

    const fn letter(self) -> char {
        match self {
            Self::Second => 's',
            Self::Minute => 'm',
            Self::Hour => 'h',
            Self::Day => 'd',
            Self::Week => 'w',
        }
    }

    const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 60 * 60,
            Self::Day => 24 * 60 * 60,
            Self::Week => 7 * 24 * 60 * 60,
        }
    }
}

impl Span {
    /// The largest number that may stand before the unit.
    pub const MAX_COUNT: u32 = 999_999;

    /// The regular expression (as schemas write it) of exactly those texts that parse.
    pub const PATTERN: &str = "^[0-9]{1,6}[smhdw]$";

    /// A span of minutes; at most [`Span::MAX_COUNT`].
    pub const fn minutes(count: u32) -> Self {
        Self::new(count, Unit::Minute)
    }

    /// A span of hours; at most [`Span::MAX_COUNT`].
    pub const fn hours(count: u32) -> Self {
        Self::new(count, Unit::Hour)
    }

    /// A span of days of 24 hours; at most [`Span::MAX_COUNT`].
    pub const fn days(count: u32) -> Self {
        Self::new(count, Unit::Day)
    }

    const fn new(count: u32, unit: Unit) -> Self {
        assert!(count <= Self::MAX_COUNT, "a span's number has at most six digits");
        Self { count, unit }
    }

    /// The span of so many seconds, in the largest unit that holds them exactly; what [`Span::seconds`] gave comes back.
    pub fn from_seconds(seconds: u64) -> Self {
        let exact = Unit::ALL
            .into_iter()
            .rev()
            .find(|unit| seconds.is_multiple_of(unit.seconds()));
        let unit = exact.filter(|_| seconds > 0).unwrap_or(Unit::Second);
        let count = u32::try_from(seconds / unit.seconds()).unwrap_or(Self::MAX_COUNT);
        Self::new(count.min(Self::MAX_COUNT), unit)
    }

    /// How long it lasts, in seconds.
    pub const fn seconds(self) -> u64 {
        self.count as u64 * self.unit.seconds()
    }

    /// How long it lasts, to reckon with instants.
    pub const fn duration(self) -> SignedDuration {
        // At most 999,999 weeks, far below what an i64 holds.
        SignedDuration::from_secs(self.seconds().cast_signed())
    }
}

/// Why a text is not a [`Span`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a duration; write one number of at most six digits and one of the units s, m, h, d, w, such as 90s, 30m, 8h, 2d or 1w"
)]
pub struct SpanError(String);

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || SpanError(text.chars().take(64).collect());
        let unit = Unit::ALL
            .into_iter()
            .find(|unit| text.ends_with(unit.letter()))
            .ok_or_else(refused)?;
        let digits = &text[..text.len() - 1];
        let digits_only = (1..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        let count = digits.parse().ok().filter(|_| digits_only).ok_or_else(refused)?;
        Ok(Self { count, unit })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.count, self.unit.letter())
    }
}

impl PartialEq for Span {
    fn eq(&self, other: &Self) -> bool {
        self.seconds() == other.seconds()
    }
}

impl Eq for Span {}

impl PartialOrd for Span {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Span {
    fn cmp(&self, other: &Self) -> Ordering {
        self.seconds().cmp(&other.seconds())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_unit_is_an_exact_number_of_seconds() {
        for (text, seconds) in [
            ("0m", 0),
            ("90s", 90),
            ("30m", 1_800),
            ("8h", 28_800),
            ("2d", 172_800),
            ("1w", 604_800),
        ] {
            let span: Span = text.parse().expect("a span");
            assert_eq!(span.seconds(), seconds, "{text}");
            assert_eq!(
                span.duration(),
                SignedDuration::from_secs(seconds.cast_signed()),
                "{text}"
            );
            assert_eq!(span.to_string(), text);
        }
        assert_eq!("24h".parse::<Span>(), "1d".parse());
        assert!("25h".parse::<Span>().ok() > "1d".parse().ok());
    }

    #[test]
    fn what_is_not_one_number_and_one_unit_is_refused() {
        for text in [
            "", "m", "30", "30 m", " 30m", "1h30m", "-1h", "+1h", "1.5h", "1M", "1000000s", "30µ", "ä", "P1D",
        ] {
            let error = text.parse::<Span>().expect_err(text);
            assert!(error.to_string().contains("such as 90s, 30m, 8h, 2d or 1w"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_span_prints_as_it_was_written(count in 0..=Span::MAX_COUNT, unit in "[smhdw]") {
            let text = format!("{count}{unit}");
            let span: Span = text.parse().expect("a span");
            prop_assert_eq!(span.to_string(), text);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,12}") {
            let _ = text.parse::<Span>();
        }
    }
}
