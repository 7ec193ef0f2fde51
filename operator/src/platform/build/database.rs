//! The platform's own database, when the manifest names none: CloudNativePG's `Cluster` where that is served, else one
//! PostgreSQL that is fit for evaluation. Which of the two is decided once: what is there already stays.
//!
//! Three instances of CloudNativePG, and a commit waits for one standby: what was answered 2xx survives the loss of a
//! node. The evaluation database has one pod and one volume.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EmptyDirVolumeSource, EnvVar, ExecAction, Lifecycle, LifecycleHandler,
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, Service,
    ServicePort, ServiceSpec, Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value, json};
use todo_crds::platform::SecretKeyRef;

use super::draft::Draft;
use super::pod::{self, SecretKey};
use crate::child::{Child, Kind, Tenure};
use crate::names::Names;
use crate::platform::{Inputs, Release, VolumeFacts};

/// The keys of the evaluation database's Secret.
pub(super) const URL_KEY: &str = "url";
pub(super) const PASSWORD_KEY: &str = "password";
/// Where PostgreSQL listens.
pub(super) const PORT: i32 = 5432;

/// The key of the URL in CloudNativePG's Secret.
const APPLICATION_KEY: &str = "uri";

const COMPONENT: &str = "db";
/// The user, and the database, of the platform.
const NAME: &str = "todo";
/// The volume's size where the manifest asks for none.
const DEFAULT_SIZE: &str = "1Gi";
/// The user of PostgreSQL in its official image.
const USER: i64 = 999;
const DATA: &str = "/data";
const PASSWORD_FOLDER: &str = "/etc/todo/database";

/// Where the platform's data are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a database of the user's.
    Given,
    /// In a `Cluster` of CloudNativePG.
    Cluster,
    /// In a PostgreSQL for evaluation.
    StatefulSet,
    /// Nobody knows: the platform has run, and nothing is there that its data could be in.
    Lost,
}

/// Where this platform's data are.
pub(crate) fn place(draft: &Draft) -> Place {
    let Inputs {
        database,
        secrets,
        capabilities,
        release,
        ..
    } = draft.inputs;
    // The Secret outlives a StatefulSet that somebody deleted, as the volume does.
    let is_stateful_set = database.is_stateful_set || secrets.contains_key(&draft.names.database());
    if draft.spec.database.url_secret_ref.is_some() {
        Place::Given
    } else if database.is_cluster {
        Place::Cluster
    } else if is_stateful_set {
        Place::StatefulSet
    } else if capabilities.has(Kind::DatabaseCluster) {
        Place::Cluster
    } else if release.is_some() {
        Place::Lost
    } else {
        Place::StatefulSet
    }
}

/// The database that the platform has of its own, if any: the one that its data are in, or one from before that it has
/// left for a database of the user's. That stays too, with all that it needs to run and to be opened, until somebody
/// deletes it: there may be data in it that nobody has taken along yet.
pub(crate) fn own(draft: &Draft) -> Option<Place> {
    let found = &draft.inputs.database;
    match place(draft) {
        Place::Given if found.is_cluster => Some(Place::Cluster),
        Place::Given if found.is_stateful_set => Some(Place::StatefulSet),
        Place::Given | Place::Lost => None,
        place => Some(place),
    }
}

/// Where this release's pods find the URL of its database.
pub(super) fn url_key(draft: &Draft, release: &Release) -> SecretKey {
    match &release.database {
        Some(secret) => SecretKey::new(&secret.name, &secret.key),
        None if place(draft) == Place::Cluster => SecretKey::new(of_application(&draft.names), APPLICATION_KEY),
        None => SecretKey::new(draft.names.database(), URL_KEY),
    }
}

/// Whether the platform's own database is come at by this.
pub(crate) fn is_own_database(secret: &SecretKeyRef, names: &Names) -> bool {
    let SecretKeyRef { name, key } = secret;
    (*name == names.database() && key == URL_KEY) || (*name == of_application(names) && key == APPLICATION_KEY)
}

/// CloudNativePG's own Secret for the application's user.
fn of_application(names: &Names) -> String {
    format!("{}-app", names.database())
}

/// The evaluation database's URL.
pub(super) fn url(draft: &Draft, password: &str) -> String {
    let (service, namespace) = (draft.names.database(), &draft.names.namespace);
    let domain = &draft.inputs.settings.cluster_domain;
    format!("postgres://{NAME}:{password}@{service}.{namespace}.svc.{domain}:{PORT}/{NAME}")
}

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    match own(draft) {
        Some(Place::Cluster) => vec![cluster(draft)],
        Some(Place::StatefulSet) => vec![service(draft), stateful_set(draft)],
        Some(Place::Given | Place::Lost) | None => vec![],
    }
}

fn cluster(draft: &Draft) -> Child {
    // The manifest says nothing of one that the platform has left.
    let left = draft.inputs.database.left_volume.clone();
    let left = left.filter(|_| draft.spec.database.url_secret_ref.is_some());
    let volume = left.unwrap_or_else(|| asked_volume(draft));
    let mut storage = Map::new();
    storage.insert("size".to_owned(), volume.size.into());
    storage.extend(
        volume
            .class
            .map(|class| ("storageClass".to_owned(), Value::from(class))),
    );
    let object = draft.object(Kind::DatabaseCluster, draft.names.database());
    let object = object.component(COMPONENT).tenure(draft.tenure_of_data());
    object.content(&json!({"spec": {
        "instances": 3,
        "bootstrap": {"initdb": {"database": NAME, "owner": NAME}},
        "postgresql": {"synchronous": {"method": "any", "number": 1}},
        "storage": storage,
    }}))
}

