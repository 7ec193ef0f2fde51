//! Deployments: the API and each worker role, or, without Kafka, one that is all of it.
//!
//! Nothing is built before a release may run. Annotations of the template are fingerprints of what a process reads only
//! at its start, so that a change of it rolls those pods and no others; the database's URL, the secret of tokens and the
//! internal key are files that are read again, and roll nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    ContainerPort, HTTPGetAction, Lifecycle, LifecycleHandler, PodTemplateSpec, Probe, ResourceRequirements,
    SleepAction,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;
use todo_crds::platform::{ResourceList, Resources};

use super::draft::{Draft, fingerprint};
use super::pod::{self, Process, SecretKey};
use super::{autoscaling, dapr, secrets, settings};
use crate::child::{Child, Kind, Stage};
use crate::names::{Component, SERVES_LABEL};
use crate::platform::Release;

const SETTINGS_HASH: &str = "todoplatform.dev/settings-hash";
const TOKENS_HASH: &str = "todoplatform.dev/tokens-hash";
const DAPR_HASH: &str = "todoplatform.dev/dapr-hash";

/// How long a pod still takes requests after it was told to go: so long until nobody sends it any.
const UNTIL_UNKNOWN: i64 = 5;
/// How long a pod may take to end: the sleep above, the longest request, a sidecar's own end.
const GRACE: i64 = 60;

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    let Some(release) = &draft.inputs.release else {
        return vec![];
    };
    let components = draft.components().into_iter();
    components
        .map(|component| deployment(draft, component, release))
        .collect()
}

fn deployment(draft: &Draft, component: Component, release: &Release) -> Child {
    let selector = draft.names.selector(component);
    let timeout = draft.spec.upgrade.timeout.seconds();
    let deployment = Deployment {
        spec: DeploymentSpec {
            replicas: replicas(draft, component),
            selector: LabelSelector {
                match_labels: Some(selector),
                ..LabelSelector::default()
            },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            revision_history_limit: Some(3),
            progress_deadline_seconds: Some(i32::try_from(timeout).unwrap_or(i32::MAX).max(1)),
            template: template(draft, component, release),
            ..DeploymentSpec::default()
        },
        ..Deployment::default()
    };
    draft
        .object(Kind::Deployment, draft.names.component(component))
        .component(component.as_str())
        .stage(Stage::Run)
        .content(&deployment)
}

/// How many pods; `None` when an autoscaler owns the number.
fn replicas(draft: &Draft, component: Component) -> Option<i32> {
    if !draft.runs(component) {
        return Some(0);
    }
    let scale = autoscaling::scale(draft, component);
    if autoscaling::is_scaled(draft, component) {
        return None;
    }
    Some(scale.least())
}

fn template(draft: &Draft, component: Component, release: &Release) -> PodTemplateSpec {
    let mut labels = draft.labels(component.as_str());
    labels.insert("app.kubernetes.io/version".to_owned(), release.version.clone());
    if draft.serves(component) {
        labels.insert(SERVES_LABEL.to_owned(), "api".to_owned());
    }
    let mut annotations: BTreeMap<String, String> = [
        (
            "kubectl.kubernetes.io/default-container".to_owned(),
            pod::CONTAINER.to_owned(),
        ),
        (SETTINGS_HASH.to_owned(), settings::hash(draft, component)),
    ]
    .into();
    let mut env = vec![];
    if draft.wants_sidecars() {
        let names = &draft.names;
        let tokens = [names.app_token(), names.dapr_token()];
        let hashes = tokens.each_ref().map(|name| secrets::hash_of(draft, name));
        annotations.insert(TOKENS_HASH.to_owned(), fingerprint(&hashes));
        let [app, sidecar] = tokens.map(|name| SecretKey::new(name, secrets::DAPR_TOKEN_KEY));
        env = vec![
            pod::env_of("APP_API_TOKEN", app),
            pod::env_of("DAPR_API_TOKEN", sidecar),
        ];
    }
    if draft.has_sidecars() {
        annotations.extend(dapr::annotations(draft, component));
        annotations.insert(DAPR_HASH.to_owned(), dapr::hash(draft, component));
    }
    let mut template = pod::template(
        draft,
        Process {
            account: draft.names.component(component),
            image: &release.image,
            args: args(draft, component),
            labels,
            annotations,
            secrets: files(draft, component, release),
            env,
        },
    );
    let spec = template.spec.as_mut().expect("a template has a spec");
    spec.termination_grace_period_seconds = Some(GRACE);
    spec.topology_spread_constraints = Some(pod::spread(&draft.names.selector(component)));
    let container = spec.containers.first_mut().expect("a template has a container");
    container.ports = Some(vec![ContainerPort {
        name: Some(pod::PORT_NAME.to_owned()),
        container_port: pod::PORT,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }]);
    container.startup_probe = Some(probe("/healthz", 1, 60));
    container.liveness_probe = Some(probe("/healthz", 10, 3));
    container.readiness_probe = Some(probe("/readyz", 5, 2));
    container.resources = Some(resources(asked_resources(draft, component)));
    if draft.serves(component) {
        container.lifecycle = Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: UNTIL_UNKNOWN }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        });
    }
    template
}

