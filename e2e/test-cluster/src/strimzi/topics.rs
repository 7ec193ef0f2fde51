//! The double of the topic operator: `KafkaTopic` to topics.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::kafka::StandInKafka;
use super::{Condition, annotation, follow, is_paused, resource, say};

const FINALIZER: &str = "strimzi.io/topic-operator";

/// Looks after the `KafkaTopic`s of a namespace until it is dropped. What is then deleted hangs by its finalizer, as
/// when Strimzi is gone.
pub struct StandInTopicOperator {
    task: JoinHandle<()>,
}

impl StandInTopicOperator {
    /// Begins, over this Kafka.
    pub fn start(client: Client, namespace: &str, kafka: StandInKafka) -> Self {
        let api = Api::namespaced_with(client, namespace, &resource("KafkaTopic"));
        let task = tokio::spawn(async move {
            follow(api.clone(), |topic| reconcile(&api, &kafka, topic)).await;
        });
        Self { task }
    }
}

impl Drop for StandInTopicOperator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn reconcile(api: &Api<DynamicObject>, kafka: &StandInKafka, topic: DynamicObject) -> Result<()> {
    let uid = topic.uid().context("it has a uid")?;
    let managed = annotation(&topic, "strimzi.io/managed") != Some("false");
    if topic.metadata.deletion_timestamp.is_some() {
        if managed {
            kafka.remove(&uid);
        } else {
            kafka.release(&uid);
        }
        return set_finalizer(api, &topic, false).await;
    }
    if is_paused(&topic) {
        return say(api, &topic, Condition::holds("ReconciliationPaused"), json!({})).await;
    }
    set_finalizer(api, &topic, true).await?;
    if !managed {
        kafka.release(&uid);
        let gone = json!({ "topicName": null, "topicId": null });
        return say(api, &topic, Condition::holds("Unmanaged"), gone).await;
    }

    let spec = &topic.data["spec"];
    let name = spec["topicName"]
        .as_str()
        .map_or_else(|| topic.name_any(), str::to_owned);
    let known = topic.data["status"]["topicName"].as_str();
    if known.is_some_and(|known| known != name) {
        let message = "a topic cannot be renamed by spec.topicName".to_owned();
        return say(api, &topic, Condition::not_ready("NotSupported", message), json!({})).await;
    }
    let (partitions, replicas) = (spec["partitions"].as_i64(), spec["replicas"].as_i64());
    let put = kafka.put(
        &name,
        (&uid, &topic.name_any()),
        partitions,
        replicas,
        config(&spec["config"]),
    );
    match put {
        Ok(()) => {
            let there = json!({ "topicName": name, "topicId": uid });
            say(api, &topic, Condition::holds("Ready"), there).await
        }
        Err(refusal) => {
            let condition = Condition::not_ready(refusal.reason, refusal.message);
            say(api, &topic, condition, json!({})).await
        }
    }
}

fn config(config: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let settings = config.as_object().into_iter().flatten();
    settings.map(|(name, value)| (name.clone(), text(value))).collect()
}

async fn set_finalizer(api: &Api<DynamicObject>, topic: &DynamicObject, wanted: bool) -> Result<()> {
    let mut finalizers = topic.finalizers().to_vec();
    if finalizers.iter().any(|one| one == FINALIZER) == wanted {
        return Ok(());
    }
    if wanted {
        finalizers.push(FINALIZER.to_owned());
    } else {
        finalizers.retain(|one| one != FINALIZER);
    }
    // Against another's finalizer that came meanwhile; the change that brought it comes here too.
    let patch = json!({ "metadata": { "finalizers": finalizers, "resourceVersion": topic.resource_version() } });
    match api
        .patch(&topic.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
