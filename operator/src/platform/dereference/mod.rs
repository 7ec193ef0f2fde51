//! Dereferencing: all that a pass reads from the cluster, before anything is decided.
//!
//! Reads only. What it finds becomes [`Inputs`], which everything after it works on. Own children come from the cache;
//! what is not ours is asked for by name: no Secret of anybody else is ever listed.

mod kafka;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use todo_crds::TodoPlatform;
use todo_crds::platform::{SecretKeyRef, StrimziKafka};

use super::build::is_own_database;
use super::seen::{JobFacts, Seen};
use super::{
    DatabaseFacts, Drawn, Inputs, InternalKey, KafkaFacts, KafkaListener, Release, SecretFacts, VolumeFacts, release,
};
use crate::capabilities::Capabilities;
use crate::child::Kind;
use crate::error::{Call, Result};
use crate::names::{Names, ROTATE_INTERNAL_KEY};
use crate::settings::Settings;

pub use self::secrets::SecretsRead;

/// Reads what the platform refers to, and what was made for it before. `read` is what was read of its Secrets already,
/// and `news` how many changes of them the watch has told of.
///
/// # Errors
/// Those of the API server. What is not there is no error: it is a problem to be told.
pub async fn dereference(
    client: &Client,
    settings: &Arc<Settings>,
    capabilities: &Arc<Capabilities>,
    seen: &Seen,
    read: &SecretsRead,
    news: u64,
    platform: Arc<TodoPlatform>,
) -> Result<Inputs> {
    let names = Names::of(&platform);
    let release = release_to_run(&platform, settings, seen, &names);
    let referenced = referenced_secrets(&platform);
    // Pods stay at the database that they have until another is migrated.
    let in_use = release.as_ref().and_then(|release| release.database.as_ref());
    let in_use = in_use.filter(|secret| !is_own_database(secret, &names) && !referenced.contains_key(&secret.name));
    let in_use = in_use.map(|secret| secret.name.clone());
    let mut secrets = read.of(client, &platform, news, referenced.into_keys()).await?;
    if let Some(name) = in_use
        && let Some(secret) = secret(client, &names.namespace, &name).await?
    {
        secrets.insert(name, secret_facts(&secret));
    }
    for (key, secret) in seen.of(Kind::Secret) {
        if let Some(secret) = typed_secret(secret).filter(|_| key.namespace == names.namespace) {
            secrets.insert(key.name.clone(), secret_facts(&secret));
        }
    }
    let strimzi = platform.spec.kafka.as_ref().and_then(|kafka| kafka.strimzi.as_ref());
    let (kafka, kafka_user) = match strimzi {
        Some(strimzi) => (
            kafka(client, capabilities, &names, strimzi).await?,
            kafka_user(client, &names, strimzi).await?,
        ),
        None => (None, None),
    };
    Ok(Inputs {
        secrets,
        kafka,
        kafka_user,
        internal_key: internal_key(seen, &names),
        database: database(seen, &names),
        release,
        drawn: draw(),
        settings: Arc::clone(settings),
        capabilities: Arc::clone(capabilities),
        platform,
    })
}

/// The Secrets whose changes concern the platform: those that its manifest names, and that of its user at the brokers.
/// Namespace and name.
pub fn watched_secrets(platform: &TodoPlatform, names: &Names) -> BTreeSet<(String, String)> {
    let referenced = referenced_secrets(platform).into_keys();
    let mut secrets: BTreeSet<(String, String)> = referenced.map(|name| (names.namespace.clone(), name)).collect();
    let strimzi = platform.spec.kafka.as_ref().and_then(|kafka| kafka.strimzi.as_ref());
    if let Some(strimzi) = strimzi.filter(|strimzi| strimzi.user.create) {
        secrets.insert((kafka_namespace(names, strimzi).to_owned(), names.kafka_user()));
    }
    secrets
}

