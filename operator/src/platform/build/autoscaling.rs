//! Who owns the number of pods, and the autoscalers that do.
//!
//! | the manifest says | KEDA is there | owner |
//! | --- | --- | --- |
//! | `suspend` | either | the operator: 0 |
//! | nothing, `replicas` | either | the operator |
//! | `targetCPU`, `targetMemory` | either | a `HorizontalPodAutoscaler` |
//! | `targetLag`, of a consumer over Kafka | yes | a `ScaledObject`, with all of the targets |
//! | `targetLag` alone | no, or not a consumer over Kafka | the operator: `min` |
//!
//! Uses are those of the platform's own container: a sidecar's would blur them.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec,
    MetricSpec, MetricTarget,
};
use serde_json::{Value, json};
use todo_crds::Role;

use super::draft::{CONSUMED_TOPIC, CONSUMERS, Draft};
use super::kafka::{self, Brokers};
use super::{pod, workload};
use crate::child::{Child, Kind, Stage};
use crate::names::Component;

/// How many pods a component is to have.
pub(super) enum Scale {
    /// So many.
    Fixed(u32),
    /// As many as the targets need.
    By(Targets),
}

/// What an autoscaler goes by.
#[derive(Clone, Copy)]
pub(super) struct Targets {
    min: u32,
    max: u32,
    cpu: Option<u32>,
    memory: Option<u32>,
    lag: Option<u32>,
}

impl Scale {
    /// The number to begin with.
    pub(super) fn least(&self) -> i32 {
        let (Self::Fixed(least) | Self::By(Targets { min: least, .. })) = self;
        count(*least)
    }
}

fn count(pods: u32) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

/// What the manifest says about a component. The API's word holds for the pods that are everything in one.
pub(super) fn scale(draft: &Draft, component: Component) -> Scale {
    let (replicas, targets) = match component {
        Component::All | Component::Api => {
            let api = &draft.spec.api;
            let targets = api.autoscaling.as_ref().map(|auto| Targets {
                min: auto.min,
                max: auto.max,
                cpu: auto.target_cpu,
                memory: auto.target_memory,
                lag: None,
            });
            (api.replicas, targets)
        }
        Component::Worker(role) => {
            let worker = role.of(&draft.spec.workers);
            let targets = worker.autoscaling.as_ref().map(|auto| Targets {
                min: auto.min,
                max: auto.max,
                cpu: auto.target_cpu,
                memory: auto.target_memory,
                lag: auto.target_lag,
            });
            (worker.replicas, targets)
        }
    };
    targets.map_or(Scale::Fixed(replicas.unwrap_or(1)), Scale::By)
}

/// Why a role's `targetLag` has no effect; `None` when it has.
pub(crate) fn ignored_lag(draft: &Draft, role: Role) -> Option<&'static str> {
    if !draft.is_spread() {
        Some("events stay within the pod: give spec.kafka, or use replicas")
    } else if !CONSUMERS.contains(&role) {
        Some("the role takes no events from kafka: use targetCPU, targetMemory or replicas")
    } else if !draft.inputs.capabilities.has(Kind::ScaledObject) {
        Some("KEDA is not installed: install it, or use targetCPU, targetMemory or replicas")
    } else {
        None
    }
}

/// The brokers that tell how many events wait; `None` when no autoscaler goes by that.
fn lag_brokers(draft: &Draft, component: Component, targets: Targets) -> Option<Brokers> {
    let Component::Worker(role) = component else {
        return None;
    };
    targets.lag?;
    if ignored_lag(draft, role).is_some() {
        return None;
    }
    kafka::brokers(draft)
}

