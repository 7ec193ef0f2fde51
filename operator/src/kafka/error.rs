//! What can go wrong with a broker, in words for the person who runs the platform. Never with what was logged in with.

use std::fmt;

use crate::error::Class;

/// The longest text of a broker's that is passed on.
const LONGEST: usize = 300;

/// What can go wrong with a Kafka that runs elsewhere.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// A broker's address cannot be read.
    #[error("brokers: {broker:?} is no address: write it as \"host:port\"")]
    Address {
        /// As it was written.
        broker: String,
    },
    /// A Secret that the manifest refers to does not hold what it should.
    #[error("spec.kafka.external.{field}: the Secret {secret} has no usable {key:?}: {reason}")]
    Secret {
        /// The field that refers to it.
        field: &'static str,
        /// The Secret's name.
        secret: String,
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The certificate authority cannot be read.
    #[error("certificate authority: {reason}: give one or more certificates in PEM")]
    CertificateAuthority {
        /// What is wrong with it.
        reason: String,
    },
    /// There are no certificate authorities on this system.
    #[error("this system has no public certificate authorities: set caSecretRef to those of the brokers")]
    NoPublicAuthorities,
    /// No connection.
    #[error("broker {broker} cannot be reached: {reason}")]
    Unreachable {
        /// Its address.
        broker: String,
        /// What the system said.
        reason: String,
    },
    /// It took too long.
    #[error("broker {broker} did not {doing} within {seconds} s")]
    TimedOut {
        /// Its address.
        broker: String,
        /// What was asked of it.
        doing: &'static str,
        /// How long it had.
        seconds: u64,
    },
    /// The TLS handshake failed.
    #[error("broker {broker}: TLS: {reason}")]
    Tls {
        /// Its address.
        broker: String,
        /// What rustls said.
        reason: String,
    },
    /// It hung up.
    #[error(
        "broker {broker} closed the connection when asked to {doing}: check that tls and sasl are those of this listener"
    )]
    Closed {
        /// Its address.
        broker: String,
        /// What was asked of it.
        doing: &'static str,
    },
    /// What came is not what Kafka's protocol has there.
    #[error(
        "broker {broker} answered with what is not Kafka's protocol ({what}): check the port, and that tls is set as the listener has it"
    )]
    NotKafka {
        /// Its address.
        broker: String,
        /// What could not be read.
        what: &'static str,
    },
    /// It does not know a request in the version that the operator speaks.
    #[error("broker {broker} cannot {doing} as Kafka 2.4 and later do")]
    Unsupported {
        /// Its address.
        broker: String,
        /// What it cannot do.
        doing: &'static str,
    },
    /// It offers other ways to log in.
    #[error("broker {broker} does not offer {asked}; it offers {offered}")]
    Mechanism {
        /// Its address.
        broker: String,
        /// The mechanism that the manifest names.
        asked: &'static str,
        /// Those that it offers.
        offered: String,
    },
    /// It did not let the user in, or could not prove that it knows the password.
    #[error("broker {broker} refused the login: {reason}")]
    Login {
        /// Its address.
        broker: String,
        /// What it said.
        reason: String,
    },
    /// It refused a request as a whole.
    #[error("broker {broker} would not {doing}: {refusal}")]
    Refused {
        /// Its address.
        broker: String,
        /// What was asked of it.
        doing: &'static str,
        /// What it said.
        refusal: Refusal,
    },
}

impl KafkaError {
    /// What kind of wrong it is, for the pace of the next try.
    pub fn class(&self) -> Class {
        if self.is_transient() {
            Class::Unavailable
        } else if self.is_denied() {
            Class::Denied
        } else {
            Class::Invalid
        }
    }

    /// Whether the same may succeed later with the same manifest and the same secrets.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Closed { .. } => true,
            Self::Refused { refusal, .. } => refusal.is_transient(),
            _ => false,
        }
    }

    /// Whether somebody must be given more rights, or another password.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Login { .. } => true,
            Self::Refused { refusal, .. } => refusal.is_denied(),
            _ => false,
        }
    }

    /// Whether another broker of the same cluster may do better.
    pub(crate) fn is_about_one_broker(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Closed { .. }
        )
    }
}

/// Why a broker refused something: Kafka's error code, and what it said beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Kafka's error code.
    pub code: i16,
    /// The broker's own words, bounded, on one line; empty when it gave none.
    pub message: String,
}

