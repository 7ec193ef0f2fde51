//! A test double of the kubelet: it runs nothing, and says of pods what a rule makes of them.
//!
//! Pods are not bound to a node, so the API server deletes them at once when they are to end, without a grace period.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How soon it tries again to say what it could not.
const AGAIN: Duration = Duration::from_millis(200);

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing is said about it: it stays Pending, as on a cluster without room.
    Unseen,
    /// Its containers cannot start, for this reason, such as `ImagePullBackOff`.
    Waits(&'static str),
    /// It runs, and its probes fail.
    Unready,
    /// It runs, and is ready.
    Ready,
    /// Its containers have ended well.
    Succeeds,
    /// Its containers have ended with this code.
    Fails(i32),
}

type Rule = Arc<dyn Fn(&Pod) -> Fate + Send + Sync>;

/// Says of each pod in a namespace what its rule makes of it, until it is dropped.
pub struct FakeKubelet {
    rule: watch::Sender<Rule>,
    task: JoinHandle<()>,
}

impl Fate {
    /// What happens to a pod whose image is there and works: one that is always restarted is ready, as a service is;
    /// any other succeeds, as a job does.
    pub fn usual(pod: &Pod) -> Self {
        let restarts = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if restarts.unwrap_or("Always") == "Always" {
            Self::Ready
        } else {
            Self::Succeeds
        }
    }
}

impl FakeKubelet {
    /// Looks after a namespace, by [`Fate::usual`].
    pub fn start(client: Client, namespace: &str) -> Self {
        Self::over(client.clone(), Api::namespaced(client, namespace))
    }

    /// Looks after all namespaces. One that is looked after by another too is torn between them.
    pub fn start_everywhere(client: Client) -> Self {
        Self::over(client.clone(), Api::all(client))
    }

    fn over(client: Client, pods: Api<Pod>) -> Self {
        let usual: Rule = Arc::new(Fate::usual);
        let (rule, rules) = watch::channel(usual);
        let task = tokio::spawn(look_after(client, pods, rules));
        Self { rule, task }
    }

    /// From now on this rule holds, also for the pods that are there. A pod that has ended stays ended.
    pub fn set_rule(&self, rule: impl Fn(&Pod) -> Fate + Send + Sync + 'static) {
        self.rule.send_replace(Arc::new(rule));
    }

    /// From now on pods with a container of this image have this fate; all others the usual one.
    pub fn set_fate_of_image(&self, image: &str, fate: Fate) {
        let image = image.to_owned();
        self.set_rule(move |pod| {
            let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            if containers.any(|container| container.image.as_deref() == Some(&image)) {
                fate.clone()
            } else {
                Fate::usual(pod)
            }
        });
    }
}

impl Drop for FakeKubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look_after(client: Client, pods: Api<Pod>, mut rules: watch::Receiver<Rule>) {
    let mut events = watcher(pods, Config::default()).default_backoff().boxed();
    let mut known: BTreeMap<(Option<String>, String), Pod> = BTreeMap::new();
    // Those of whom it could not be told, because the API server was away.
    let mut untold = BTreeSet::new();
    loop {
        let concerned: Vec<Pod> = tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Apply(pod) | Event::InitApply(pod))) => {
                    known.insert(key(&pod), pod.clone());
                    vec![pod]
                }
                Some(Ok(Event::Delete(pod))) => {
                    known.remove(&key(&pod));
                    vec![]
                }
                Some(Ok(Event::Init)) => {
                    known.clear();
                    vec![]
                }
                // The watch begins again by itself.
                Some(Ok(Event::InitDone) | Err(_)) => vec![],
                None => return,
            },
            changed = rules.changed() => match changed {
                Ok(()) => known.values().cloned().collect(),
                Err(_) => return,
            },
            () = tokio::time::sleep(AGAIN), if !untold.is_empty() => {
                untold.iter().filter_map(|key| known.get(key).cloned()).collect()
            }
        };
        for pod in concerned {
            let fate = rules.borrow()(&pod);
            if tell(&client, &pod, &fate).await {
                untold.remove(&key(&pod));
            } else {
                untold.insert(key(&pod));
            }
        }
        untold.retain(|key| known.contains_key(key));
    }
}

/// Writes a pod's status, unless it says the same already. Whether it is said.
async fn tell(client: &Client, pod: &Pod, fate: &Fate) -> bool {
    let live = serde_json::to_value(&pod.status).unwrap_or_default();
    let ended = matches!(live["phase"].as_str(), Some("Succeeded" | "Failed"));
    let Some(status) = status(pod, fate).filter(|status| !ended && essence(status) != essence(&live)) else {
        return true;
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({ "status": status }));
    match pods
        .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
        .await
    {
        Ok(_) => true,
        // It was deleted meanwhile.
        Err(kube::Error::Api(status)) if status.is_not_found() => true,
        Err(error) => {
            eprintln!("fake kubelet: {}: {error}", pod.name_any());
            false
        }
    }
}

/// What two statuses differ in when one is news.
fn essence(status: &Value) -> (Option<&str>, bool, Option<&str>) {
    let ready = status["conditions"].as_array().is_some_and(|conditions| {
        conditions
            .iter()
            .any(|one| one["type"] == "Ready" && one["status"] == "True")
    });
    let waits = status["containerStatuses"][0]["state"]["waiting"]["reason"].as_str();
    (status["phase"].as_str(), ready, waits)
}

fn status(pod: &Pod, fate: &Fate) -> Option<Value> {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let ended =
        |code: i32, reason: &str| json!({ "terminated": { "exitCode": code, "reason": reason, "finishedAt": now } });
    let running = json!({ "running": { "startedAt": now } });
    let (phase, state) = match fate {
        Fate::Unseen => return None,
        Fate::Waits(reason) => ("Pending", json!({ "waiting": { "reason": reason } })),
        Fate::Unready | Fate::Ready => ("Running", running),
        Fate::Succeeds => ("Succeeded", ended(0, "Completed")),
        Fate::Fails(code) => ("Failed", ended(*code, "Error")),
    };
    let ready = *fate == Fate::Ready;
    let spec = pod.spec.as_ref()?;
    let of_container = |name: &str, image: &Option<String>, ready: bool, state: &Value| {
        json!({
            "name": name, "image": image, "imageID": "", "restartCount": 0, "ready": ready, "started": ready,
            "state": state,
        })
    };
    let containers: Vec<Value> = spec
        .containers
        .iter()
        .map(|container| of_container(&container.name, &container.image, ready, &state))
        .collect();
    let before: Vec<Value> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|container| of_container(&container.name, &container.image, true, &ended(0, "Completed")))
        .collect();
    let condition = |kind: &str, holds: bool| json!({ "type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": now });
    Some(json!({
        "phase": phase,
        "startTime": now,
        "podIP": address(pod),
        "podIPs": [{ "ip": address(pod) }],
        "containerStatuses": containers,
        "initContainerStatuses": before,
        "conditions": [
            condition("PodScheduled", true),
            condition("Initialized", true),
            condition("ContainersReady", ready),
            condition("Ready", ready),
        ],
    }))
}

/// An address for the pod's endpoints. Nothing listens there.
fn address(pod: &Pod) -> String {
    let mut hash = DefaultHasher::new();
    pod.metadata.uid.hash(&mut hash);
    let [first, second, ..] = hash.finish().to_be_bytes();
    Ipv4Addr::new(10, 244, first, second).to_string()
}

fn key(pod: &Pod) -> (Option<String>, String) {
    (pod.namespace(), pod.name_any())
}
