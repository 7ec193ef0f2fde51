//! Events on a real API server.

use anyhow::Result;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::Resource as _;
use kube::api::{ListParams, PostParams};
use serde_json::{from_value, json};
use todo_operator::events::{Happening, Severity, recorder};
use todo_test_cluster::{Cluster, Namespace, Options};
use tokio_util::sync::CancellationToken;

fn failed(note: &str) -> Happening {
    Happening {
        severity: Severity::Warning,
        reason: "MigrationFailed",
        action: "Migrate",
        note: note.to_owned(),
        since: None,
    }
}

async fn told(namespace: &Namespace) -> Result<Vec<Event>> {
    Ok(namespace.api::<Event>().list(&ListParams::default()).await?.items)
}

#[tokio::test]
async fn a_transition_is_told_once_also_by_an_operator_that_was_started_anew() -> Result<()> {
    let cluster = Cluster::shared_with(Options::NONE).await?;
    let namespace = cluster.namespace("events").await?;
    let object = from_value(json!({"metadata": {"name": "todo"}}))?;
    let object: ConfigMap = namespace.api().create(&PostParams::default(), &object).await?;
    for pod in ["pod-0", "pod-1"] {
        let (recorder, sender) = recorder(pod);
        for _ in 0..3 {
            recorder.record(&object.object_ref(&()), &failed("the password is wrong"));
            recorder.record(&object.object_ref(&()), &failed(&"long ".repeat(1_000)));
        }
        let stop = CancellationToken::new();
        stop.cancel();
        sender.run(cluster.client().await?, stop).await;
    }
    let events = told(&namespace).await?;
    assert_eq!(events.len(), 2, "{events:#?}");
    assert!(events.iter().all(|event| event.type_.as_deref() == Some("Warning")));
    assert!(
        events
            .iter()
            .any(|event| event.note.as_deref() == Some("the password is wrong"))
    );
    let output = cluster
        .kubectl()
        .args(["describe", "configmap", "todo", "-n", namespace.name()])
        .output()?;
    let described = String::from_utf8(output.stdout)?;
    assert!(
        described.contains("MigrationFailed") && described.contains("the password is wrong"),
        "{described}"
    );
    Ok(())
}

#[tokio::test]
async fn events_that_may_not_be_written_are_lost_and_nothing_else() -> Result<()> {
    let cluster = Cluster::shared_with(Options::NONE).await?;
    let namespace = cluster.namespace("no-events").await?;
    let object = from_value(json!({"metadata": {"name": "todo"}}))?;
    let object: ConfigMap = namespace.api().create(&PostParams::default(), &object).await?;
    let (recorder, sender) = recorder("pod-0");
    recorder.record(&object.object_ref(&()), &failed("the password is wrong"));
    let stop = CancellationToken::new();
    stop.cancel();
    sender
        .run(
            cluster.client_for_service_account(namespace.name(), "default").await?,
            stop,
        )
        .await;
    assert!(told(&namespace).await?.is_empty());
    Ok(())
}
