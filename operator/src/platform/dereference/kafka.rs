//! What Strimzi's `Kafka` says about itself: which listener sidecars can use, and how many brokers there are.

use serde_json::Value;

use crate::platform::{KafkaFacts, KafkaListener};

/// Reads a `Kafka`. With `scram`, the listener must log users in by SCRAM-SHA-512; without, it must not ask.
///
/// Of several that fit, one with TLS comes first. Listeners for the world outside of the cluster are left alone.
pub(super) fn facts(kafka: &Value, scram: bool) -> KafkaFacts {
    let declared = kafka.pointer("/spec/kafka/listeners").and_then(Value::as_array);
    let mut fitting: Vec<&Value> = declared
        .into_iter()
        .flatten()
        .filter(|listener| matches!(listener["type"].as_str(), Some("internal" | "cluster-ip")))
        .filter(
            |listener| match listener.pointer("/authentication/type").and_then(Value::as_str) {
                Some("scram-sha-512") => scram,
                Some(_) => false,
                None => !scram,
            },
        )
        .collect();
    fitting.sort_by_key(|listener| listener["tls"] != true);
    KafkaFacts {
        listener: fitting.into_iter().find_map(|listener| open(kafka, listener, scram)),
        brokers: brokers(kafka),
        authorizes: kafka.pointer("/spec/kafka/authorization/type").and_then(Value::as_str) == Some("simple"),
    }
}

/// A declared listener that the status shows as open.
fn open(kafka: &Value, declared: &Value, scram: bool) -> Option<KafkaListener> {
    let opened = kafka.pointer("/status/listeners")?.as_array()?;
    let found = opened.iter().find(|listener| listener["name"] == declared["name"])?;
    let bootstrap = found["bootstrapServers"].as_str()?.to_owned();
    let ca = if declared["tls"] == true {
        let certificates = found["certificates"].as_array()?;
        let certificates: Vec<&str> = certificates.iter().filter_map(Value::as_str).collect();
        Some(certificates.join("\n"))
    } else {
        None
    };
    Some(KafkaListener { bootstrap, ca, scram })
}

/// The number of brokers, which only a `Kafka` without node pools says itself.
fn brokers(kafka: &Value) -> Option<u32> {
    let replicas = kafka.pointer("/spec/kafka/replicas")?.as_u64()?;
    u32::try_from(replicas).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cluster() -> Value {
        json!({
            "spec": {"kafka": {"listeners": [
                {"name": "plain", "port": 9092, "type": "internal", "tls": false},
                {"name": "scram", "port": 9095, "type": "internal", "tls": false, "authentication": {"type": "scram-sha-512"}},
                {"name": "tls", "port": 9093, "type": "internal", "tls": true, "authentication": {"type": "scram-sha-512"}},
                {"name": "outside", "port": 9094, "type": "nodeport", "tls": true, "authentication": {"type": "scram-sha-512"}},
            ]}},
            "status": {"listeners": [
                {"name": "plain", "bootstrapServers": "events-kafka-bootstrap.kafka.svc:9092"},
                {"name": "scram", "bootstrapServers": "events-kafka-bootstrap.kafka.svc:9095"},
                {"name": "tls", "bootstrapServers": "events-kafka-bootstrap.kafka.svc:9093", "certificates": ["PEM"]},
                {"name": "outside", "bootstrapServers": "203.0.113.1:9094", "certificates": ["PEM"]},
            ]},
        })
    }

    #[test]
    fn users_log_in_where_that_is_asked_and_over_tls_where_there_is_a_choice() {
        let listener = facts(&cluster(), true).listener.unwrap();
        assert_eq!(listener.bootstrap, "events-kafka-bootstrap.kafka.svc:9093");
        assert_eq!((listener.ca.as_deref(), listener.scram), (Some("PEM"), true));
    }

    #[test]
    fn without_a_user_the_listener_does_not_ask_for_one() {
        let listener = facts(&cluster(), false).listener.unwrap();
        assert_eq!(listener.bootstrap, "events-kafka-bootstrap.kafka.svc:9092");
        assert_eq!((listener.ca, listener.scram), (None, false));
    }

    #[test]
    fn a_listener_that_is_not_open_yet_is_none() {
        let mut young = cluster();
        young["status"] = json!({});
        assert_eq!(facts(&young, true).listener, None);
    }
}
