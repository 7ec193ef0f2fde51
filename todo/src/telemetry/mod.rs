//! What a process that serves tells of itself: logs, traces, and metrics of the process.
//!
//! What lives here: how spans become OpenTelemetry's ([`spans`]), where they are sent ([`export`]), and the gauges that
//! belong to no crate. What does not: how a log line looks (`logging`), and what is measured or traced, which each
//! crate does where it happens.
//!
//! The path of a span: a crate opens it with `todo_events::traced!`; the layer [`Spans`] keeps its ids for the log lines
//! within it, and, when traces are on, its attributes and times; at its end it goes into a bounded queue, and a thread
//! of its own sends what gathers. Nothing waits for that thread: when the queue is full, spans are lost and not
//! requests.

mod export;
mod process;
mod settings;
mod spans;

use anyhow::Result;

use self::export::Exporter;
pub(crate) use self::process::watch;
pub(crate) use self::settings::TraceArgs;
use self::settings::TraceSettings;
pub(crate) use self::spans::Spans;
use crate::logging::{self, LogFormat};

/// What is running for the sake of traces. Dropped as the last of the process, it sends what is still in the queue,
/// for a few seconds at the most.
#[derive(Debug)]
#[must_use = "dropped at once, it ends at once"]
pub(crate) struct Telemetry {
    exporter: Option<Exporter>,
}

/// Begins logging, and recording traces when `OTEL_EXPORTER_OTLP_ENDPOINT` is set. Once, from within a tokio runtime.
///
/// `service` is how the process is called in traces unless `OTEL_SERVICE_NAME` says otherwise.
pub(crate) fn begin(format: Option<LogFormat>, service: &str, traces: &TraceArgs) -> Result<Telemetry> {
    let exporter = match TraceSettings::read(traces)? {
        Some(settings) => {
            todo_events::trace::record(settings.sampled_part);
            Some(Exporter::start(settings, service)?)
        }
        None => None,
    };
    logging::begin(format, Spans::to(exporter.clone()));
    if let Some(exporter) = &exporter {
        tracing::info!(endpoint = exporter.shown_endpoint(), "traces are recorded");
    }
    Ok(Telemetry { exporter })
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(exporter) = &self.exporter {
            exporter.stop();
        }
    }
}
