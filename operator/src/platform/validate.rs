//! Validation: what is wrong with a platform in this cluster, which schema and rules of the CRD cannot know.
//!
//! Pure: it looks at what the pass has read. Every problem names the field, says what to do, and says how far it stands in
//! the way. A Secret that pods cannot start without is in the way of everything: what runs is left as it is, and not
//! rolled into the wall. An optional API that the cluster does not serve is not: the rest is built.

use todo_crds::Role;
use todo_crds::platform::{SecretKeyRef, WorkerSpec};

use super::build::{Draft, Place, ROLES, ignored_lag, least_connections, place};
use super::status::ConditionType;
use super::{Inputs, Problem, Severity};
use crate::child::Kind;

/// Everything that is wrong, in the order of the manifest.
pub fn validate(inputs: &Inputs) -> Vec<Problem> {
    let mut problems = Problems(vec![]);
    for problem in inputs.platform.validate() {
        problems.blocking(ConditionType::Ready, "InvalidSpec", problem.to_string());
    }
    let draft = Draft::new(inputs);
    database(&draft, &mut problems);
    kafka(&draft, &mut problems);
    dapr(&draft, &mut problems);
    if let Some(secret) = &draft.spec.auth.secret_ref {
        let keys = [secret.key.as_str()];
        problems.secret(&draft, ConditionType::Ready, "spec.auth.secretRef", &secret.name, &keys);
    }
    if draft.spec.api.http_route.is_some() && !inputs.capabilities.has(Kind::HttpRoute) {
        let message = "spec.api.httpRoute: the Gateway API is not installed in this cluster, so nobody reaches the API from \
                       outside; install it, or use spec.api.ingress";
        problems.impaired(ConditionType::Ready, "GatewayNotInstalled", message.to_owned());
    }
    workers(&draft, &mut problems);
    monitoring(&draft, &mut problems);
    problems.0
}

struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, severity: Severity, about: ConditionType, reason: &'static str, message: String) {
        self.0.push(Problem {
            about,
            reason,
            message,
            severity,
        });
    }

    fn blocking(&mut self, about: ConditionType, reason: &'static str, message: String) {
        self.add(Severity::Blocking, about, reason, message);
    }

    fn impaired(&mut self, about: ConditionType, reason: &'static str, message: String) {
        self.add(Severity::Impaired, about, reason, message);
    }

    fn note(&mut self, reason: &'static str, message: String) {
        self.add(Severity::Note, ConditionType::Ready, reason, message);
    }

    /// A Secret that the pods or their sidecars need, with the keys that are needed of it.
    fn secret(&mut self, draft: &Draft, about: ConditionType, field: &str, name: &str, keys: &[&str]) {
        let namespace = &draft.names.namespace;
        let Some(facts) = draft.inputs.secrets.get(name) else {
            let (what, keys) = (if keys.len() == 1 { "key" } else { "keys" }, keys.join(", "));
            let message = format!(
                "{field}: there is no Secret {name} in namespace {namespace}; create it with the {what} {keys}"
            );
            return self.blocking(about, "SecretNotFound", message);
        };
        for key in keys.iter().filter(|key| !facts.keys.contains(**key)) {
            let message = format!(
                "{field}: the Secret {name} in namespace {namespace} has no key {key}; add it, or name another"
            );
            self.blocking(about, "SecretKeyNotFound", message);
        }
    }

    fn secret_key(&mut self, draft: &Draft, about: ConditionType, field: &str, secret: &SecretKeyRef) {
        self.secret(draft, about, field, &secret.name, &[secret.key.as_str()]);
    }
}

