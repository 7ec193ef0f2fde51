//! Where spans go: to an OpenTelemetry collector, over HTTP with protobuf, in batches.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use opentelemetry::KeyValue;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor as _};
use reqwest::Url;
use tokio::runtime::Handle;

use super::settings::TraceSettings;

/// How long the collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the end of the process may wait for the last batch.
const LAST_BATCH: Duration = Duration::from_secs(3);

/// A collector that is away is mentioned this often.
const COMPLAINT_EVERY: Duration = Duration::from_mins(1);

/// Sends spans. Clones share the queue.
#[derive(Clone, Debug)]
pub(crate) struct Exporter {
    processor: Arc<BatchSpanProcessor>,
    shown_endpoint: String,
}

impl Exporter {
    /// Starts the thread that sends. From within a tokio runtime, which does the sending.
    pub(super) fn start(settings: TraceSettings, service: &str) -> Result<Self> {
        let shown_endpoint = shown(&settings.endpoint);
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Post::new(&settings.endpoint)?)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(settings.endpoint)
            .with_timeout(PATIENCE)
            .build()
            .context("cannot send traces")?;
        let mut exporter = Patient::new(exporter, shown_endpoint.clone());
        let resource = Resource::builder()
            .with_service_name(settings.service.unwrap_or_else(|| service.to_owned()))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string()))
            .build();
        exporter.set_resource(&resource);
        Ok(Self {
            processor: Arc::new(BatchSpanProcessor::builder(exporter).build()),
            shown_endpoint,
        })
    }

    /// Puts a span into the queue; when that is full, the span is lost.
    pub(super) fn send(&self, span: SpanData) {
        self.processor.on_end(span);
    }

    /// Sends what is in the queue and ends the thread. Blocks.
    pub(super) fn stop(&self) {
        if let Err(error) = self.processor.shutdown_with_timeout(LAST_BATCH) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }

    /// The collector's address without anything secret.
    pub(super) fn shown_endpoint(&self) -> &str {
        &self.shown_endpoint
    }
}

fn shown(endpoint: &Url) -> String {
    format!("{}{}", endpoint.origin().ascii_serialization(), endpoint.path())
}

/// An exporter that says once a minute what is wrong, and counts what is lost.
struct Patient<E> {
    exporter: E,
    shown_endpoint: String,
    started: Instant,
    /// When it complained last, in seconds after `started`, plus 1; 0 for never.
    complained: AtomicU64,
}

impl<E> Patient<E> {
    fn new(exporter: E, shown_endpoint: String) -> Self {
        Self {
            exporter,
            shown_endpoint,
            started: Instant::now(),
            complained: AtomicU64::new(0),
        }
    }

    fn may_complain(&self) -> bool {
        let now = self.started.elapsed().as_secs() + 1;
        let last = self.complained.load(Ordering::Relaxed);
        let may = last == 0 || now - last >= COMPLAINT_EVERY.as_secs();
        if may {
            self.complained.store(now, Ordering::Relaxed);
        }
        may
    }
}

impl<E> fmt::Debug for Patient<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patient")
            .field("endpoint", &self.shown_endpoint)
            .finish_non_exhaustive()
    }
}

impl<E: SpanExporter> SpanExporter for Patient<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let outcome = self.exporter.export(batch).await;
        let label = if outcome.is_ok() { "sent" } else { "lost" };
        metrics::counter!("todo_trace_spans_total", "outcome" => label).increment(spans as u64);
        if let Err(error) = &outcome
            && self.may_complain()
        {
            tracing::warn!(
                endpoint = self.shown_endpoint,
                %error,
                spans,
                "spans were lost: the collector does not take them"
            );
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// HTTP by the client that this process has anyway. The exporter's thread has no runtime, so the request runs on the
/// process's.
#[derive(Debug)]
struct Post {
    client: reqwest::Client,
    runtime: Handle,
}

impl Post {
    fn new(endpoint: &Url) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .timeout(PATIENCE)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        if endpoint.scheme() == "http" {
            // An image without any certificates is no reason not to talk to a neighbour.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self {
            client: builder.build().context("cannot send traces")?,
            runtime: Handle::current(),
        })
    }
}

impl HttpClient for Post {
    fn send_bytes<'client, 'sent>(
        &'client self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'sent>>
    where
        'client: 'sent,
        Self: 'sent,
    {
        let client = self.client.clone();
        let sending = self.runtime.spawn(async move {
            let response = client.execute(request.try_into()?).await?;
            let mut answer = Response::builder().status(response.status());
            if let Some(headers) = answer.headers_mut() {
                headers.extend(response.headers().clone());
            }
            Ok::<_, HttpError>(answer.body(response.bytes().await?)?)
        });
        Box::pin(async move { sending.await? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_that_is_away_is_mentioned_once_a_minute() {
        let patient = Patient::new((), "http://collector".to_owned());
        let complaints = (0..1_000).filter(|_| patient.may_complain()).count();
        assert_eq!(complaints, 1);
    }
}
