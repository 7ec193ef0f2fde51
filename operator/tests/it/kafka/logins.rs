//! Each way to reach a broker works, and each wrong one says what is wrong without saying the password.

use std::time::Duration;

use todo_crds::platform::SaslMechanism;
use todo_operator::kafka::{Admin, KafkaError, Settings, Tls, TopicOutcome};

use super::broker::{ADMIN, Broker, another_authority, sasl};

const MECHANISMS: [SaslMechanism; 3] = [
    SaslMechanism::Plain,
    SaslMechanism::ScramSha256,
    SaslMechanism::ScramSha512,
];

async fn works(settings: &Settings) {
    let mut admin = Admin::connect(settings).await.unwrap();
    let states = admin.find(&["not-here"]).await.unwrap();
    assert_eq!(states[0].outcome, TopicOutcome::NotThere);
}

#[tokio::test]
async fn every_mechanism_logs_in_with_and_without_tls() {
    let broker = Broker::shared().await;
    for mechanism in MECHANISMS {
        works(&broker.secure(mechanism, ADMIN)).await;
        works(&Settings {
            brokers: vec![broker.address("SASL_PLAINTEXT")],
            tls: None,
            ..broker.secure(mechanism, ADMIN)
        })
        .await;
    }
}

#[tokio::test]
async fn tls_without_a_login_works() {
    let broker = Broker::shared().await;
    works(&Settings {
        brokers: vec![broker.address("SSL")],
        sasl: None,
        ..broker.secure(SaslMechanism::Plain, ADMIN)
    })
    .await;
}

#[tokio::test]
async fn a_broker_is_found_behind_another_name_and_behind_those_that_are_away() {
    let broker = Broker::shared().await;
    let settings = broker.secure(SaslMechanism::ScramSha256, ADMIN);
    let by_name = settings.brokers[0].replace("127.0.0.1", "localhost");
    let brokers = vec![
        "127.0.0.1:1".to_owned(),
        "no-such-host.invalid:9092".to_owned(),
        by_name,
    ];
    works(&Settings { brokers, ..settings }).await;
}

#[tokio::test]
async fn a_wrong_password_is_a_refused_login_that_does_not_repeat_it() {
    let broker = Broker::shared().await;
    for mechanism in MECHANISMS {
        let settings = broker.secure(mechanism, (ADMIN.0, "not-my-secret"));
        let error = Admin::connect(&settings).await.unwrap_err();
        assert!(
            matches!(error, KafkaError::Login { .. }) && error.is_denied(),
            "{error:?}"
        );
        let said = format!("{error} {error:?} {settings:?}");
        assert!(!said.contains("not-my-secret"), "{said}");
    }
}

#[tokio::test]
async fn a_broker_that_another_authority_vouches_for_is_refused() {
    let broker = Broker::shared().await;
    let settings = Settings {
        tls: Some(Tls::Authorities(another_authority().into_bytes())),
        ..broker.secure(SaslMechanism::Plain, ADMIN)
    };
    let error = Admin::connect(&settings).await.unwrap_err();
    assert!(
        matches!(&error, KafkaError::Tls { .. }) && !error.is_transient(),
        "{error:?}"
    );
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    let publicly = Settings {
        tls: Some(Tls::PublicAuthorities),
        ..settings
    };
    let error = Admin::connect(&publicly).await.unwrap_err();
    assert!(
        matches!(error, KafkaError::Tls { .. } | KafkaError::NoPublicAuthorities),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_listener_of_another_kind_is_said_to_be_one() {
    let broker = Broker::shared().await;
    let secure = broker.secure(SaslMechanism::ScramSha512, ADMIN);
    let hint = "tls";

    let tls_to_plain = Settings {
        brokers: vec![broker.address("PLAINTEXT")],
        timeout: Duration::from_secs(3),
        ..secure.clone()
    };
    let error = Admin::connect(&tls_to_plain).await.unwrap_err();
    assert!(error.to_string().to_lowercase().contains(hint), "{error}");

    let plain_to_tls = Settings {
        tls: None,
        ..secure.clone()
    };
    let error = Admin::connect(&plain_to_tls).await.unwrap_err();
    assert!(
        matches!(error, KafkaError::Closed { .. } | KafkaError::NotKafka { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains(hint), "{error}");

    let without_login = Settings {
        sasl: None,
        ..secure.clone()
    };
    let error = Admin::connect(&without_login).await.unwrap_err();
    assert!(matches!(error, KafkaError::Closed { .. }), "{error:?}");
    assert!(error.to_string().contains("sasl"), "{error}");

    let login_where_nobody_does = Settings {
        brokers: vec![broker.address("PLAINTEXT")],
        tls: None,
        sasl: Some(sasl(SaslMechanism::ScramSha512, ADMIN)),
        ..secure
    };
    let error = Admin::connect(&login_where_nobody_does).await.unwrap_err();
    assert!(
        matches!(error, KafkaError::Refused { .. } | KafkaError::Closed { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_broker_that_is_away_is_unreachable_and_may_come_back() {
    let settings = Settings {
        brokers: vec!["127.0.0.1:1".to_owned(), "no-such-host.invalid:9092".to_owned()],
        ..Broker::shared().await.plain()
    };
    let error = Admin::connect(&settings).await.unwrap_err();
    assert!(
        matches!(error, KafkaError::Unreachable { .. }) && error.is_transient(),
        "{error:?}"
    );
}
