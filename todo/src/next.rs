//! `todo next`: when a schedule fires, for people who write one and for programs that check the engine.
//!
//! For people it takes one text (cron, an RRULE, an iCalendar block or `every 2h`) and prints local times. With
//! `--stdin` it answers JSON lines, one for one. What a text means is all in `todo-recurrence`.

use std::{
    borrow::Cow,
    io::{self, BufRead, Write},
    process::ExitCode,
};

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use jiff::{Timestamp, ToSpan, civil, tz::TimeZone};
use serde::{Deserialize, Serialize};
use todo_recurrence::{MonthEnd, Schedule, ScheduleSpec, parse_start, zone};

/// More would be a mistake, and an answer is kept in memory.
const MOST_OCCURRENCES: usize = 10_000;

/// Show when a schedule fires
#[derive(Debug, Args)]
pub(crate) struct NextArgs {
    /// A cron expression ('0 9 * * 1-5', '@daily'), an RRULE ('FREQ=MONTHLY;BYDAY=-1FR') or an interval ('every 2h')
    #[arg(required_unless_present = "stdin")]
    schedule: Option<String>,

    /// IANA time zone of the schedule
    #[arg(long, visible_alias = "time-zone", value_name = "ZONE", default_value = "UTC")]
    tz: String,

    /// How many occurrences to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = 5)]
    count: usize,

    /// Show what comes after this instant, or after this wall-clock time in the zone [default: now]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,

    /// Where an RRULE or an interval starts: a date or a wall-clock time in the zone [default: --from]
    #[arg(long, value_name = "TIME")]
    start: Option<String>,

    /// Time of day for an RRULE or an interval
    #[arg(long, value_name = "HH:MM")]
    at: Option<civil::Time>,

    /// Answer JSON lines {"id","expr"|"rrule","dtstart","tz","from","count"} with {"id","next":[...]} or {"id","error"}
    #[arg(long, conflicts_with_all = ["schedule", "count", "from", "start", "at", "tz"])]
    stdin: bool,
}

/// Prints the answer. A schedule that is wrong is one line on standard error and exit code 2.
#[expect(clippy::needless_pass_by_value, reason = "a subcommand is handed its arguments")]
pub(crate) fn run(args: NextArgs) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let written = if args.stdin {
        answer_lines(io::stdin().lock(), &mut out)
    } else {
        match for_people(&args, Timestamp::now()) {
            Ok(text) => out.write_all(text.as_bytes()),
            Err(error) => {
                eprintln!("todo next: {error:#}");
                return Ok(ExitCode::from(2));
            }
        }
    };
    match written {
        // The reader has seen enough: `todo next … | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written.map(|()| ExitCode::SUCCESS).context("cannot write the answer"),
    }
}

fn for_people(args: &NextArgs, now: Timestamp) -> anyhow::Result<String> {
    ensure!(
        (1..=MOST_OCCURRENCES).contains(&args.count),
        "--count: allowed are 1 to {MOST_OCCURRENCES}"
    );
    let text = args.schedule.as_deref().unwrap_or_default().trim();
    let mut spec = recognise(text, &args.tz)?;
    let zone = zone::time_zone(&spec.time_zone)?;
    let from = args
        .from
        .as_deref()
        .map(|text| instant("--from", text, &zone))
        .transpose()?
        .unwrap_or(now);
    if let Some(start) = &args.start {
        spec.start = Some(wall_clock("--start", start, &zone)?);
    }
    spec.at = args.at.or(spec.at);
    let schedule = Schedule::new(&spec, from)?;
    let occurrences: Vec<Timestamp> = schedule.after(from).take(args.count).collect();

    let mut lines = vec![format!("{text} in {}", zone.iana_name().unwrap_or(&args.tz))];
    lines.extend(occurrences.iter().map(|&at| {
        let local = at.to_zoned(zone.clone());
        format!("{}  {}", local.strftime("%a %Y-%m-%d %H:%M:%S %Z"), until(from, at))
    }));
    if occurrences.is_empty() {
        lines.push("no occurrence after that".to_owned());
    } else if occurrences.len() < args.count {
        lines.push("the last one".to_owned());
    }
    Ok(lines.join("\n") + "\n")
}

