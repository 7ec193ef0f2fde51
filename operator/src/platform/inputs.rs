//! What one pass knows of the world when it begins: all that `build` decides by.
//!
//! Data only. It is read from the cluster by dereferencing, and written down in tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use todo_crds::TodoPlatform;
use todo_crds::platform::SecretKeyRef;

use super::build::is_own_database;
use crate::capabilities::Capabilities;
use crate::names::Names;
use crate::settings::Settings;

/// What one pass knows of the world.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The platform, as stored: with defaults, a UID and a namespace.
    pub platform: Arc<TodoPlatform>,
    /// What the operator was told at its start.
    pub settings: Arc<Settings>,
    /// What the cluster offers.
    pub capabilities: Arc<Capabilities>,
    /// The Secrets that the manifest refers to, by name, those that are there. Also those that the operator itself made
    /// once, so that a change of them rolls what does not read again.
    pub secrets: BTreeMap<String, SecretFacts>,
    /// The Kafka cluster of `spec.kafka.strimzi`; `None` when it is not there or not asked for.
    pub kafka: Option<KafkaFacts>,
    /// The Secret of the `KafkaUser`, in Kafka's namespace, once Strimzi has made it.
    pub kafka_user: Option<BTreeMap<String, Vec<u8>>>,
    /// The internal key's Secret, when it is there.
    pub internal_key: Option<InternalKey>,
    /// The platform's own database, when it has one.
    pub database: DatabaseFacts,
    /// The release that pods are to run now: the target once its migration has succeeded, the one before until then,
    /// and `None` before the first.
    pub release: Option<Release>,
    /// New secret values of this pass, for what is made once and not there yet.
    pub drawn: Drawn,
}

/// What is known of a Secret. Never its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFacts {
    /// Its keys.
    pub keys: BTreeSet<String>,
    /// A hash of keys and values.
    pub hash: String,
    /// By key: the port in a value that is a URL or `host:port`, for the network policies.
    pub ports: BTreeMap<String, u16>,
    /// Which object it is; `None` for values that are in no object.
    pub uid: Option<String>,
}

impl SecretFacts {
    /// What there is to know of a Secret with these keys and values.
    pub fn of<'a>(data: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let data: BTreeMap<&str, &[u8]> = data.into_iter().collect();
        let mut hash = Sha256::new();
        for (key, value) in &data {
            for part in [key.as_bytes(), value] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
        }
        Self {
            keys: data.keys().map(|key| (*key).to_owned()).collect(),
            hash: hex::encode(hash.finalize()),
            ports: data
                .iter()
                .filter_map(|(key, value)| Some(((*key).to_owned(), port(std::str::from_utf8(value).ok()?)?)))
                .collect(),
            uid: None,
        }
    }
}

/// The port of a URL or of `host:port`; that of the scheme where the URL names none.
pub(super) fn port(address: &str) -> Option<u16> {
    let address = address.trim();
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // The first of several hosts; an IPv6 address has colons of its own within its brackets.
    let host = host.split(',').next()?;
    let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
    match (after.rsplit_once(':'), scheme) {
        (Some((_, port)), _) => port.parse().ok(),
        (None, "postgres" | "postgresql") => Some(5432),
        (None, "http") => Some(80),
        (None, "https") => Some(443),
        (None, "smtp") => Some(587),
        (None, "smtps") => Some(465),
        (None, "redis" | "rediss") => Some(6379),
        (None, _) => None,
    }
}

/// The internal key as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct InternalKey {
    /// The version of the Secret, which a change of it must still find.
    pub resource_version: String,
    /// The key.
    pub key: Vec<u8>,
    /// The value of the annotation that asked for this key.
    pub rotated: Option<String>,
}

impl fmt::Debug for InternalKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("InternalKey")
            .field("resource_version", &self.resource_version)
            .field("rotated", &self.rotated)
            .finish_non_exhaustive()
    }
}

