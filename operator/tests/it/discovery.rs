//! What a real API server says that it serves.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use futures::future::BoxFuture;
use futures::{FutureExt as _, TryFutureExt as _};
use http::{Response, StatusCode};
use kube::client::ClientBuilder;
use todo_operator::child::Kind;
use todo_operator::discovery::{self, Discovery};
use todo_test_cluster::{Cluster, Options};
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service};

use crate::scene::eventually;

#[tokio::test]
async fn a_bare_cluster_serves_nothing_of_others() -> Result<()> {
    let cluster = Cluster::shared_with(Options::NONE).await?;
    let found = discovery::read(&cluster.client().await?).await?;
    for kind in Kind::ALL {
        assert_eq!(found.has(kind), kind.optional().is_none(), "{kind}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_installed_is_found_by_whoever_has_an_account_and_no_role() -> Result<()> {
    let options = Options {
        dapr: true,
        keda: true,
        monitoring: true,
        ..Options::NONE
    };
    let cluster = Cluster::shared_with(options).await?;
    let namespace = cluster.namespace("discovery").await?;
    let client = cluster.client_for_service_account(namespace.name(), "default").await?;
    let found = discovery::read(&client).await?;
    for (kind, version) in [
        (Kind::Component, "v1alpha1"),
        (Kind::Subscription, "v2alpha1"),
        (Kind::Resiliency, "v1alpha1"),
        (Kind::Configuration, "v1alpha1"),
        (Kind::ScaledObject, "v1alpha1"),
        (Kind::PodMonitor, "v1"),
        (Kind::PrometheusRule, "v1"),
    ] {
        assert_eq!(found.version(kind), Some(version), "{kind}");
    }
    assert!(!found.has(Kind::HttpRoute));
    Ok(())
}

#[tokio::test]
async fn looking_again_costs_no_document_while_nothing_changes() -> Result<()> {
    let cluster = Cluster::shared_with(Options::NONE).await?;
    let statuses = Statuses::default();
    let client = ClientBuilder::try_from(cluster.config().await?)?
        .with_layer(&statuses)
        .build();
    let discovery = Discovery::start(client).await?;
    let mut capabilities = discovery.subscribe();
    capabilities.mark_unchanged();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(discovery.run(Duration::from_millis(50), stop));
    eventually(|| statuses.0.lock().unwrap().len() >= 5).await?;
    let statuses = statuses.0.lock().unwrap();
    assert_eq!(statuses[0], StatusCode::OK);
    assert!(
        statuses[1..].iter().all(|status| *status == StatusCode::NOT_MODIFIED),
        "{statuses:?}"
    );
    assert!(!capabilities.has_changed()?);
    Ok(())
}

/// What a client was answered.
#[derive(Clone, Default)]
struct Statuses(Arc<Mutex<Vec<StatusCode>>>);

impl<S> Layer<S> for Statuses {
    type Service = Noted<S>;

    fn layer(&self, inner: S) -> Noted<S> {
        Noted {
            inner,
            statuses: self.clone(),
        }
    }
}

struct Noted<S> {
    inner: S,
    statuses: Statuses,
}

impl<S, Q, R> Service<Q> for Noted<S>
where
    S: Service<Q, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Q) -> Self::Future {
        let statuses = self.statuses.clone();
        let answer = self.inner.call(request);
        answer
            .inspect_ok(move |answer| statuses.0.lock().unwrap().push(answer.status()))
            .boxed()
    }
}