/// Tells what kind of schedule a text is.
fn recognise(text: &str, time_zone: &str) -> anyhow::Result<ScheduleSpec> {
    let upper = text.to_ascii_uppercase();
    if upper.contains('\n') || upper.starts_with("DTSTART") {
        return Ok(ScheduleSpec::from_icalendar(text, time_zone)?);
    }
    let mut spec = ScheduleSpec {
        time_zone: time_zone.to_owned(),
        ..ScheduleSpec::default()
    };
    if upper.starts_with("RRULE:") || upper.contains("FREQ=") {
        spec.rrule = Some(text.to_owned());
    } else if let Some(("EVERY", _)) = upper.split_once(char::is_whitespace) {
        spec.every = Some(text["every".len()..].trim().to_owned());
    } else {
        spec.cron = Some(text.to_owned());
    }
    Ok(spec)
}

/// How far off an occurrence is, in its two largest units: `in 2d 3h`.
fn until(from: Timestamp, at: Timestamp) -> String {
    let seconds = (at.as_second() - from.as_second()).max(0);
    let units = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let largest = units
        .iter()
        .position(|(_, length)| seconds >= *length)
        .unwrap_or(units.len() - 1);
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (name, length) in units.iter().skip(largest).take(2) {
        let number = rest / length;
        rest %= length;
        if number > 0 || parts.is_empty() {
            parts.push(format!("{number}{name}"));
        }
    }
    format!("in {}", parts.join(" "))
}

/// An instant, or a wall-clock time in the zone.
fn instant(what: &str, text: &str, zone: &TimeZone) -> anyhow::Result<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let at = parse_start(text).map_err(|_| {
        anyhow!("{what} {text:?}: write 2026-01-31T09:00:00Z, or 2026-01-31T09:00 for the schedule's own time zone")
    })?;
    Ok(zone::resolve(at, zone))
}

/// A wall-clock time in the zone, or the wall clock at an instant.
fn wall_clock(what: &str, text: &str, zone: &TimeZone) -> anyhow::Result<civil::DateTime> {
    match text.parse::<Timestamp>() {
        Ok(at) => Ok(zone.to_datetime(at)),
        Err(_) => parse_start(text).map_err(|error| anyhow!("{what} {text:?}: {}", error.message)),
    }
}

/// One question of `--stdin`.
#[derive(Debug, Deserialize)]
struct Question<'a> {
    #[serde(borrow)]
    expr: Option<Cow<'a, str>>,
    #[serde(borrow)]
    rrule: Option<Cow<'a, str>>,
    #[serde(borrow)]
    dtstart: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tz: Cow<'a, str>,
    #[serde(borrow)]
    from: Option<Cow<'a, str>>,
    count: usize,
}