/// What is known of Strimzi's `Kafka`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaFacts {
    /// The listener that sidecars use; `None` while the status shows none that fits.
    pub listener: Option<KafkaListener>,
    /// Of how many brokers it says that they are there; `None` when it says nothing.
    pub brokers: Option<u32>,
    /// Whether users may do only what their `KafkaUser` says. Without, Strimzi refuses a `KafkaUser` that says anything.
    pub authorizes: bool,
}

/// A listener of Strimzi's `Kafka`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaListener {
    /// `HOST:PORT,…`
    pub bootstrap: String,
    /// Whether it speaks TLS, with the cluster's own certificate authority in PEM.
    pub ca: Option<String>,
    /// Whether it asks for SCRAM-SHA-512.
    pub scram: bool,
}

/// What is known of the platform's own database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseFacts {
    /// There is a StatefulSet of this platform already: it stays one, also where CloudNativePG has come since.
    pub is_stateful_set: bool,
    /// What that StatefulSet asks for as its volume, which cannot be changed.
    pub volume: Option<VolumeFacts>,
    /// There is a CloudNativePG `Cluster` of this platform already.
    pub is_cluster: bool,
    /// The volume that this `Cluster` asks for, for when the manifest says nothing of it any more.
    pub left_volume: Option<VolumeFacts>,
}

/// The volume that a database asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFacts {
    /// The size, as a quantity.
    pub size: String,
    /// The storage class; `None` for the cluster's default.
    pub class: Option<String>,
}

/// One version as it runs, over one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The version, as in `spec.version`.
    pub version: String,
    /// What nodes pull.
    pub image: String,
    /// Where the database's URL is; `None` when the manifest leaves it to the operator.
    pub database: Option<SecretKeyRef>,
}

impl Release {
    /// Whether it is what this platform's manifest asks for.
    pub fn is(&self, target: &Self, names: &Names) -> bool {
        let is_there = match (&self.database, &target.database) {
            (Some(database), None) => is_own_database(database, names),
            (database, asked) => database == asked,
        };
        is_there && self.version == target.version && self.image == target.image
    }
}

/// Secret values that were drawn for this pass, each 32 random bytes as 64 hexadecimal digits.
#[derive(Clone)]
pub struct Drawn {
    /// The internal key.
    pub internal_key: String,
    /// The secret of tokens.
    pub token: String,
    /// What a sidecar shows its app.
    pub app_token: String,
    /// What an app shows its sidecar.
    pub dapr_token: String,
    /// The password of the own database.
    pub database: String,
}

impl fmt::Debug for Drawn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Drawn").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_read_out_of_an_address_and_nothing_else() {
        let facts = SecretFacts::of([
            (
                "url",
                b"postgres://ada:p%40ss:5@db.example:6432/todo?sslmode=require".as_slice(),
            ),
            ("default", b"postgresql://ada:hunter2@db.example/todo"),
            ("several", b"postgres://ada@one:5433,two:5434/todo"),
            ("literal", b"[fd00::1]:6380"),
            ("host", b"redis.example:6379"),
            ("password", b"hunter2"),
            ("bytes", &[0xff, b':', b'1']),
        ]);
        let expected = [
            ("default", 5432),
            ("host", 6379),
            ("literal", 6380),
            ("several", 5433),
            ("url", 6432),
        ];
        assert_eq!(facts.ports, expected.map(|(key, port)| (key.to_owned(), port)).into());
    }

    #[test]
    fn a_hash_tells_apart_what_is_spelt_alike() {
        let hash =
            |data: &[(&str, &str)]| SecretFacts::of(data.iter().map(|(key, value)| (*key, value.as_bytes()))).hash;
        assert_eq!(hash(&[("a", "1"), ("b", "2")]), hash(&[("b", "2"), ("a", "1")]));
        assert_ne!(hash(&[("a", "1b"), ("c", "")]), hash(&[("a", "1"), ("bc", "")]));
    }
}
