//! What every pod of a platform has in common: the `restricted` pod security standard, where settings and secrets are
//! found, and how pods are named and spread.
//!
//! Secrets are files, so that a changed one reaches a running process: kubelet writes it anew within a minute or two, and
//! the process reads it again. Only what a sidecar and its app show each other is in the environment, as Dapr wants it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, EnvVar, EnvVarSource, KeyToPath, LocalObjectReference,
    PodSecurityContext, PodSpec, PodTemplateSpec, ProjectedVolumeSource, SeccompProfile, SecretKeySelector,
    SecretProjection, SecurityContext, TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use todo_crds::platform::PullPolicy;

use super::database;
use super::draft::Draft;
use super::settings::FILE;
use crate::platform::Release;

/// Where every process listens.
pub(super) const PORT: i32 = 8080;
/// The name of that port.
pub(super) const PORT_NAME: &str = "http";
/// The container of the platform's own process.
pub(super) const CONTAINER: &str = "todo";

/// The file of the database's URL.
pub(crate) const DATABASE_URL: &str = "database-url";
/// The file of the secret of tokens.
pub(super) const TOKEN_SECRET: &str = "token-secret";
/// The file of the internal API's key.
pub(super) const INTERNAL_KEY: &str = "internal-key";

const SETTINGS_FOLDER: &str = "/etc/todo/settings";
const SECRETS_FOLDER: &str = "/etc/todo/secrets";
/// The user and group of the image's process, which its `/etc/passwd` knows as `nonroot`.
const USER: i64 = 65532;
/// Readable for the process' group, which the files are given to, and for nobody else.
const FOR_THE_GROUP: i32 = 0o440;

/// Where a process finds a secret.
pub(super) fn secret_file(name: &str) -> String {
    format!("{SECRETS_FOLDER}/{name}")
}

/// A key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SecretKey {
    pub(super) name: String,
    pub(super) key: String,
}

impl SecretKey {
    pub(super) fn new(name: impl Into<String>, key: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            key: key.into(),
        }
    }
}

/// What tells pods of the platform's own process apart.
pub(super) struct Process<'a> {
    pub(super) account: String,
    pub(super) image: &'a str,
    pub(super) args: Vec<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    /// Each file's name, and what is in it.
    pub(super) secrets: Vec<(&'static str, SecretKey)>,
    pub(super) env: Vec<EnvVar>,
}

/// Pods that run this process, without what only long-lived ones have.
pub(super) fn template(draft: &Draft, process: Process) -> PodTemplateSpec {
    let image = draft.spec.image.as_ref();
    let pull_policy = match image.map(|image| image.pull_policy).unwrap_or_default() {
        PullPolicy::IfNotPresent => "IfNotPresent",
        PullPolicy::Always => "Always",
        PullPolicy::Never => "Never",
    };
    let pull_secrets: Vec<LocalObjectReference> = image
        .into_iter()
        .flat_map(|image| &image.pull_secrets)
        .map(|secret| LocalObjectReference {
            name: secret.name.clone(),
        })
        .collect();
    let mut env = vec![EnvVar {
        name: "TODO_SETTINGS".to_owned(),
        value: Some(format!("{SETTINGS_FOLDER}/{FILE}")),
        ..EnvVar::default()
    }];
    env.extend(process.env);
    let container = Container {
        name: CONTAINER.to_owned(),
        image: Some(process.image.to_owned()),
        image_pull_policy: Some(pull_policy.to_owned()),
        args: Some(process.args),
        env: Some(env),
        security_context: Some(container_security()),
        volume_mounts: Some(vec![
            mount("settings", SETTINGS_FOLDER),
            mount("secrets", SECRETS_FOLDER),
        ]),
        ..Container::default()
    };
    let settings = ConfigMapVolumeSource {
        name: draft.names.settings(),
        ..ConfigMapVolumeSource::default()
    };
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(process.labels),
            annotations: Some(process.annotations).filter(|annotations| !annotations.is_empty()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![container],
            image_pull_secrets: Some(pull_secrets).filter(|secrets| !secrets.is_empty()),
            volumes: Some(vec![
                Volume {
                    name: "settings".to_owned(),
                    config_map: Some(settings),
                    ..Volume::default()
                },
                projected("secrets", process.secrets),
            ]),
            ..bare(process.account, USER)
        }),
    }
}

/// A pod without containers: who it is, and what it may not.
pub(super) fn bare(account: String, user: i64) -> PodSpec {
    PodSpec {
        service_account_name: Some(account),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(user),
            run_as_group: Some(user),
            fs_group: Some(user),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

pub(super) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        ..SecurityContext::default()
    }
}

pub(super) fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

/// One folder with a file for each secret.
pub(super) fn projected(volume: &str, secrets: Vec<(&'static str, SecretKey)>) -> Volume {
    let sources = secrets
        .into_iter()
        .map(|(file, SecretKey { name, key })| VolumeProjection {
            secret: Some(SecretProjection {
                name,
                items: Some(vec![KeyToPath {
                    key,
                    path: file.to_owned(),
                    ..KeyToPath::default()
                }]),
                ..SecretProjection::default()
            }),
            ..VolumeProjection::default()
        });
    Volume {
        name: volume.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(FOR_THE_GROUP),
            sources: Some(sources.collect()),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// An environment variable that is a Secret's key. It is read once, at the pod's start.
pub(super) fn env_of(name: &str, secret: SecretKey) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.name,
                key: secret.key,
                ..SecretKeySelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// The file of the database's URL, which every process has.
pub(super) fn database_url(draft: &Draft, release: &Release) -> (&'static str, SecretKey) {
    (DATABASE_URL, database::url_key(draft, release))
}

/// Copies on different nodes and in different zones, as far as there are any: one that cannot be spread still runs.
pub(super) fn spread(selector: &BTreeMap<String, String>) -> Vec<TopologySpreadConstraint> {
    ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        .map(|key| TopologySpreadConstraint {
            max_skew: 1,
            topology_key: key.to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(LabelSelector {
                match_labels: Some(selector.clone()),
                ..LabelSelector::default()
            }),
            // Without it, the pods of a rollout's other side count too.
            match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
            ..TopologySpreadConstraint::default()
        })
        .into()
}