/// What the process is told to be. One without the API is a worker with all of its roles.
fn args(draft: &Draft, component: Component) -> Vec<String> {
    let roles = draft.roles(component);
    let names = roles.iter().map(|role| role.as_str().to_owned());
    match component {
        Component::Api => vec!["api".to_owned()],
        Component::Worker(role) => vec!["worker".to_owned(), role.as_str().to_owned()],
        Component::All if !draft.serves(component) => ["worker".to_owned()].into_iter().chain(names).collect(),
        Component::All => {
            let suspended = super::ROLES.into_iter().filter(|role| !roles.contains(role));
            let without = suspended.flat_map(|role| ["--without".to_owned(), role.as_str().to_owned()]);
            ["serve".to_owned()].into_iter().chain(without).collect()
        }
    }
}

/// The secrets of a component's processes: no more than they need.
fn files(draft: &Draft, component: Component, release: &Release) -> Vec<(&'static str, SecretKey)> {
    let names = &draft.names;
    let mut files = vec![pod::database_url(draft, release)];
    if draft.serves(component) {
        let auth = &draft.spec.auth;
        match (&auth.oidc, &auth.secret_ref) {
            (Some(_), _) => {}
            (None, Some(secret)) => files.push((pod::TOKEN_SECRET, SecretKey::new(&secret.name, &secret.key))),
            (None, None) => files.push((pod::TOKEN_SECRET, SecretKey::new(names.token(), secrets::TOKEN_KEY))),
        }
        files.push((
            pod::INTERNAL_KEY,
            SecretKey::new(names.internal_key(), secrets::INTERNAL_KEY),
        ));
    }
    files
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(pod::PORT_NAME.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        // Readiness asks the database, which may be busy.
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

fn asked_resources<'a>(draft: &Draft<'a>, component: Component) -> Option<&'a Resources> {
    match component {
        Component::All | Component::Api => draft.spec.api.resources.as_ref(),
        Component::Worker(role) => role.of(&draft.spec.workers).resources.as_ref(),
    }
}

/// What is asked for, and requests where nothing is: without any, a pod is the first to be evicted, and its use has
/// no measure to grow by. A limit alone is the request too, as Kubernetes has it.
fn resources(asked: Option<&Resources>) -> ResourceRequirements {
    let none = ResourceList::default();
    let (requests, limits) = asked.map_or((&none, &none), |asked| (&asked.requests, &asked.limits));
    let mut resources = ResourceRequirements::default();
    let kinds = [
        ("cpu", &requests.cpu, &limits.cpu, "50m"),
        ("memory", &requests.memory, &limits.memory, "64Mi"),
    ];
    for (kind, request, limit, default) in kinds {
        let default = Quantity(default.to_owned());
        if let Some(request) = request.as_ref().or(limit.as_ref()).or(Some(&default)) {
            let requests = resources.requests.get_or_insert_default();
            requests.insert(kind.to_owned(), request.clone());
        }
        if let Some(limit) = limit {
            let limits = resources.limits.get_or_insert_default();
            limits.insert(kind.to_owned(), limit.clone());
        }
    }
    resources
}

/// What other objects call a component's Deployment by.
pub(super) fn reference(draft: &Draft, component: Component) -> serde_json::Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": draft.names.component(component)})
}
