//! What the API server keeps of a spec is what was meant by it, with every default, and said again it changes nothing.

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use serde_json::{Value, json};
use todo_crds::{TodoPlatform, TodoPlatformSpec};
use todo_test_cluster::{Cluster, Options};

use crate::specs::{Ground, Specs};

/// How many sequences of two specs are written, and how many at once.
const SEQUENCES: u64 = 100;
const AT_ONCE: usize = 8;

/// The same with amounts as text, since a whole number may be written without quotes.
fn amounts_as_text(value: &mut Value) {
    for (name, value) in value.as_object_mut().into_iter().flatten() {
        match value {
            Value::Number(number) if matches!(name.as_str(), "cpu" | "memory") => *value = number.to_string().into(),
            other => amounts_as_text(other),
        }
    }
}

fn platform(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "todoplatform.dev/v1alpha1", "kind": "TodoPlatform", "metadata": {"name": name}, "spec": spec})
}

async fn is_kept(api: &Api<DynamicObject>, name: &str, sent: &Value) -> Result<()> {
    let person = PatchParams::apply("a-person");
    let stored = api.patch(name, &person, &Patch::Apply(&platform(name, sent))).await?;
    let mut kept = stored.data["spec"].clone();
    amounts_as_text(&mut kept);
    let meant: TodoPlatformSpec = serde_json::from_value(sent.clone())?;
    let meant = serde_json::to_value(&meant)?;
    ensure!(kept == meant, "kept: {kept:#}\nmeant: {meant:#}");

    let read = api.get(name).await?;
    let after = api.replace(name, &PostParams::default(), &read).await?;
    ensure!(
        after.metadata.generation == stored.metadata.generation && after.data["spec"] == stored.data["spec"],
        "what was read changes what is there: {:#}\nbefore: {:#}",
        after.data["spec"],
        stored.data["spec"]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_what_was_meant_with_every_default() -> Result<()> {
    let cluster = Cluster::shared_with(Options::NONE).await?;
    let namespace = cluster.namespace("stored").await?;
    let resource = ApiResource::erase::<TodoPlatform>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client().await?, namespace.name(), &resource);
    let sequences = (0..SEQUENCES).map(|seed| {
        let api = &api;
        async move {
            let mut specs = Specs::new(seed, Ground::paper());
            for number in 1..=2 {
                let spec = specs.next();
                let kept = is_kept(api, &format!("p{seed}"), &spec).await;
                kept.with_context(|| format!("spec {number} of seed {seed}: {spec:#}"))?;
            }
            anyhow::Ok(())
        }
    });
    stream::iter(sequences)
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
}
