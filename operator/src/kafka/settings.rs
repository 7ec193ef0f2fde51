//! How a Kafka that runs elsewhere is reached: what the manifest and its Secrets say.

use std::fmt;
use std::time::Duration;

use todo_crds::platform::{ExternalKafka, SaslMechanism, SecretKeyRef};

use super::error::KafkaError;

/// How a Kafka that runs elsewhere is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The brokers to begin with, each `host:port`, tried in this order.
    pub brokers: Vec<String>,
    /// Whether connections use TLS, and whom they trust.
    pub tls: Option<Tls>,
    /// How to log in; `None` where nobody does.
    pub sasl: Option<Sasl>,
    /// How long one broker may take until the login is done, and then for each answer. It bounds the search for a broker
    /// too, which ends after thrice as long.
    pub timeout: Duration,
}

impl Settings {
    /// Long enough for a cluster under load, short enough that a broken one holds nobody up.
    pub const TIMEOUT: Duration = Duration::from_secs(10);

    /// What a manifest says, with the values of the Secrets that it refers to: `secret` takes a Secret's name and a key.
    /// Values count as they are, also a line's end behind a password: so does the sidecar take them.
    pub fn of(external: &ExternalKafka, secret: impl Fn(&str, &str) -> Option<Vec<u8>>) -> Result<Self, KafkaError> {
        let value = |field: &'static str, name: &str, key: &str| {
            let unusable = |reason| KafkaError::Secret {
                field,
                secret: name.to_owned(),
                key: key.to_owned(),
                reason,
            };
            let value = secret(name, key).filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| unusable("it is not there, or empty"))?;
            String::from_utf8(value).map_err(|_| unusable("it is no text"))
        };
        let authorities = |reference: &SecretKeyRef| value("caSecretRef", &reference.name, &reference.key);
        let tls = match &external.ca_secret_ref {
            _ if !external.tls => None,
            None => Some(Tls::PublicAuthorities),
            Some(reference) => Some(Tls::Authorities(authorities(reference)?.into_bytes())),
        };
        let login = |sasl: &todo_crds::platform::Sasl| {
            let of_user = |key| value("sasl.secretRef", &sasl.secret_ref.name, key);
            Ok(Sasl {
                mechanism: sasl.mechanism,
                username: of_user("username")?,
                password: of_user("password")?,
            })
        };
        Ok(Self {
            brokers: external.brokers.clone(),
            tls,
            sasl: external.sasl.as_ref().map(login).transpose()?,
            timeout: Self::TIMEOUT,
        })
    }
}

/// Whom connections trust.
#[derive(Clone, PartialEq, Eq)]
pub enum Tls {
    /// The public certificate authorities of the system that the operator runs on.
    PublicAuthorities,
    /// These certificate authorities alone, in PEM.
    Authorities(Vec<u8>),
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PublicAuthorities => formatter.write_str("PublicAuthorities"),
            Self::Authorities(pem) => write!(formatter, "Authorities({} bytes)", pem.len()),
        }
    }
}

/// How to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Sasl {
    /// The mechanism.
    pub mechanism: SaslMechanism,
    /// The user's name.
    pub username: String,
    /// The user's password. Nothing here prints it.
    pub password: String,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sasl")
            .field("mechanism", &self.mechanism)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Sasl {
    /// `text` without the password, should a broker have said it.
    pub(crate) fn without_password(&self, text: &str) -> String {
        if self.password.is_empty() {
            text.to_owned()
        } else {
            text.replace(&self.password, "***")
        }
    }
}

/// The mechanism's name in the protocol.
pub(crate) const fn mechanism_name(mechanism: SaslMechanism) -> &'static str {
    match mechanism {
        SaslMechanism::Plain => "PLAIN",
        SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn external(more: Value) -> ExternalKafka {
        let mut spec = json!({"brokers": ["kafka:9093"]});
        if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
            spec.extend(more);
        }
        serde_json::from_value(spec).unwrap()
    }

    fn secrets(name: &str, key: &str) -> Option<Vec<u8>> {
        match (name, key) {
            ("ca", "ca.crt") => Some(b"pem".to_vec()),
            ("user", "username") => Some(b"shop".to_vec()),
            ("user", "password") => Some(b"hunter2\n".to_vec()),
            ("broken", _) => Some(vec![0xff]),
            _ => None,
        }
    }

    #[test]
    fn a_manifest_and_its_secrets_say_how_to_connect() {
        let public = Settings::of(&external(json!({})), secrets).unwrap();
        assert_eq!((public.tls, public.sasl), (Some(Tls::PublicAuthorities), None));
        assert_eq!(
            Settings::of(&external(json!({"tls": false})), secrets).unwrap().tls,
            None
        );
        let own = external(json!({
            "caSecretRef": {"name": "ca", "key": "ca.crt"},
            "sasl": {"mechanism": "SCRAM-SHA-256", "secretRef": {"name": "user"}},
        }));
        let own = Settings::of(&own, secrets).unwrap();
        assert_eq!(own.tls, Some(Tls::Authorities(b"pem".to_vec())));
        let sasl = own.sasl.unwrap();
        assert_eq!((sasl.username.as_str(), sasl.password.as_str()), ("shop", "hunter2\n"));
        assert_eq!(sasl.mechanism, SaslMechanism::ScramSha256);
    }

    #[test]
    fn a_secret_that_does_not_hold_what_is_needed_is_named_with_the_field() {
        let said = |more: Value| Settings::of(&external(more), secrets).unwrap_err().to_string();
        let missing = said(json!({"sasl": {"mechanism": "PLAIN", "secretRef": {"name": "nobody"}}}));
        assert_eq!(
            missing,
            "spec.kafka.external.sasl.secretRef: the Secret nobody has no usable \"username\": it is not there, or empty"
        );
        let binary = said(json!({"caSecretRef": {"name": "broken", "key": "ca.crt"}}));
        assert!(
            binary.contains("caSecretRef") && binary.ends_with("it is no text"),
            "{binary}"
        );
    }

    #[test]
    fn printing_settings_does_not_print_the_password() {
        let settings = Settings {
            brokers: vec!["kafka:9093".to_owned()],
            tls: Some(Tls::Authorities(b"pem".to_vec())),
            sasl: Some(Sasl {
                mechanism: SaslMechanism::Plain,
                username: "platform".to_owned(),
                password: "hunter2".to_owned(),
            }),
            timeout: Settings::TIMEOUT,
        };
        let printed = format!("{settings:?} {settings:#?}");
        assert!(
            printed.contains("platform") && !printed.contains("hunter2"),
            "{printed}"
        );
    }
}
