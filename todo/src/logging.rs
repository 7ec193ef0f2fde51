//! Logs: on standard error, as text for a terminal and as JSON for machines.
//!
//! A line names the trace that it belongs to, as `trace_id` and `span_id` in hexadecimal, when it is written within
//! one. Other fields of spans are not repeated: what a line is about, its own fields say.

use std::fmt;
use std::io::IsTerminal;

use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::{Map, Value};
use todo_events::Trace;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::telemetry::Spans;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged unless `RUST_LOG` says otherwise.
const DEFAULT_FILTER: &str = "info,sqlx=warn";

/// Begins logging in this format; without one, as text on a terminal and as JSON elsewhere. For commands that end:
/// [`crate::telemetry::begin`] is for processes that serve.
pub(crate) fn init(format: Option<LogFormat>) {
    begin(format, Spans::default());
}

/// The same, with a recording of spans.
pub(crate) fn begin(format: Option<LogFormat>, spans: Spans) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let on_terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if on_terminal { LogFormat::Text } else { LogFormat::Json });
    subscriber(format, on_terminal, filter, std::io::stderr, spans).init();
}

fn subscriber<W>(format: LogFormat, colours: bool, filter: EnvFilter, writer: W, spans: Spans) -> impl Subscriber
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match format {
        LogFormat::Text => lines
            .fmt_fields(TraceOnly)
            .with_ansi(colours)
            .with_target(false)
            .boxed(),
        LogFormat::Json => lines.fmt_fields(Nothing).event_format(JsonLines).boxed(),
    };
    tracing_subscriber::registry()
        .with(AndTraces::new(filter))
        .with(spans)
        .with(lines)
}

/// What the filter lets through, and whatever it says spans that carry a trace: the lines that are left need their ids,
/// and a recording needs them all.
///
/// One filter before all layers, and not one for each: those keep what they decided about a callsite until the next
/// span or event of the thread, and so swallow a span when somebody only asks whether an event would be logged, as sqlx
/// does.
struct AndTraces {
    filter: EnvFilter,
    /// Whether it says other things within some spans (`[span]=debug`), and so must be told of all of them: it takes a
    /// lock each time that one is entered or left, and a request is for each of its polls.
    looks_at_spans: bool,
}

impl AndTraces {
    fn new(filter: EnvFilter) -> Self {
        Self {
            looks_at_spans: filter.to_string().contains('['),
            filter,
        }
    }
}

fn carries_a_trace(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.fields().field("trace_id").is_some()
}

