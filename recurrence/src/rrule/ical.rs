//! A block of iCalendar lines: DTSTART, RRULE, EXDATE and RDATE, as calendars export them.

use jiff::{civil::DateTime, tz::TimeZone};

use super::parse::{Written, date_time, utc};
use crate::{Error, MonthEnd, ScheduleSpec, error::quoted, zone};

/// Longer blocks are refused unread.
const LONGEST: usize = 100_000;

/// The specification that a block of lines describes. Times in UTC become wall-clock times of the zone of DTSTART's
/// TZID, or of `time_zone` where DTSTART names none. Month ends are strict, as RFC 5545 has them.
pub(crate) fn parse(text: &str, time_zone: &str) -> Result<ScheduleSpec, Error> {
    if text.len() > LONGEST {
        return Err(Error::Rrule(format!(
            "an iCalendar block has at most {LONGEST} characters"
        )));
    }
    // A line that begins with white space continues the one before it (RFC 5545 3.1).
    let unfolded = text.replace("\r\n", "\n").replace("\n ", "").replace("\n\t", "");
    let lines: Vec<Line<'_>> = unfolded
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(Line::parse)
        .collect::<Result<_, _>>()?;
    let start_line = lines.iter().find(|line| line.name == "DTSTART");
    let time_zone = start_line.and_then(|line| line.zone).unwrap_or(time_zone).to_owned();
    let zone = zone::time_zone(&time_zone)?;
    let mut spec = ScheduleSpec {
        time_zone,
        month_end: Some(MonthEnd::Strict),
        ..ScheduleSpec::default()
    };
    for line in &lines {
        let known_twice = || Err(Error::Rrule(format!("{} is given twice", line.name)));
        match line.name.as_str() {
            "DTSTART" if spec.start.is_some() => return known_twice(),
            "DTSTART" => spec.start = line.times(&zone)?.first().copied(),
            "RRULE" if spec.rrule.is_some() => return known_twice(),
            "RRULE" => spec.rrule = Some(line.value.to_owned()),
            "EXDATE" => spec.exdates.extend(line.times(&zone)?),
            "RDATE" => spec.rdates.extend(line.times(&zone)?),
            _ => {
                return Err(Error::Rrule(format!(
                    "unknown line {}; allowed are DTSTART, RRULE, EXDATE and RDATE",
                    quoted(&line.name)
                )));
            }
        }
    }
    Ok(spec)
}

struct Line<'a> {
    name: String,
    /// The TZID parameter.
    zone: Option<&'a str>,
    value: &'a str,
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Result<Self, Error> {
        let (head, value) = text
            .split_once(':')
            .ok_or_else(|| Error::Rrule(format!("{} is no NAME:VALUE line of a calendar", quoted(text))))?;
        let mut parameters = head.split(';');
        let name = parameters.next().unwrap_or_default().trim().to_ascii_uppercase();
        let zone = parameters.find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.eq_ignore_ascii_case("TZID").then(|| value.trim_matches('"'))
        });
        Ok(Self {
            name,
            zone,
            value: value.trim(),
        })
    }

    /// The values as wall-clock times in `zone`.
    fn times(&self, zone: &TimeZone) -> Result<Vec<DateTime>, Error> {
        let own_zone = self.zone.map(zone::time_zone).transpose()?;
        let time = |value: &str| -> Option<DateTime> {
            let (at, written) = date_time(value.trim())?;
            Some(match (written, &own_zone) {
                (Written::Utc, _) => zone.to_datetime(utc(at)?),
                (Written::Clock, Some(own)) if own != zone => zone.to_datetime(zone::resolve(at, own)),
                _ => at,
            })
        };
        let times = self.value.split(',').map(|value| {
            time(value).ok_or_else(|| Error::Rrule(format!("{} {}: no date or date-time", self.name, quoted(value))))
        });
        times.collect()
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn a_block_from_a_calendar_is_read_whole() -> Result<(), Error> {
        let block = "DTSTART;TZID=America/New_York:20250101T090000\r\nRRULE:FREQ=WEEKLY;\r\n BYDAY=WE\r\n\
                     EXDATE;TZID=America/New_York:20250108T090000,20250115T090000\r\nEXDATE:20250122T140000Z\r\n\
                     RDATE;TZID=Europe/Berlin:20250103T150000\r\n";
        let spec = parse(block, "UTC")?;
        assert_eq!(spec.time_zone, "America/New_York");
        assert_eq!(spec.rrule.as_deref(), Some("FREQ=WEEKLY;BYDAY=WE"));
        assert_eq!(spec.start, Some(date(2025, 1, 1).at(9, 0, 0, 0)));
        assert_eq!(spec.exdates, [8, 15, 22].map(|day| date(2025, 1, day).at(9, 0, 0, 0)));
        assert_eq!(spec.rdates, [date(2025, 1, 3).at(9, 0, 0, 0)]);
        Ok(())
    }

    #[test]
    fn a_line_that_is_not_understood_is_refused() {
        for block in [
            "RRULE",
            "EXRULE:FREQ=DAILY",
            "DTSTART:2025",
            "DTSTART;TZID=Mars/Base:20250101",
            "RRULE:A=1\nRRULE:B=2",
        ] {
            assert!(parse(block, "UTC").is_err(), "{block}");
        }
    }
}