fn database(draft: &Draft, problems: &mut Problems) {
    let about = ConditionType::DatabaseReady;
    let spec = &draft.spec.database;
    if let Some(secret) = &spec.url_secret_ref {
        problems.secret_key(draft, about, "spec.database.urlSecretRef", secret);
    }
    match place(draft) {
        Place::Cluster if !draft.inputs.capabilities.has(Kind::DatabaseCluster) => {
            let message = format!(
                "the platform's data are in the CloudNativePG Cluster {}, and CloudNativePG is not served any more; install it again",
                draft.names.database()
            );
            problems.blocking(about, "CloudNativePGNotInstalled", message);
        }
        Place::Lost => {
            let message = format!(
                "the platform runs, and neither a CloudNativePG Cluster nor a StatefulSet {} is there, nor its Secret; \
                 install CloudNativePG again if it had the data, or set spec.database.urlSecretRef: an empty database is \
                 not put in its place",
                draft.names.database()
            );
            problems.blocking(about, "DatabaseLost", message);
        }
        Place::Given | Place::Cluster | Place::StatefulSet => {}
    }
    if let (Some(asked), Some(volume)) = (&spec.storage, &draft.inputs.database.volume)
        && (!todo_crds::are_equal(&asked.size, &volume.size) || asked.class_name != volume.class)
    {
        let class = volume.class.as_deref().unwrap_or("the default");
        let message = format!(
            "spec.database.storage: the evaluation database has a volume of {} and storage class {class}, which cannot be \
             changed; set it back, or move to a database of your own with spec.database.urlSecretRef",
            volume.size
        );
        problems.impaired(about, "VolumeCannotChange", message);
    }
    let least = least_connections(draft);
    if spec.pool.max < least {
        let message = format!("spec.database.pool.max: {least} are used, the fewest that a process starts with");
        problems.note("PoolTooSmall", message);
    }
}

fn kafka(draft: &Draft, problems: &mut Problems) {
    let about = ConditionType::TopicsReady;
    let Some(kafka) = &draft.spec.kafka else {
        return;
    };
    let login = ["username", "password"];
    if let Some(external) = &kafka.external {
        if let Some(secret) = &external.ca_secret_ref {
            problems.secret_key(draft, about, "spec.kafka.external.caSecretRef", secret);
        }
        if let Some(sasl) = &external.sasl {
            let field = "spec.kafka.external.sasl.secretRef";
            problems.secret(draft, about, field, &sasl.secret_ref.name, &login);
        } else if external.tls && external.ca_secret_ref.is_none() {
            let message = "spec.kafka.external.caSecretRef: without sasl, the sidecar speaks TLS only with an authority \
                           that it is given; name the Secret that has the brokers', or set tls to false";
            problems.blocking(about, "AuthorityNotGiven", message.to_owned());
        }
        return;
    }
    let Some(strimzi) = &kafka.strimzi else {
        return;
    };
    if let Some(secret) = &strimzi.user.secret_ref {
        let field = "spec.kafka.strimzi.user.secretRef";
        problems.secret(draft, about, field, &secret.name, &login);
    }
    let cluster = format!(
        "{}/{}",
        draft.kafka_namespace().unwrap_or_default(),
        strimzi.cluster.name
    );
    let field = "spec.kafka.strimzi.cluster";
    if !draft.inputs.capabilities.has(Kind::KafkaTopic) {
        let message =
            format!("{field}: Strimzi is not installed in this cluster; install it, or use spec.kafka.external");
        return problems.impaired(about, "StrimziNotInstalled", message);
    }
    let Some(facts) = &draft.inputs.kafka else {
        let message = format!("{field}: there is no Kafka {cluster}; create it, or name the one that is meant");
        return problems.impaired(about, "KafkaNotFound", message);
    };
    let logs_in = strimzi.user.create || strimzi.user.secret_ref.is_some();
    match &facts.listener {
        None => {
            let kind = if logs_in {
                "with authentication scram-sha-512"
            } else {
                "without authentication"
            };
            let message = format!(
                "{field}: the status of Kafka {cluster} shows no internal listener {kind}; wait until it is ready, or add one"
            );
            problems.impaired(about, "NoListener", message);
        }
        Some(_) if strimzi.user.create && draft.inputs.kafka_user.is_none() => {
            let user = draft.names.kafka_user();
            let message = format!(
                "Strimzi has not made the Secret of KafkaUser {user} yet; if it stays so, look at the KafkaUser's status, and \
                 whether the Kafka has a user operator"
            );
            problems.impaired(about, "WaitingForKafkaUser", message);
        }
        Some(_) => {}
    }
    if let Some(brokers) = facts.brokers {
        let names = ["taskEvents", "taskUpdates", "reminders"];
        for (field, topic) in names.into_iter().zip(kafka.topics.resolved()) {
            if topic.replicas > brokers {
                let message = format!(
                    "spec.kafka.topics.{field}.replicas: {} copies need as many brokers, and Kafka {cluster} has {brokers}; \
                     set it to {brokers} or less",
                    topic.replicas
                );
                problems.impaired(about, "NotEnoughBrokers", message);
            }
        }
    }
}

