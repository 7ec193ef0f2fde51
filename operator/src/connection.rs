//! The way to the API server, as the operator takes it.
//!
//! Here: clients whose requests are counted ([`Requests`]), bounded in time ([`Patience`]) and, where they are not the
//! election's own, sent only while this process leads ([`Fence`](crate::lease::Fence)). Not here: where the API server is
//! and who the operator is there, which `kube::Config` finds.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tower::{BoxError, Layer, Service};

use crate::lease::Leadership;
use crate::metrics::Requests;

/// For how long an answer is waited for. A watch's answer begins at once, and may then last.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// For how long nothing may come on a connection. Longer than a watch is quiet, which ends itself before that.
const SILENCE: Duration = Duration::from_mins(6);

/// A client that reads and writes, whoever leads: the election's, and that of a person's commands.
pub fn open(config: Config, patience: Duration) -> kube::Result<Client> {
    let builder = ClientBuilder::try_from(never_silent(config))?;
    Ok(builder.with_layer(&Requests).with_layer(&Patience(patience)).build())
}

/// A client whose writes pass only while this process leads.
pub fn fenced(config: Config, patience: Duration, leadership: &Leadership) -> kube::Result<Client> {
    let builder = ClientBuilder::try_from(never_silent(config))?;
    let builder = builder.with_layer(&Requests).with_layer(&Patience(patience));
    Ok(builder.with_layer(&leadership.fence()).build())
}

fn never_silent(mut config: Config) -> Config {
    config.read_timeout.get_or_insert(SILENCE);
    config
}

/// A layer that waits so long for an answer, and no longer. Without it a pass that meets a network that swallows packets
/// would hold its place in the queue for ever.
#[derive(Clone, Copy, Debug)]
pub struct Patience(pub Duration);

impl<S> Layer<S> for Patience {
    type Service = Patient<S>;

    fn layer(&self, inner: S) -> Patient<S> {
        Patient {
            inner,
            patience: self.0,
        }
    }
}

/// What [`Patience`] makes of a service.
#[derive(Clone, Debug)]
pub struct Patient<S> {
    inner: S,
    patience: Duration,
}

/// Why an answer was not waited for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs_f32())]
pub struct NoAnswer(Duration);

impl<S, B> Service<Request<B>> for Patient<S>
where
    S: Service<Request<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let patience = self.patience;
        let answer = tokio::time::timeout(patience, self.inner.call(request));
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(NoAnswer(patience).into())) })
    }
}
