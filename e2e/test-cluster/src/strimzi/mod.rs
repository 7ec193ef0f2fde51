//! Test doubles of Strimzi's topic operator and user operator, whose programs are published in no package. They follow
//! what Strimzi 1.2 does with `kafka.strimzi.io/v1`, as far as somebody who makes topics and users can see it.
//!
//! Where the topics are is a [`StandInKafka`], which outlives the operators, so that a test can see what was kept.

mod kafka;
mod topics;
mod users;

use std::future::Future;

use anyhow::Result;
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

pub use self::kafka::{Broker, StandInKafka, Topic};
pub use self::topics::StandInTopicOperator;
pub use self::users::StandInUserOperator;

/// Says which Kafka a topic or a user is of. Without it nobody looks after it.
const CLUSTER_LABEL: &str = "strimzi.io/cluster";

/// A kind of Strimzi's.
fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("kafka.strimzi.io", "v1", kind))
}

/// Hands each object that is new or changed to `handle`, one after the other.
async fn follow<F>(api: Api<DynamicObject>, handle: impl Fn(DynamicObject) -> F)
where
    F: Future<Output = Result<()>>,
{
    let mut events = watcher(api, Config::default().labels(CLUSTER_LABEL))
        .default_backoff()
        .boxed();
    while let Some(event) = events.next().await {
        // The watch begins again by itself after an error.
        if let Ok(Event::Apply(object) | Event::InitApply(object)) = event {
            let name = object.name_any();
            if let Err(error) = handle(object).await {
                eprintln!("stand-in for strimzi: {name}: {error:#}");
            }
        }
    }
}

/// Writes a status with this one condition, unless it is there. `rest` has the other fields; null removes one.
async fn say(api: &Api<DynamicObject>, object: &DynamicObject, condition: Condition, rest: Value) -> Result<()> {
    let live = &object.data["status"];
    let before = &live["conditions"][0];
    let same = before["type"] == condition.kind
        && before["status"] == condition.status
        && before["reason"].as_str() == condition.reason
        && before["message"].as_str() == condition.message.as_deref();
    let since = if same {
        before["lastTransitionTime"].clone()
    } else {
        json!(Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    };
    let mut said = json!({
        "type": condition.kind, "status": condition.status, "lastTransitionTime": since,
    });
    if let Some(reason) = condition.reason {
        said["reason"] = json!(reason);
        said["message"] = json!(condition.message);
    }
    let mut status = rest;
    status["conditions"] = json!([said]);
    status["observedGeneration"] = json!(object.metadata.generation);
    let unchanged = status
        .as_object()
        .is_some_and(|status| status.iter().all(|(field, value)| live[field.as_str()] == *value));
    if unchanged {
        return Ok(());
    }
    let patch = Patch::Merge(json!({ "status": status }));
    match api
        .patch_status(&object.name_any(), &PatchParams::default(), &patch)
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What a status says.
struct Condition {
    kind: &'static str,
    status: &'static str,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Condition {
    const fn holds(kind: &'static str) -> Self {
        Self {
            kind,
            status: "True",
            reason: None,
            message: None,
        }
    }

    const fn not_ready(reason: &'static str, message: String) -> Self {
        Self {
            kind: "Ready",
            status: "False",
            reason: Some(reason),
            message: Some(message),
        }
    }
}

fn annotation<'a>(object: &'a DynamicObject, name: &str) -> Option<&'a str> {
    object.annotations().get(name).map(String::as_str)
}

fn is_paused(object: &DynamicObject) -> bool {
    annotation(object, "strimzi.io/pause-reconciliation") == Some("true")
}
