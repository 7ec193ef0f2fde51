//! Clients on an API server that does not answer.

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use serde_json::{from_value, json};
use todo_operator::connection;
use todo_operator::error::{Call, Class, Error};
use todo_operator::lease::{Election, Leadership, Settings, identity};
use todo_test_cluster::{Cluster, Options, Program};

fn create(error: kube::Error) -> Error {
    Call::new("create", "configmaps", "default", "a").failed(error)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_is_not_waited_for_and_the_next_one_comes() -> Result<()> {
    let cluster = Cluster::start(Options::NONE).await?;
    let patience = Duration::from_secs(1);
    let client = connection::fenced(cluster.config().await?, patience, &Leadership::undisputed())?;
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let map = from_value(json!({"metadata": {"name": "a"}}))?;
    // So that there is a connection, which is what hangs.
    maps.get_opt("a").await?;
    cluster.pause_program(Program::ApiServer)?;
    let began = Instant::now();
    let error = create(maps.create(&PostParams::default(), &map).await.unwrap_err());
    assert!(began.elapsed() < 2 * patience, "{:?}", began.elapsed());
    assert_eq!(error.class(), Class::Unavailable);
    assert_eq!(
        error.to_string(),
        "create configmaps/default/a did not work: no answer within 1 s"
    );
    cluster.resume_program(Program::ApiServer)?;
    let map = from_value(json!({"metadata": {"name": "b"}}))?;
    maps.create(&PostParams::default(), &map).await?;
    Ok(())
}

#[tokio::test]
async fn who_does_not_lead_reads_and_does_not_write() -> Result<()> {
    let cluster = Cluster::shared_with(Options::NONE).await?;
    let namespace = cluster.namespace("fenced").await?;
    let settings = Settings::new(namespace.name(), "todo-operator", identity("pod"));
    let contender = Election::new(cluster.client().await?, settings).leadership();
    let client = connection::fenced(cluster.config().await?, connection::PATIENCE, &contender)?;
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace.name());
    let map = from_value(json!({"metadata": {"name": "a"}}))?;
    assert!(maps.get_opt("a").await?.is_none());
    let error = create(maps.create(&PostParams::default(), &map).await.unwrap_err());
    assert!(matches!(error, Error::NotLeading), "{error}");
    assert!(maps.get_opt("a").await?.is_none());
    Ok(())
}