/// Error codes of Kafka's protocol that mean something here.
/// Source: the table of error codes in Kafka's protocol guide.
pub(crate) mod code {
    pub(crate) const NONE: i16 = 0;
    pub(crate) const UNKNOWN_TOPIC: i16 = 3;
    pub(crate) const LEADER_NOT_AVAILABLE: i16 = 5;
    pub(crate) const REQUEST_TIMED_OUT: i16 = 7;
    pub(crate) const COORDINATOR_LOADING: i16 = 14;
    pub(crate) const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
    pub(crate) const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
    pub(crate) const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
    pub(crate) const UNSUPPORTED_VERSION: i16 = 35;
    pub(crate) const TOPIC_ALREADY_EXISTS: i16 = 36;
    pub(crate) const INVALID_PARTITIONS: i16 = 37;
    pub(crate) const INVALID_REPLICATION_FACTOR: i16 = 38;
    pub(crate) const INVALID_CONFIG: i16 = 40;
    pub(crate) const NOT_CONTROLLER: i16 = 41;
    pub(crate) const POLICY_VIOLATION: i16 = 44;
    pub(crate) const SASL_AUTHENTICATION_FAILED: i16 = 58;
    pub(crate) const REASSIGNMENT_IN_PROGRESS: i16 = 60;
    pub(crate) const TOPIC_DELETION_DISABLED: i16 = 73;
    pub(crate) const THROTTLING_QUOTA_EXCEEDED: i16 = 89;
}

impl Refusal {
    /// `None` for the code of success.
    pub(crate) fn of(code: i16, message: Option<&str>) -> Option<Self> {
        (code != code::NONE).then(|| Self {
            code,
            message: one_line(message.unwrap_or_default()),
        })
    }

    /// Whether the same may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.code,
            code::LEADER_NOT_AVAILABLE
                | code::REQUEST_TIMED_OUT
                | code::COORDINATOR_LOADING
                | code::TOPIC_ALREADY_EXISTS
                | code::NOT_CONTROLLER
                | code::REASSIGNMENT_IN_PROGRESS
                | code::THROTTLING_QUOTA_EXCEEDED
        )
    }

    /// Whether the user lacks a right.
    pub fn is_denied(&self) -> bool {
        matches!(
            self.code,
            code::TOPIC_AUTHORIZATION_FAILED | code::CLUSTER_AUTHORIZATION_FAILED | code::SASL_AUTHENTICATION_FAILED
        )
    }

    fn meaning(&self) -> &'static str {
        match self.code {
            code::UNKNOWN_TOPIC => "there is no such topic",
            code::LEADER_NOT_AVAILABLE => "its partitions have no leader yet",
            code::REQUEST_TIMED_OUT => "the cluster took too long; it may still do it",
            code::COORDINATOR_LOADING => "the cluster is still starting",
            code::TOPIC_AUTHORIZATION_FAILED => "the user may not do that to this topic: grant it in Kafka's ACLs",
            code::CLUSTER_AUTHORIZATION_FAILED => "the user may not do that to this cluster: grant it in Kafka's ACLs",
            code::UNSUPPORTED_SASL_MECHANISM => "it does not offer this way to log in",
            code::UNSUPPORTED_VERSION => "it does not know this request",
            code::TOPIC_ALREADY_EXISTS => "the topic has just been made by somebody else",
            code::INVALID_PARTITIONS => "it cannot have that many partitions",
            code::INVALID_REPLICATION_FACTOR => "it cannot have that many replicas",
            code::INVALID_CONFIG => "it does not take this configuration",
            code::NOT_CONTROLLER => "the cluster is choosing a controller",
            code::POLICY_VIOLATION => "a policy of the cluster forbids it",
            code::SASL_AUTHENTICATION_FAILED => "user name or password is wrong",
            code::REASSIGNMENT_IN_PROGRESS => "its partitions are being moved",
            code::TOPIC_DELETION_DISABLED => "the cluster does not let topics be deleted",
            code::THROTTLING_QUOTA_EXCEEDED => "the cluster asks for patience",
            _ => "kafka's error code",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.meaning(), self.code)?;
        if self.message.is_empty() {
            Ok(())
        } else {
            write!(formatter, ": {}", self.message)
        }
    }
}

/// Words of somebody else's, fit for a condition's message: bounded, and on one line.
pub(crate) fn one_line(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(LONGEST).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brokers_words_are_bounded_and_stay_on_one_line() {
        let refusal = Refusal::of(40, Some(&format!("bad\nvalue\u{1b}[31m{}", "x".repeat(10_000)))).unwrap();
        let said = refusal.to_string();
        assert!(
            said.starts_with("it does not take this configuration (40): bad value [31mxxx"),
            "{said}"
        );
        assert!(
            said.chars().count() < LONGEST + 60 && !said.contains(char::is_control),
            "{said}"
        );
    }

    #[test]
    fn success_is_no_refusal() {
        assert_eq!(Refusal::of(0, Some("fine")), None);
    }
}