fn dapr(draft: &Draft, problems: &mut Problems) {
    let about = ConditionType::ComponentsReady;
    if !draft.wants_sidecars() {
        if draft.spec.dapr.as_ref().is_some_and(|dapr| dapr.tracing.is_some()) {
            let message = "spec.dapr.tracing: there are no sidecars without spec.kafka and spec.dapr.stateStore";
            problems.note("NoSidecars", message.to_owned());
        }
        return;
    }
    let kinds = [
        Kind::Component,
        Kind::Configuration,
        Kind::Resiliency,
        Kind::Subscription,
    ];
    if kinds.iter().any(|kind| !draft.inputs.capabilities.has(*kind)) {
        let message = "Dapr is not installed in this cluster, and spec.kafka and spec.dapr.stateStore need its sidecars; \
                       install it: pods get theirs then by themselves";
        problems.impaired(about, "DaprNotInstalled", message.to_owned());
    }
    let store = draft.spec.dapr.as_ref().and_then(|dapr| dapr.state_store.as_ref());
    if let Some(redis) = store.and_then(|store| store.redis.as_ref()) {
        let field = "spec.dapr.stateStore.redis.hostSecretRef";
        problems.secret_key(draft, about, field, &redis.host_secret_ref);
        if let Some(secret) = &redis.password_secret_ref {
            let field = "spec.dapr.stateStore.redis.passwordSecretRef";
            problems.secret_key(draft, about, field, secret);
        }
    }
}

fn workers(draft: &Draft, problems: &mut Problems) {
    for role in Role::ALL {
        let worker = role.of(&draft.spec.workers);
        let field = format!("spec.workers.{role}");
        if !ROLES.contains(&role) {
            if *worker != WorkerSpec::default() {
                let message = format!("{field}: the role is not part of this version, and has no effect yet");
                problems.note("RoleNotAvailable", message);
            }
            continue;
        }
        let auto = worker.autoscaling.as_ref();
        if auto.is_some_and(|auto| auto.target_lag.is_some())
            && let Some(why) = ignored_lag(draft, role)
        {
            let message = format!("{field}.autoscaling.targetLag has no effect: {why}");
            problems.note("NoLagAutoscaling", message);
        }
        let has_own_pods = WorkerSpec {
            suspend: worker.suspend,
            ..WorkerSpec::default()
        };
        if !draft.is_spread() && *worker != has_own_pods {
            let message = format!(
                "{field}: without spec.kafka every role runs in the pods of the API; spec.api says how many and how large"
            );
            problems.note("NoPodsOfItsOwn", message);
        }
    }
    if draft.spec.notifications.is_some() {
        let message = "spec.notifications: the role notifications is not part of this version, and has no effect yet";
        problems.note("RoleNotAvailable", message.to_owned());
    }
}

fn monitoring(draft: &Draft, problems: &mut Problems) {
    let asked = &draft.spec.observability;
    let kinds = [
        ("podMonitor", asked.pod_monitor, Kind::PodMonitor),
        ("alerts", asked.alerts, Kind::PrometheusRule),
    ];
    for (field, is_asked, kind) in kinds {
        if is_asked && !draft.inputs.capabilities.has(kind) {
            let message = format!(
                "spec.observability.{field}: the Prometheus operator is not installed in this cluster; it has its {kind} as \
                 soon as it is"
            );
            problems.note("PrometheusNotInstalled", message);
        }
    }
}
