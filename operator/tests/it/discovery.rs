//! What a real API server says that it serves.

use anyhow::Result;
use todo_operator::child::Kind;
use todo_operator::discovery;
use todo_test_cluster::{Cluster, Options};

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