fn service(draft: &Draft) -> Child {
    let service = Service {
        spec: Some(ServiceSpec {
            // Headless: there is one pod, and its name is the volume's.
            cluster_ip: Some("None".to_owned()),
            selector: Some(selector(draft)),
            ports: Some(vec![ServicePort {
                name: Some("postgresql".to_owned()),
                port: PORT,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String("postgresql".to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    let object = draft.object(Kind::Service, draft.names.database());
    let object = object.component(COMPONENT).tenure(draft.tenure_of_data());
    object.content(&service)
}

pub(super) fn selector(draft: &Draft) -> std::collections::BTreeMap<String, String> {
    [
        ("app.kubernetes.io/instance", draft.names.platform.as_str()),
        ("app.kubernetes.io/component", COMPONENT),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// The volume of the evaluation database: what it has once it is there, for a StatefulSet's cannot be changed.
fn volume(draft: &Draft) -> VolumeFacts {
    let found = draft.inputs.database.volume.clone();
    found.unwrap_or_else(|| asked_volume(draft))
}

fn asked_volume(draft: &Draft) -> VolumeFacts {
    let storage = draft.spec.database.storage.as_ref();
    VolumeFacts {
        size: storage.map_or(DEFAULT_SIZE.to_owned(), |storage| storage.size.clone()),
        class: storage.and_then(|storage| storage.class_name.clone()),
    }
}

fn stateful_set(draft: &Draft) -> Child {
    let name = draft.names.database();
    let volume = volume(draft);
    let retention = match draft.tenure_of_data() {
        Tenure::Kept => "Retain",
        Tenure::Owned => "Delete",
    };
    let claim = PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some("data".to_owned()),
            labels: Some(selector(draft)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: volume.class,
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(volume.size))].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    };
    let set = StatefulSet {
        spec: StatefulSetSpec {
            replicas: Some(1),
            service_name: Some(name.clone()),
            selector: LabelSelector {
                match_labels: Some(selector(draft)),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(draft.labels(COMPONENT)),
                    ..ObjectMeta::default()
                }),
                spec: Some(server(draft)),
            },
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some(retention.to_owned()),
                when_scaled: Some("Retain".to_owned()),
            }),
            volume_claim_templates: Some(vec![claim]),
            ..StatefulSetSpec::default()
        },
        ..StatefulSet::default()
    };
    let object = draft.object(Kind::StatefulSet, name);
    let object = object.component(COMPONENT).tenure(draft.tenure_of_data());
    object.content(&set)
}

fn server(draft: &Draft) -> PodSpec {
    let env = [
        ("POSTGRES_USER", NAME.to_owned()),
        ("POSTGRES_DB", NAME.to_owned()),
        ("POSTGRES_PASSWORD_FILE", format!("{PASSWORD_FOLDER}/{PASSWORD_KEY}")),
        // A folder below the volume's root, where some file systems keep a folder of their own.
        ("PGDATA", format!("{DATA}/pgdata")),
    ];
    let writable = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    };
    let requests = [("cpu", "100m"), ("memory", "256Mi")];
    let container = Container {
        name: "postgresql".to_owned(),
        image: Some(draft.inputs.settings.evaluation_postgres_image.clone()),
        env: Some(
            env.into_iter()
                .map(|(name, value)| EnvVar {
                    name: name.to_owned(),
                    value: Some(value),
                    ..EnvVar::default()
                })
                .collect(),
        ),
        ports: Some(vec![ContainerPort {
            name: Some("postgresql".to_owned()),
            container_port: PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        // While the first start initialises the data, a server answers on its socket only.
        startup_probe: Some(answers(2, 90)),
        readiness_probe: Some(answers(5, 3)),
        liveness_probe: Some(answers(10, 6)),
        // SIGTERM would let it wait for every client to go by itself.
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                exec: Some(command(&["pg_ctl", "stop", "--mode=fast", "--wait"])),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        resources: Some(ResourceRequirements {
            requests: Some(
                requests
                    .map(|(kind, amount)| (kind.to_owned(), Quantity(amount.to_owned())))
                    .into(),
            ),
            ..ResourceRequirements::default()
        }),
        security_context: Some(pod::container_security()),
        volume_mounts: Some(vec![
            writable("data", DATA),
            writable("run", "/var/run/postgresql"),
            writable("tmp", "/tmp"),
            pod::mount("password", PASSWORD_FOLDER),
        ]),
        ..Container::default()
    };
    let scratch = |name: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let password = SecretKey::new(draft.names.database(), PASSWORD_KEY);
    PodSpec {
        containers: vec![container],
        volumes: Some(vec![
            scratch("run"),
            scratch("tmp"),
            pod::projected("password", vec![(PASSWORD_KEY, password)]),
        ]),
        termination_grace_period_seconds: Some(60),
        ..pod::bare(draft.names.database(), USER)
    }
}

fn answers(period: i32, failures: i32) -> Probe {
    Probe {
        exec: Some(command(&[
            "pg_isready",
            "--quiet",
            "--host=127.0.0.1",
            "--username=todo",
            "--dbname=todo",
        ])),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

fn command(words: &[&str]) -> ExecAction {
    ExecAction {
        command: Some(words.iter().map(|word| (*word).to_owned()).collect()),
    }
}
