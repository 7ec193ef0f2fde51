//! Dapr's components: events over Kafka, and state in Redis or PostgreSQL.
//!
//! The rules behind the values are those of `dapr/components/README.md`. Names on the brokers have the platform's prefix
//! here, since the processes publish them with it.

use serde_json::{Value, json};
use todo_crds::platform::{RedisStore, StateStore};

use crate::child::{Child, Kind};
use crate::names::Component;
use crate::platform::build::draft::{CONSUMED_TOPIC, Draft};
use crate::platform::build::kafka::{self, Brokers};
use crate::platform::build::{database, pod::SecretKey};
use crate::platform::{Inputs, release};
use todo_crds::Role;

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    let events = kafka::brokers(draft).map(|brokers| pubsub(draft, &brokers));
    let state = state_store(draft).map(|store| state(draft, store));
    events.into_iter().chain(state).collect()
}

/// The state store that the manifest asks for.
pub(in crate::platform::build) fn state_store<'a>(draft: &Draft<'a>) -> Option<&'a StateStore> {
    let store = draft.spec.dapr.as_ref()?.state_store.as_ref()?;
    (store.redis.is_some() || store.postgresql.is_some()).then_some(store)
}

/// One item of a component's metadata.
fn value(name: &str, value: impl Into<String>) -> Value {
    json!({"name": name, "value": value.into()})
}

/// One that Dapr's control plane takes out of a Secret.
fn secret(name: &str, secret: &SecretKey) -> Value {
    json!({"name": name, "secretKeyRef": {"name": secret.name, "key": secret.key}})
}

fn pubsub(draft: &Draft, brokers: &Brokers) -> Child {
    let mut metadata = vec![value("brokers", &brokers.addresses)];
    match &brokers.login {
        Some(login) => {
            metadata.push(value("authType", "password"));
            metadata.push(value("saslMechanism", login.mechanism.dapr()));
            metadata.push(secret("saslUsername", &login.username));
            metadata.push(secret("saslPassword", &login.password));
            if !brokers.tls {
                metadata.push(value("disableTls", "true"));
            }
        }
        // With `none` there is no TLS either; `certificate` trusts the authority and shows nothing of its own.
        None if brokers.tls => metadata.push(value("authType", "certificate")),
        None => metadata.push(value("authType", "none")),
    }
    metadata.extend(brokers.ca.as_ref().map(|ca| secret("caCert", ca)));
    let fixed = [
        ("version", "3.9.0"),
        ("initialOffset", "oldest"),
        ("maxMessageBytes", "1000000"),
        ("consumerGroupRebalanceStrategy", "sticky"),
        ("consumeRetryInterval", "200ms"),
        ("backOffPolicy", "constant"),
        ("backOffDuration", "1s"),
        ("backOffMaxRetries", "-1"),
        // Load balancers in front of brokers close connections that are idle for some minutes.
        ("clientConnectionTopicMetadataRefreshInterval", "4m"),
        ("clientConnectionKeepAliveInterval", "3m"),
    ];
    metadata.extend(fixed.map(|(name, fixed)| value(name, fixed)));
    metadata.push(value("publishingScopes", publishing_scopes(draft)));
    metadata.push(value("subscriptionScopes", subscription_scopes(draft)));
    let scopes: Vec<String> = kafka::speakers()
        .map(|component| draft.names.component(component))
        .collect();
    let object = draft.object(Kind::Component, draft.names.pubsub()).component("events");
    object.content(&json!({
        "spec": {
            "type": "pubsub.kafka",
            "version": "v1",
            // Slow brokers must not fail the sidecar's start.
            "initTimeout": "60s",
            "metadata": metadata,
        },
        "scopes": scopes,
    }))
}

/// Who may write which topic: the relay what happened, a consumer only its own dead letters.
fn publishing_scopes(draft: &Draft) -> String {
    let relay = draft.names.component(Component::Worker(Role::Relay));
    let kafka = draft.spec.kafka.as_ref();
    let topics: Vec<String> = kafka
        .into_iter()
        .flat_map(|kafka| kafka.topics.resolved())
        .map(|topic| draft.names.topic(topic.name))
        .collect();
    let dead_letters = draft
        .consumers()
        .map(|(consumer, app)| format!("{app}={}", draft.names.dead_letters(consumer)));
    let all: Vec<String> = [format!("{relay}={}", topics.join(","))]
        .into_iter()
        .chain(dead_letters)
        .collect();
    all.join(";")
}

fn subscription_scopes(draft: &Draft) -> String {
    let relay = draft.names.component(Component::Worker(Role::Relay));
    let consumed = draft.names.topic(CONSUMED_TOPIC);
    let consumers = draft.consumers().map(|(_, app)| format!("{app}={consumed}"));
    let all: Vec<String> = [format!("{relay}=")].into_iter().chain(consumers).collect();
    all.join(";")
}

fn state(draft: &Draft, store: &StateStore) -> Child {
    let names = &draft.names;
    // One prefix for every app that ever keeps the platform's state: Dapr's own is the app id, and another app would
    // find nothing. Nor may two platforms that share a Redis find each other's.
    let prefix = value("keyPrefix", format!("{}.{}", names.namespace, names.platform));
    let (kind, version, mut metadata) = if let Some(redis) = &store.redis {
        ("state.redis", "v1", redis_metadata(redis))
    } else {
        ("state.postgresql", "v2", postgresql_metadata(draft))
    };
    metadata.push(prefix);
    let object = draft.object(Kind::Component, names.state()).component("state");
    object.content(&json!({
        "spec": {
            "type": kind,
            "version": version,
            // A sidecar that ended over it would take the API from its Service, which does without a store: it keeps
            // state in the database then.
            "initTimeout": "30s",
            "ignoreErrors": true,
            "metadata": metadata,
        },
        "scopes": [names.component(draft.api())],
    }))
}

fn redis_metadata(redis: &RedisStore) -> Vec<Value> {
    let host = &redis.host_secret_ref;
    let password = match &redis.password_secret_ref {
        Some(password) => secret("redisPassword", &SecretKey::new(&password.name, &password.key)),
        None => value("redisPassword", ""),
    };
    vec![
        secret("redisHost", &SecretKey::new(&host.name, &host.key)),
        password,
        value("dialTimeout", "2s"),
        value("readTimeout", "1s"),
        value("writeTimeout", "1s"),
        // The client tries again what is safe to be done twice.
        value("redisMaxRetries", "-1"),
    ]
}

fn postgresql_metadata(draft: &Draft) -> Vec<Value> {
    // The one that the API uses now.
    let Inputs {
        release,
        platform,
        settings,
        ..
    } = draft.inputs;
    let release = release.clone().unwrap_or_else(|| release::target(platform, settings));
    vec![
        secret("connectionString", &database::url_key(draft, &release)),
        value("tablePrefix", "todo_dapr_"),
        value("metadataTableName", "todo_dapr_metadata"),
        value("timeout", "2s"),
        value("maxConns", "4"),
        value("cleanupInterval", "10m"),
    ]
}