impl<S: Subscriber> Layer<S> for AndTraces {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Asked in any case: it notes which spans it looks at.
        let interest = Layer::<S>::register_callsite(&self.filter, metadata);
        if carries_a_trace(metadata) {
            Interest::always()
        } else {
            interest
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        carries_a_trace(metadata) || self.filter.enabled(metadata, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Layer::<S>::max_level_hint(&self.filter).map(|hint| hint.max(LevelFilter::INFO))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if self.looks_at_spans {
            self.filter.on_new_span(attributes, id, context);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if self.looks_at_spans {
            self.filter.on_record(id, values, context);
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if self.looks_at_spans {
            self.filter.on_enter(id, context);
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        if self.looks_at_spans {
            self.filter.on_exit(id, context);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if self.looks_at_spans {
            self.filter.on_close(id, context);
        }
    }
}

/// Of a span's fields only the trace, as people copy it.
struct TraceOnly;

impl<'writer> FormatFields<'writer> for TraceOnly {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut found = TraceId(None);
        fields.record(&mut found);
        match found.0 {
            Some(trace_id) => write!(writer, "trace_id={trace_id:032x}"),
            // The fields of an event, or of a span of somebody else's.
            None => DefaultFields::new().format_fields(writer, fields),
        }
    }

    fn add_fields(&self, _current: &'writer mut FormattedFields<Self>, _fields: &Record<'_>) -> fmt::Result {
        Ok(())
    }
}

struct TraceId(Option<u128>);

impl Visit for TraceId {
    fn record_u128(&mut self, field: &Field, value: u128) {
        if field.name() == "trace_id" {
            self.0 = Some(value);
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

/// None of a span's fields: [`JsonLines`] takes the trace from where [`Spans`] has put it.
struct Nothing;

impl<'writer> FormatFields<'writer> for Nothing {
    fn format_fields<R: RecordFields>(&self, _writer: Writer<'writer>, _fields: R) -> fmt::Result {
        Ok(())
    }
}

/// A line is an object: `timestamp`, `level`, `target`, `message`, the event's fields, and the ids of its trace.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Map::new();
        let now = Timestamp::now();
        line.insert("timestamp".to_owned(), format!("{now:.6}").into());
        line.insert("level".to_owned(), event.metadata().level().as_str().into());
        line.insert("target".to_owned(), event.metadata().target().into());
        event.record(&mut JsonVisitor { line: &mut line });
        let span = context.lookup_current();
        if let Some(trace) = span.as_ref().and_then(|span| span.extensions().get::<Trace>().copied()) {
            line.insert("trace_id".to_owned(), format!("{:032x}", trace.trace_id).into());
            line.insert("span_id".to_owned(), format!("{:016x}", trace.span_id).into());
        }
        let line = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

struct JsonVisitor<'line> {
    line: &'line mut Map<String, Value>,
}

impl JsonVisitor<'_> {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        match field.name() {
            // What comes from the crate `log` says here where from; the rest is about its source files.
            "log.target" => self.line.insert("target".to_owned(), value.into()),
            name if name.starts_with("log.") => None,
            name => self.line.insert(name.trim_start_matches("r#").to_owned(), value.into()),
        };
    }
}

impl Visit for JsonVisitor<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io;
    use std::sync::{Arc, Mutex};

    use todo_events::traced;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `work` runs.
    fn written(format: LogFormat, filter: &str, work: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = subscriber(
            format,
            false,
            EnvFilter::new(filter),
            move || writer.clone(),
            Spans::default(),
        );
        tracing::subscriber::with_default(subscriber, work);
        let written = page.0.lock().unwrap().clone();
        String::from_utf8(written).unwrap()
    }

    fn request() -> tracing::Span {
        let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        traced!(Trace::under(Some(caller)), "request", kind = "server", user = "ada")
    }

    #[test]
    fn a_json_line_names_its_trace_at_the_top_and_repeats_no_other_field_of_the_span() {
        // Only warnings: the span, of level info, still gives its ids.
        let lines = written(LogFormat::Json, "warn", || {
            tracing::warn!(user = 1, "outside");
            // A question about another callsite must not cost the next span.
            assert!(!tracing::enabled!(tracing::Level::DEBUG));
            request().in_scope(|| {
                tracing::info!("too little");
                tracing::warn!(tasks = 3, late = true, error = %"broken", "inside");
            });
        });
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].get("trace_id"), None);
        let mut inside = lines[1].clone();
        let fields = inside.as_object_mut().unwrap();
        let span_id = fields.remove("span_id").unwrap();
        assert_eq!(span_id.as_str().unwrap().len(), 16);
        assert_ne!(span_id, "00f067aa0ba902b7");
        assert!(
            fields
                .remove("timestamp")
                .unwrap()
                .as_str()
                .unwrap()
                .parse::<Timestamp>()
                .is_ok()
        );
        let expected = serde_json::json!({
            "level": "WARN", "target": "todo::logging::tests", "message": "inside",
            "tasks": 3, "late": true, "error": "broken",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        });
        assert_eq!(inside, expected);
    }

    #[test]
    fn a_filter_may_still_go_by_spans() {
        let lines = written(LogFormat::Text, "warn,[request]=debug", || {
            tracing::debug!("outside");
            request().in_scope(|| tracing::debug!("inside"));
        });
        assert_eq!(lines.lines().count(), 1, "{lines}");
        assert!(lines.contains("inside"), "{lines}");
    }

    #[test]
    fn a_line_for_people_names_its_trace_too() {
        let lines = written(LogFormat::Text, "info", || {
            request().in_scope(|| tracing::info!(tasks = 3, "inside"));
        });
        assert!(
            lines.contains("request{trace_id=4bf92f3577b34da6a3ce929d0e0e4736}: inside tasks=3"),
            "{lines}"
        );
    }
}