/// Whether an autoscaler owns the number of a component's pods.
pub(super) fn is_scaled(draft: &Draft, component: Component) -> bool {
    match scale(draft, component) {
        Scale::Fixed(_) => false,
        Scale::By(targets) => {
            targets.cpu.is_some() || targets.memory.is_some() || lag_brokers(draft, component, targets).is_some()
        }
    }
}

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    if draft.inputs.release.is_none() {
        return vec![];
    }
    let mut scalers = vec![];
    for component in draft.components() {
        let Scale::By(targets) = scale(draft, component) else {
            continue;
        };
        if !draft.runs(component) || !is_scaled(draft, component) {
            continue;
        }
        match lag_brokers(draft, component, targets) {
            Some(brokers) => {
                scalers.push(scaled_object(draft, component, targets, &brokers));
                scalers.extend(login(draft, component, &brokers));
            }
            None => scalers.push(horizontal(draft, component, targets)),
        }
    }
    scalers
}

fn horizontal(draft: &Draft, component: Component, targets: Targets) -> Child {
    let metric = |name: &str, target: u32| MetricSpec {
        type_: "ContainerResource".to_owned(),
        container_resource: Some(ContainerResourceMetricSource {
            container: pod::CONTAINER.to_owned(),
            name: name.to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(count(target)),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    };
    let cpu = targets.cpu.map(|target| metric("cpu", target));
    let memory = targets.memory.map(|target| metric("memory", target));
    let scaler = HorizontalPodAutoscaler {
        spec: HorizontalPodAutoscalerSpec {
            min_replicas: Some(count(targets.min)),
            max_replicas: count(targets.max),
            metrics: Some(cpu.into_iter().chain(memory).collect()),
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name: draft.names.component(component),
            },
            ..HorizontalPodAutoscalerSpec::default()
        },
        ..HorizontalPodAutoscaler::default()
    };
    draft
        .object(Kind::HorizontalPodAutoscaler, draft.names.component(component))
        .component(component.as_str())
        .stage(Stage::Run)
        .content(&scaler)
}

fn scaled_object(draft: &Draft, component: Component, targets: Targets, brokers: &Brokers) -> Child {
    let mut kafka = json!({"type": "kafka", "metadata": {
        "bootstrapServers": brokers.addresses,
        // The sidecar's group is its app id.
        "consumerGroup": draft.names.component(component),
        "topic": draft.names.topic(CONSUMED_TOPIC),
        "lagThreshold": targets.lag.unwrap_or(1).to_string(),
        "offsetResetPolicy": "earliest",
        "tls": if brokers.tls { "enable" } else { "disable" },
        "sasl": brokers.login.as_ref().map_or("none", |login| login.mechanism.keda()),
    }});
    if needs_login(brokers) {
        kafka["authenticationRef"] = json!({"name": draft.names.component(component)});
    }
    let mut triggers = vec![kafka];
    let uses = [("cpu", targets.cpu), ("memory", targets.memory)];
    for (kind, target) in uses.into_iter().filter_map(|(kind, target)| Some((kind, target?))) {
        triggers.push(json!({
            "type": kind,
            "metricType": "Utilization",
            "metadata": {"value": target.to_string(), "containerName": pod::CONTAINER},
        }));
    }
    draft
        .object(Kind::ScaledObject, draft.names.component(component))
        .component(component.as_str())
        .stage(Stage::Run)
        .content(&json!({"spec": {
            "scaleTargetRef": workload::reference(draft, component),
            "minReplicaCount": targets.min,
            "maxReplicaCount": targets.max,
            "triggers": triggers,
        }}))
}

fn needs_login(brokers: &Brokers) -> bool {
    brokers.login.is_some() || brokers.ca.is_some()
}

/// What KEDA asks the brokers with.
fn login(draft: &Draft, component: Component, brokers: &Brokers) -> Option<Child> {
    if !needs_login(brokers) {
        return None;
    }
    let ca = brokers.ca.as_ref().map(|ca| ("ca", ca));
    let login = brokers.login.iter();
    let login = login.flat_map(|login| [("username", &login.username), ("password", &login.password)]);
    let targets: Vec<Value> = ca
        .into_iter()
        .chain(login)
        .map(|(parameter, secret)| json!({"parameter": parameter, "name": secret.name, "key": secret.key}))
        .collect();
    let object = draft.object(Kind::TriggerAuthentication, draft.names.component(component));
    let object = object.component(component.as_str()).stage(Stage::Run);
    Some(object.content(&json!({"spec": {"secretTargetRef": targets}})))
}
