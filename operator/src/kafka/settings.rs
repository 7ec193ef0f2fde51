//! How a Kafka that runs elsewhere is reached: what the manifest and its Secrets say.

use std::fmt;
use std::time::Duration;

use todo_crds::platform::SaslMechanism;

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
    use super::*;

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