/// The Secrets in the platform's namespace that its manifest names, each with the keys that are read.
fn referenced_secrets(platform: &TodoPlatform) -> BTreeMap<String, BTreeSet<String>> {
    let spec = &platform.spec;
    let mut secrets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut add = |name: &str, keys: &[&str]| {
        let known = secrets.entry(name.to_owned()).or_default();
        known.extend(keys.iter().map(|key| (*key).to_owned()));
    };
    let mut add_key = |secret: Option<&SecretKeyRef>| {
        if let Some(secret) = secret {
            add(&secret.name, &[&secret.key]);
        }
    };
    add_key(spec.database.url_secret_ref.as_ref());
    add_key(spec.auth.secret_ref.as_ref());
    let kafka = spec.kafka.as_ref();
    let external = kafka.and_then(|kafka| kafka.external.as_ref());
    add_key(external.and_then(|external| external.ca_secret_ref.as_ref()));
    let store = spec.dapr.as_ref().and_then(|dapr| dapr.state_store.as_ref());
    if let Some(redis) = store.and_then(|store| store.redis.as_ref()) {
        add_key(Some(&redis.host_secret_ref));
        add_key(redis.password_secret_ref.as_ref());
    }
    let notifications = spec.notifications.as_ref();
    add_key(notifications.and_then(|notifications| Some(&notifications.email.as_ref()?.smtp.url_secret_ref)));
    if let Some(push) = notifications.and_then(|notifications| notifications.web_push.as_ref()) {
        add(&push.vapid_secret_ref.name, &["private", "public", "subject"]);
    }
    let login = &["username", "password"];
    let strimzi = kafka.and_then(|kafka| kafka.strimzi.as_ref());
    if let Some(secret) = strimzi.and_then(|strimzi| strimzi.user.secret_ref.as_ref()) {
        add(&secret.name, login);
    }
    if let Some(sasl) = external.and_then(|external| external.sasl.as_ref()) {
        add(&sasl.secret_ref.name, login);
    }
    secrets
}

/// A Secret; `None` when it is not there.
pub(super) async fn secret(client: &Client, namespace: &str, name: &str) -> Result<Option<Secret>> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await;
    found.map_err(|error| Call::new("get", "secrets", namespace, name).failed(error))
}

/// What a pass would find on a cluster that has all that the manifest refers to, and nothing else.
pub fn assumed(settings: &Settings, capabilities: Capabilities, platform: TodoPlatform) -> Inputs {
    let names = Names::of(&platform);
    let referenced = referenced_secrets(&platform);
    let secrets = referenced.iter().map(|(name, keys)| {
        let keys = keys.iter().map(|key| (key.as_str(), b"assumed".as_slice()));
        (name.clone(), SecretFacts::of(keys))
    });
    let strimzi = platform.spec.kafka.as_ref().and_then(|kafka| kafka.strimzi.as_ref());
    let kafka = strimzi.map(|strimzi| KafkaFacts {
        listener: Some(KafkaListener {
            bootstrap: format!(
                "{}-kafka-bootstrap.{}.svc:9092",
                strimzi.cluster.name,
                kafka_namespace(&names, strimzi)
            ),
            ca: None,
            scram: strimzi.user.create || strimzi.user.secret_ref.is_some(),
        }),
        brokers: None,
        authorizes: true,
    });
    let user = strimzi.filter(|strimzi| strimzi.user.create);
    Inputs {
        secrets: secrets.collect(),
        kafka,
        kafka_user: user.map(|_| [("password".to_owned(), b"assumed".to_vec())].into()),
        internal_key: None,
        database: DatabaseFacts::default(),
        release: Some(release::target(&platform, settings)),
        drawn: draw(),
        settings: Arc::new(settings.clone()),
        capabilities: Arc::new(capabilities),
        platform: Arc::new(platform),
    }
}

fn typed_secret(secret: &Value) -> Option<Secret> {
    serde_json::from_value(secret.clone()).ok()
}

/// What is known of a Secret without its values.
fn secret_facts(secret: &Secret) -> SecretFacts {
    let data = secret.data.iter().flatten();
    SecretFacts {
        uid: secret.uid(),
        ..SecretFacts::of(data.map(|(key, value)| (key.as_str(), value.0.as_slice())))
    }
}