#[derive(Debug, Serialize)]
struct Answer {
    id: serde_json::Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Answers each line as soon as it is read. A line that cannot be answered gets an error; the next one is read.
fn answer_lines(mut input: impl BufRead, out: &mut impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let id = serde_json::from_slice::<serde_json::Value>(&line)
            .ok()
            .and_then(|mut question| question.get_mut("id").map(serde_json::Value::take));
        let (next, error) = match answer(&line) {
            Ok(next) => (Some(next), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        serde_json::to_writer(
            &mut *out,
            &Answer {
                id: id.unwrap_or_default(),
                next,
                error,
            },
        )?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
}

/// The occurrences that a question asks for. Rules are read as calendars write them: month ends are strict, and an
/// RRULE may have any FREQ.
fn answer(line: &[u8]) -> anyhow::Result<Vec<String>> {
    let question: Question<'_> = serde_json::from_slice(line).context("not a question")?;
    ensure!(
        question.count <= MOST_OCCURRENCES,
        "count: allowed are 0 to {MOST_OCCURRENCES}"
    );
    let zone = zone::time_zone(&question.tz)?;
    let from = question.from.map(|text| instant("from", &text, &zone)).transpose()?;
    let mut spec = match (&question.expr, &question.rrule) {
        (Some(expr), None) => ScheduleSpec {
            cron: Some(expr.to_string()),
            ..ScheduleSpec::default()
        },
        (None, Some(rrule)) if rrule.contains('\n') => ScheduleSpec::from_icalendar(rrule, &question.tz)?,
        (None, Some(rrule)) => ScheduleSpec {
            rrule: Some(rrule.to_string()),
            ..ScheduleSpec::default()
        },
        _ => bail!("exactly one of expr, rrule must be given"),
    };
    if spec.time_zone.is_empty() {
        spec.time_zone = question.tz.into_owned();
    }
    spec.month_end = Some(MonthEnd::Strict);
    if let Some(start) = &question.dtstart {
        ensure!(question.rrule.is_some(), "dtstart goes with rrule");
        spec.start = Some(wall_clock("dtstart", start, &zone)?);
    }
    let anchor = from.unwrap_or_else(Timestamp::now);
    let after = match (from, spec.start) {
        (Some(from), _) => from,
        // The first instance is asked for as well.
        (None, Some(start)) => zone::resolve(start, &zone)
            .checked_sub(1.nanosecond())
            .unwrap_or(Timestamp::MIN),
        (None, None) => anchor,
    };
    let schedule = Schedule::with_any_frequency(&spec, anchor)?;
    let occurrences = schedule.after(after).take(question.count);
    Ok(occurrences
        .map(|at| at.display_with_offset(zone.to_offset(at)).to_string())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(input: &[u8]) -> Vec<serde_json::Value> {
        let mut out = Vec::new();
        answer_lines(input, &mut out).expect("memory can be written to");
        out.split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).expect("json"))
            .collect()
    }

    #[test]
    fn every_line_is_answered_and_a_bad_one_does_not_end_the_stream() {
        let input = b"{\"id\":1,\"expr\":\"0 9 * * 1-5\",\"tz\":\"Europe/Berlin\",\"from\":\"2026-11-21T00:00:00Z\",\"count\":2}\n\
            \n\
            not json\n\
            \xff\xfe\n\
            {\"id\":\"b\",\"expr\":\"99 * * * *\",\"tz\":\"UTC\",\"from\":\"2026-01-01T00:00:00Z\",\"count\":1}\n\
            {\"id\":\"c\",\"rrule\":\"FREQ=DAILY;COUNT=2\",\"dtstart\":\"2026-01-01T09:00:00\",\"tz\":\"UTC\",\"count\":3}";
        let answers = answers(input);
        assert_eq!(answers.len(), 5);
        let next = serde_json::json!({"id": 1, "next": ["2026-11-23T09:00:00+01:00", "2026-11-24T09:00:00+01:00"]});
        assert_eq!(answers[0], next);
        assert!(answers[1]["id"].is_null() && answers[1]["error"].is_string());
        assert!(answers[2]["id"].is_null() && answers[2]["error"].is_string());
        assert!(
            answers[3]["id"] == "b"
                && answers[3]["error"]
                    .as_str()
                    .is_some_and(|error| error.contains("minute"))
        );
        assert_eq!(answers[4]["next"].as_array().map(Vec::len), Some(2));
    }

    fn shown(schedule: &str, from: &str) -> anyhow::Result<String> {
        let args = NextArgs {
            schedule: Some(schedule.to_owned()),
            tz: "europe/berlin".to_owned(),
            count: 2,
            from: Some(from.to_owned()),
            start: None,
            at: None,
            stdin: false,
        };
        for_people(&args, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn people_see_local_time_with_the_zone_and_how_far_off_it_is() -> anyhow::Result<()> {
        assert_eq!(
            shown("30 2 * * *", "2026-10-24T12:00")?,
            "30 2 * * * in Europe/Berlin\n\
             Sun 2026-10-25 02:30:00 CEST  in 14h 30min\n\
             Mon 2026-10-26 02:30:00 CET  in 1d 15h\n"
        );
        Ok(())
    }

    #[test]
    fn each_kind_of_schedule_is_recognised() -> anyhow::Result<()> {
        for (text, first) in [
            ("@daily", "Sun 2026-01-04 00:00:00 CET"),
            ("FREQ=WEEKLY;BYDAY=MO", "Mon 2026-01-05 12:00:00 CET"),
            ("RRULE:FREQ=DAILY;INTERVAL=3", "Tue 2026-01-06 12:00:00 CET"),
            ("every 90m", "Sat 2026-01-03 13:30:00 CET"),
            (
                "DTSTART;TZID=Europe/Berlin:20260101T080000\nRRULE:FREQ=DAILY",
                "Sun 2026-01-04 08:00:00 CET",
            ),
        ] {
            let shown = shown(text, "2026-01-03T12:00")?;
            assert!(shown.contains(first), "{shown}");
        }
        Ok(())
    }

    #[test]
    fn a_wrong_schedule_is_one_clear_line() {
        for text in [
            "",
            "every",
            "every 5",
            "61 * * * *",
            "FREQ=HOURLY",
            "0 0 30 2 *",
            "DTSTART:x\nRRULE:y",
        ] {
            let error = format!("{:#}", shown(text, "2026-01-03T12:00").expect_err(text));
            assert!(!error.contains('\n') && error.len() > 10, "{error}");
        }
    }
}
