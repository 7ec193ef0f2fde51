//! Kafka: how its brokers are reached, the topics, and the user that sidecars are there.
//!
//! Topics and the user of a Strimzi are objects in Kafka's own namespace. Those of a Kafka elsewhere are made by the
//! admin client (`crate::kafka`), from the same list.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use todo_crds::platform::SaslMechanism;

use super::draft::{CONSUMED_TOPIC, CONSUMERS, Draft, ROLES};
use super::pod::SecretKey;
use super::secrets;
use crate::child::{Child, Kind};
use crate::kafka::TopicSpec;
use crate::names::Component;
use crate::platform::Inputs;

/// How long dead letters are kept: long enough to look at them after a holiday.
const DEAD_LETTERS_RETENTION_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// How the brokers are reached.
pub(super) struct Brokers {
    /// `HOST:PORT,…`
    pub(super) addresses: String,
    pub(super) tls: bool,
    /// The certificate authority in PEM, when it is not a public one.
    pub(super) ca: Option<SecretKey>,
    pub(super) login: Option<Login>,
}

/// How sidecars log in.
pub(super) struct Login {
    pub(super) mechanism: Mechanism,
    pub(super) username: SecretKey,
    pub(super) password: SecretKey,
}

/// A mechanism, which everyone spells in their own way.
#[derive(Clone, Copy)]
pub(super) struct Mechanism(SaslMechanism);

impl Mechanism {
    /// Dapr's name. It takes Kafka's own names to mean PLAIN, without a word.
    pub(super) fn dapr(self) -> &'static str {
        match self.0 {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SHA-256",
            SaslMechanism::ScramSha512 => "SHA-512",
        }
    }

    /// KEDA's name.
    pub(super) fn keda(self) -> &'static str {
        match self.0 {
            SaslMechanism::Plain => "plaintext",
            SaslMechanism::ScramSha256 => "scram_sha256",
            SaslMechanism::ScramSha512 => "scram_sha512",
        }
    }
}

/// How the brokers are reached; `None` as long as something of it is not known.
pub(super) fn brokers(draft: &Draft) -> Option<Brokers> {
    let kafka = draft.spec.kafka.as_ref()?;
    let login = |mechanism: SaslMechanism, secret: &str| Login {
        mechanism: Mechanism(mechanism),
        username: SecretKey::new(secret, "username"),
        password: SecretKey::new(secret, "password"),
    };
    if let Some(external) = &kafka.external {
        let ca = external.ca_secret_ref.as_ref();
        let sasl = external.sasl.as_ref();
        return Some(Brokers {
            addresses: external.brokers.join(","),
            tls: external.tls,
            ca: ca.map(|secret| SecretKey::new(&secret.name, &secret.key)),
            login: sasl.map(|sasl| login(sasl.mechanism, &sasl.secret_ref.name)),
        });
    }
    let user = &kafka.strimzi.as_ref()?.user;
    let listener = draft.inputs.kafka.as_ref()?.listener.as_ref()?;
    let own = draft.names.kafka();
    let secret = match (user.create, &user.secret_ref) {
        (true, _) => {
            secrets::kafka(draft)?;
            Some(own.as_str())
        }
        (false, Some(secret)) => Some(secret.name.as_str()),
        (false, None) => None,
    };
    Some(Brokers {
        addresses: listener.bootstrap.clone(),
        tls: listener.ca.is_some(),
        ca: listener.ca.as_ref().map(|_| SecretKey::new(&own, "ca.crt")),
        login: secret.map(|secret| login(SaslMechanism::ScramSha512, secret)),
    })
}

/// Every topic of the platform, with its name on the brokers: three of events, and one for what each consumer could not
/// read. Empty without Kafka.
pub fn topics(inputs: &Inputs) -> Vec<TopicSpec> {
    let draft = Draft::new(inputs);
    let Some(kafka) = &draft.spec.kafka else {
        return vec![];
    };
    let resolved = kafka.topics.resolved();
    let dead_letters_replicas = resolved
        .iter()
        .find(|topic| topic.name == CONSUMED_TOPIC)
        .map_or(1, |topic| topic.replicas);
    let events = resolved.iter().map(|topic| TopicSpec {
        name: draft.names.topic(topic.name),
        partitions: topic.partitions,
        replicas: topic.replicas,
        config: config(topic.replicas, topic.retention.seconds().saturating_mul(1000)),
    });
    let dead_letters = draft.consumers().map(|(consumer, _)| TopicSpec {
        name: draft.names.dead_letters(consumer),
        partitions: 1,
        replicas: dead_letters_replicas,
        config: config(dead_letters_replicas, DEAD_LETTERS_RETENTION_MS),
    });
    events.chain(dead_letters).collect()
}

/// One broker may be away without stopping who writes, and what was written is on the others.
fn config(replicas: u32, retention_ms: u64) -> BTreeMap<String, String> {
    [
        ("cleanup.policy", "delete".to_owned()),
        ("min.insync.replicas", replicas.saturating_sub(1).max(1).to_string()),
        ("retention.ms", retention_ms.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    let (Some(strimzi), Some(namespace)) = (draft.strimzi(), draft.kafka_namespace()) else {
        return vec![];
    };
    let of_cluster = |kind: Kind, name: String| {
        let object = draft.object(kind, name).component("kafka").namespace(namespace);
        object.label("strimzi.io/cluster", &strimzi.cluster.name)
    };
    let mut children: Vec<Child> = topics(draft.inputs)
        .into_iter()
        .map(|topic| {
            let object = of_cluster(Kind::KafkaTopic, topic.name).tenure(draft.tenure_of_data());
            object.content(&json!({"spec": {
                "partitions": topic.partitions,
                "replicas": topic.replicas,
                "config": topic.config,
            }}))
        })
        .collect();
    if strimzi.user.create {
        let mut user = json!({"spec": {"authentication": {"type": "scram-sha-512"}}});
        if draft.inputs.kafka.as_ref().is_some_and(|kafka| kafka.authorizes) {
            user["spec"]["authorization"] = json!({"type": "simple", "acls": rights(draft)});
        }
        children.push(of_cluster(Kind::KafkaUser, draft.names.kafka_user()).content(&user));
    }
    children
}

/// What the sidecars may do, by the full names of topics and groups: a prefix would open the topics of a platform whose
/// name begins with ours.
fn rights(draft: &Draft) -> Vec<Value> {
    let right = |kind: &str, name: &str, operations: &[&str]| {
        json!({
            "resource": {"type": kind, "name": name, "patternType": "literal"},
            "operations": operations,
        })
    };
    let consumed = draft.names.topic(CONSUMED_TOPIC);
    let topics = topics(draft.inputs).into_iter().map(|topic| {
        let operations: &[&str] = if topic.name == consumed {
            &["Describe", "Read", "Write"]
        } else {
            &["Describe", "Write"]
        };
        right("topic", &topic.name, operations)
    });
    let groups = draft
        .consumers()
        .map(|(_, group)| right("group", &group, &["Describe", "Read"]));
    topics.chain(groups).collect()
}

/// The roles whose sidecars speak to the brokers.
pub(super) fn speakers() -> impl Iterator<Item = Component> {
    ROLES
        .into_iter()
        .filter(|role| speaks(Component::Worker(*role)))
        .map(Component::Worker)
}

/// Whether the sidecar of a component speaks to the brokers: the relay's, and each consumer's.
pub(super) fn speaks(component: Component) -> bool {
    use todo_crds::Role;
    match component {
        Component::Worker(role) => role == Role::Relay || CONSUMERS.contains(&role),
        Component::Api | Component::All => false,
    }
}