/// Strimzi's `Kafka`, in the version in which this cluster serves Strimzi's kinds.
async fn kafka(
    client: &Client,
    capabilities: &Capabilities,
    names: &Names,
    strimzi: &StrimziKafka,
) -> Result<Option<KafkaFacts>> {
    let Some(version) = capabilities.version(Kind::KafkaTopic) else {
        return Ok(None);
    };
    let kind = GroupVersionKind::gvk(Kind::KafkaTopic.group(), version, "Kafka");
    let resource = ApiResource::from_gvk_with_plural(&kind, "kafkas");
    let namespace = kafka_namespace(names, strimzi);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let name = &strimzi.cluster.name;
    let found = api.get_opt(name).await;
    let found = found.map_err(|error| Call::new("get", "kafkas.kafka.strimzi.io", namespace, name).failed(error))?;
    let logs_in = strimzi.user.create || strimzi.user.secret_ref.is_some();
    Ok(found.map(|found| kafka::facts(&found.data, logs_in)))
}

/// The namespace of Strimzi's `Kafka`, and so of topics and users.
pub(super) fn kafka_namespace<'a>(names: &'a Names, strimzi: &'a StrimziKafka) -> &'a str {
    strimzi.cluster.namespace.as_deref().unwrap_or(&names.namespace)
}

/// What Strimzi made for the user that we asked for. One of the same name that is not Strimzi's is not looked into.
async fn kafka_user(
    client: &Client,
    names: &Names,
    strimzi: &StrimziKafka,
) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
    if !strimzi.user.create {
        return Ok(None);
    }
    let found = secret(client, kafka_namespace(names, strimzi), &names.kafka_user()).await?;
    let found = found.filter(|secret| {
        secret
            .labels()
            .get("strimzi.io/kind")
            .is_some_and(|kind| kind == "KafkaUser")
    });
    let values = found.and_then(|secret| secret.data);
    Ok(values.map(|values| values.into_iter().map(|(key, value)| (key, value.0)).collect()))
}

fn database(seen: &Seen, names: &Names) -> DatabaseFacts {
    let own = |kind| seen.get(kind, &names.namespace, &names.database());
    let stateful_set = own(Kind::StatefulSet);
    let cluster = own(Kind::DatabaseCluster);
    DatabaseFacts {
        is_stateful_set: stateful_set.is_some(),
        volume: stateful_set.and_then(volume),
        is_cluster: cluster.is_some(),
        left_volume: cluster.and_then(|cluster| {
            let storage = cluster.pointer("/spec/storage")?;
            Some(VolumeFacts {
                size: storage["size"].as_str()?.to_owned(),
                class: storage["storageClass"].as_str().map(ToOwned::to_owned),
            })
        }),
    }
}

fn volume(stateful_set: &Value) -> Option<VolumeFacts> {
    let claim = stateful_set.pointer("/spec/volumeClaimTemplates/0/spec")?;
    Some(VolumeFacts {
        size: claim.pointer("/resources/requests/storage")?.as_str()?.to_owned(),
        class: claim["storageClassName"].as_str().map(ToOwned::to_owned),
    })
}

fn internal_key(seen: &Seen, names: &Names) -> Option<InternalKey> {
    let secret = seen.get(Kind::Secret, &names.namespace, &names.internal_key())?;
    let key = BASE64_STANDARD.decode(secret.pointer("/data/key")?.as_str()?).ok()?;
    let annotations = secret.pointer("/metadata/annotations");
    Some(InternalKey {
        resource_version: secret.pointer("/metadata/resourceVersion")?.as_str()?.to_owned(),
        key,
        rotated: annotations.and_then(|annotations| Some(annotations.get(ROTATE_INTERNAL_KEY)?.as_str()?.to_owned())),
    })
}

/// The target as soon as its migration has succeeded; what runs, until then.
///
/// What runs already needs no migration, also when its Job was deleted since.
fn release_to_run(platform: &TodoPlatform, settings: &Settings, seen: &Seen, names: &Names) -> Option<Release> {
    let target = release::target(platform, settings);
    let running = seen.running(names);
    if running.as_ref().is_some_and(|running| running.is(&target, names)) {
        return running;
    }
    let job = names.migration(&release::migration_hash(&target));
    match seen.get(Kind::Job, &names.namespace, &job).map(JobFacts::read) {
        Some(JobFacts::Succeeded) => Some(target),
        _ => running,
    }
}

fn draw() -> Drawn {
    Drawn {
        internal_key: secret_value(),
        token: secret_value(),
        app_token: secret_value(),
        dapr_token: secret_value(),
        database: secret_value(),
    }
}

fn secret_value() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}
