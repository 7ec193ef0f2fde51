//! The layer between [`tracing`]'s spans and OpenTelemetry's.
//!
//! Of [`tracing`]'s spans only those of `todo_events::traced!` come here. Their ids were made where they were opened,
//! because an id goes into the outbox also in a process that records nothing; so this is a layer of its own, and not
//! one that makes ids itself.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use todo_events::Trace;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::export::Exporter;

/// The longest text that is kept of an attribute, in bytes.
const MAX_TEXT: usize = 1_000;

/// Keeps each span's [`Trace`] where log lines find it, and hands finished spans to an exporter if there is one.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    exporter: Option<Exporter>,
}

impl Spans {
    /// Hands finished spans to this exporter.
    pub(crate) fn to(exporter: Option<Exporter>) -> Self {
        Self { exporter }
    }
}

impl<S> Layer<S> for Spans
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut ids = Ids::default();
        attributes.record(&mut ids);
        let (Some(trace), Some(span)) = (ids.trace(), context.span(id)) else {
            return;
        };
        span.extensions_mut().insert(trace);
        if trace.sampled && self.exporter.is_some() {
            let mut recording = Recording::begin(attributes.metadata());
            attributes.record(&mut recording);
            span.extensions_mut().insert(recording);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(recording) = span.extensions_mut().get_mut::<Recording>()
        {
            values.record(recording);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let (Some(exporter), Some(span)) = (&self.exporter, context.span(&id)) else {
            return;
        };
        let mut extensions = span.extensions_mut();
        if let (Some(recording), Some(trace)) = (extensions.remove::<Recording>(), extensions.remove::<Trace>())
            && !recording.idle
        {
            exporter.send(recording.end(trace));
        }
    }
}

/// Finds the ids among a span's fields.
#[derive(Default)]
struct Ids {
    trace_id: u128,
    span_id: u64,
    parent_span_id: Option<u64>,
    sampled: bool,
}

impl Ids {
    fn trace(&self) -> Option<Trace> {
        (self.trace_id != 0 && self.span_id != 0).then_some(Trace {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_span_id: self.parent_span_id,
            sampled: self.sampled,
        })
    }
}

impl Visit for Ids {
    fn record_u128(&mut self, field: &Field, value: u128) {
        if field.name() == "trace_id" {
            self.trace_id = value;
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "span_id" => self.span_id = value,
            "parent_span_id" => self.parent_span_id = Some(value),
            _ => {}
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "sampled" {
            self.sampled = value;
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

/// A span that has begun.
struct Recording {
    name: Cow<'static, str>,
    kind: SpanKind,
    started: SystemTime,
    attributes: Vec<KeyValue>,
    links: Vec<Link>,
    status: Status,
    idle: bool,
}

impl Recording {
    fn begin(metadata: &Metadata<'static>) -> Self {
        Self {
            name: metadata.name().into(),
            kind: SpanKind::Internal,
            started: SystemTime::now(),
            attributes: vec![],
            links: vec![],
            status: Status::Unset,
            idle: false,
        }
    }

    fn end(self, trace: Trace) -> SpanData {
        let mut links = SpanLinks::default();
        links.links = self.links;
        SpanData {
            span_context: context(trace),
            parent_span_id: SpanId::from(trace.parent_span_id.unwrap_or_default()),
            // All that is known of a parent is its `traceparent`, which may well have come from elsewhere.
            parent_span_is_remote: trace.parent_span_id.is_some(),
            span_kind: self.kind,
            name: self.name,
            start_time: self.started,
            end_time: SystemTime::now(),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: self.status,
            instrumentation_scope: InstrumentationScope::builder("todo").build(),
        }
    }

    fn text(&mut self, field: &Field, text: &str) {
        let text = &text[..text.floor_char_boundary(MAX_TEXT)];
        match field.name() {
            "name" => self.name = text.to_owned().into(),
            "kind" => self.kind = kind(text),
            "error" => self.status = Status::error(text.to_owned()),
            "link" => self
                .links
                .extend(Trace::parse(text).map(|trace| Link::new(context(trace), vec![], 0))),
            _ => self.attribute(field, text.to_owned()),
        }
    }

    fn attribute(&mut self, field: &Field, value: impl Into<Value>) {
        self.attributes.push(KeyValue::new(field.name(), value));
    }
}

impl Visit for Recording {
    fn record_u128(&mut self, _field: &Field, _value: u128) {
        // A trace's id, which is no attribute; nothing else is as large.
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if !matches!(field.name(), "span_id" | "parent_span_id") {
            self.attribute(field, i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.attribute(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.attribute(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            "sampled" => {}
            "idle" => self.idle = value,
            _ => self.attribute(field, value),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
}

fn context(trace: Trace) -> SpanContext {
    let flags = if trace.sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::default()
    };
    SpanContext::new(
        TraceId::from(trace.trace_id),
        SpanId::from(trace.span_id),
        flags,
        false,
        TraceState::default(),
    )
}

fn kind(name: &str) -> SpanKind {
    match name {
        "server" => SpanKind::Server,
        "client" => SpanKind::Client,
        "producer" => SpanKind::Producer,
        "consumer" => SpanKind::Consumer,
        _ => SpanKind::Internal,
    }
}
