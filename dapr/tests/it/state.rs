//! State stores.

use std::time::Duration;

use serde_json::json;
use todo_dapr::Error;
use todo_dapr::client::{Condition, Etag, Operation, StateItem, Stored};

use crate::sidecar::{Reply, Sidecar, client_at, hanging_up};

fn item(condition: Condition) -> StateItem {
    StateItem {
        key: "ada".to_owned(),
        value: json!({"messages": 1}),
        condition,
        ttl: None,
    }
}

fn seen() -> Etag {
    Etag("0198c2f0".to_owned())
}

fn mismatch() -> Reply {
    Reply::error(
        409,
        "ERR_STATE_SAVE",
        "failed saving state in state store statestore: possible etag mismatch. error from state store: …",
    )
}

#[tokio::test]
async fn a_value_is_read_with_its_version() {
    let sidecar = Sidecar::answering([Reply::text(200, r#"{"messages":1}"#).header("etag", "0198c2f0")]).await;
    let stored = sidecar.client().state("statestore", "user/ada").await.unwrap();
    assert_eq!(
        stored,
        Some(Stored {
            value: json!({"messages": 1}),
            etag: Some(seen())
        })
    );
    assert_eq!(sidecar.targets(), ["GET /v1.0/state/statestore/user%2Fada"]);
}

#[tokio::test]
async fn an_empty_key_is_none_and_not_an_error() {
    let sidecar = Sidecar::answering([Reply::empty(204)]).await;
    assert_eq!(sidecar.client().state("statestore", "ada").await.unwrap(), None);
}

#[tokio::test]
async fn a_value_that_is_not_json_is_an_error() {
    let sidecar = Sidecar::answering([Reply::text(200, "<html>")]).await;
    let error = sidecar.client().state("statestore", "ada").await.unwrap_err();
    assert!(matches!(error, Error::UnexpectedAnswer(_)), "{error}");
}

#[tokio::test]
async fn a_condition_is_what_dapr_understands_by_it() {
    let sidecar = Sidecar::answering([Reply::empty(204)]).await;
    let items = [
        StateItem {
            ttl: Some(Duration::from_millis(1500)),
            ..item(Condition::Always)
        },
        item(Condition::Absent),
        item(Condition::Matches(seen())),
    ];
    sidecar.client().save_state("statestore", &items).await.unwrap();
    assert_eq!(
        sidecar.only().json(),
        json!([
            {"key": "ada", "value": {"messages": 1}, "metadata": {"ttlInSeconds": "2"}},
            {"key": "ada", "value": {"messages": 1}, "options": {"concurrency": "first-write"}},
            {
                "key": "ada", "value": {"messages": 1}, "etag": "0198c2f0",
                "options": {"concurrency": "first-write"},
            },
        ])
    );
}

#[tokio::test]
async fn a_write_over_a_newer_value_is_a_mismatch_and_is_not_repeated() {
    let sidecar = Sidecar::answering([mismatch()]).await;
    let client = sidecar.client();
    let items = [item(Condition::Matches(seen()))];
    for error in [
        client.save_state("statestore", &items).await.unwrap_err(),
        client
            .delete_state("statestore", "ada", Some(&seen()))
            .await
            .unwrap_err(),
    ] {
        assert!(matches!(error, Error::EtagMismatch(_)), "{error}");
        assert!(!error.is_retryable());
    }
    assert_eq!(sidecar.asked().len(), 2);
    assert_eq!(sidecar.asked()[1].header("if-match"), Some("0198c2f0"));
    assert_eq!(
        sidecar.asked()[1].target,
        "/v1.0/state/statestore/ada?concurrency=first-write"
    );
}

#[tokio::test]
async fn only_a_write_without_a_condition_is_made_twice() {
    let fault = Reply::error(500, "ERR_STATE_SAVE", "connection reset");
    for (condition, calls) in [
        (Condition::Always, 2),
        (Condition::Absent, 1),
        (Condition::Matches(seen()), 1),
    ] {
        let sidecar = Sidecar::answering([fault.clone(), Reply::empty(204)]).await;
        let saved = sidecar
            .client()
            .save_state("statestore", &[item(condition.clone())])
            .await;
        assert_eq!(saved.is_ok(), calls == 2, "{condition:?}");
        assert_eq!(sidecar.asked().len(), calls, "{condition:?}");
    }
}

#[tokio::test]
async fn a_conditional_write_whose_answer_was_lost_does_not_fail_on_its_own_effect() {
    let (address, calls) = hanging_up().await;
    let error = client_at(address)
        .save_state("statestore", &[item(Condition::Absent)])
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Broken(_)), "{error}");
    assert_eq!(*calls.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_transaction_says_what_each_part_does() {
    let sidecar = Sidecar::answering([Reply::empty(204)]).await;
    let operations = [
        Operation::Upsert(item(Condition::Matches(seen()))),
        Operation::Delete {
            key: "bob".to_owned(),
            etag: None,
        },
        Operation::Delete {
            key: "eve".to_owned(),
            etag: Some(seen()),
        },
    ];
    sidecar
        .client()
        .state_transaction("statestore", &operations)
        .await
        .unwrap();
    let asked = sidecar.only();
    assert_eq!(asked.target, "/v1.0/state/statestore/transaction");
    assert_eq!(
        asked.json(),
        json!({"operations": [
            {"operation": "upsert", "request": {
                "key": "ada", "value": {"messages": 1}, "etag": "0198c2f0",
                "options": {"concurrency": "first-write"},
            }},
            {"operation": "delete", "request": {"key": "bob"}},
            {"operation": "delete", "request": {
                "key": "eve", "etag": "0198c2f0", "options": {"concurrency": "first-write"},
            }},
        ]})
    );
}

#[tokio::test]
async fn a_transaction_that_met_a_newer_value_is_a_mismatch_although_dapr_says_500() {
    let reply = Reply::error(
        500,
        "ERR_STATE_TRANSACTION",
        "error while executing state transaction: possible etag mismatch. error from state store: …",
    );
    let sidecar = Sidecar::answering([reply]).await;
    let operations = [Operation::Upsert(item(Condition::Matches(seen())))];
    let error = sidecar
        .client()
        .state_transaction("statestore", &operations)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::EtagMismatch(_)), "{error}");
}

#[tokio::test]
async fn each_store_has_its_own_words_for_a_value_that_is_there_when_it_should_not_be() {
    let save = "failed saving state in state store statestore: ";
    for (message, mismatch) in [
        (format!("{save}no item was updated"), true),
        (
            format!("{save}failed to set key api||ada: ERR user_script:14: failed to set key api||ada script: d908b9"),
            true,
        ),
        (
            format!("{save}failed to set key api||ada: dial tcp 127.0.0.1:6379: connect: connection refused"),
            false,
        ),
    ] {
        let sidecar = Sidecar::answering([Reply::error(500, "ERR_STATE_SAVE", &message)]).await;
        let items = [item(Condition::Absent)];
        let error = sidecar.client().save_state("statestore", &items).await.unwrap_err();
        assert_eq!(matches!(error, Error::EtagMismatch(_)), mismatch, "{error}");
    }
}
