//! State stores: PostgreSQL and Redis keep the same promises.

use std::time::Duration;

use serde_json::{Value, json};
use todo_dapr::client::{Condition, Etag, Operation, StateItem};
use todo_dapr::{Client, Error};
use todo_test_db::TestDb;

use crate::daprd::{Daprd, unique};
use crate::resources::{components, own_manifests};
use crate::stack::redis;

/// As the platform's manifests name them. All tests share the Redis, so each has keys of its own.
const STORES: [&str; 2] = ["statestore", "statestore-redis"];

struct Stores {
    daprd: Daprd,
    // After the sidecar, which is connected to it.
    _db: TestDb,
}

async fn stores() -> Stores {
    let db = TestDb::new().await;
    // What stands behind is for our own driver.
    let (connection, _) = db.url.split_once('?').unwrap_or((&db.url, ""));
    let daprd = own_manifests("todo-api")
        .folder(components().join("local-redis"))
        .variable("TODO_STATE_CONNECTION", connection)
        .variable("TODO_REDIS_HOST", &redis().await.address)
        .start()
        .await;
    Stores { daprd, _db: db }
}

fn item(key: &str, value: Value) -> StateItem {
    StateItem {
        key: key.to_owned(),
        value,
        condition: Condition::Always,
        ttl: None,
    }
}

async fn etag(client: &Client, store: &str, key: &str) -> Etag {
    client.state(store, key).await.unwrap().unwrap().etag.unwrap()
}

async fn value(client: &Client, store: &str, key: &str) -> Option<Value> {
    client.state(store, key).await.unwrap().map(|stored| stored.value)
}

#[track_caller]
fn assert_mismatch(result: Result<(), Error>) {
    match result {
        Err(Error::EtagMismatch(_)) => {}
        other => panic!("{other:?} is no etag mismatch"),
    }
}

#[tokio::test]
async fn a_value_comes_back_as_it_was_written_and_nothing_is_none() {
    let stores = stores().await;
    let client = &stores.daprd.client;
    let written =
        json!({"messages": [{"text": "Grüße, \u{1f600} <b>&</b> \u{2028}"}], "number": 9_007_199_254_740_991_i64});
    for store in STORES {
        for key in ["conversation-1", "a/b c?d#e%f", "ünï"] {
            assert_eq!(client.state(store, key).await.unwrap(), None, "{store} {key}");
            client.save_state(store, &[item(key, written.clone())]).await.unwrap();
            assert_eq!(value(client, store, key).await, Some(written.clone()), "{store} {key}");
            client.delete_state(store, key, None).await.unwrap();
            client.delete_state(store, key, None).await.unwrap();
            assert_eq!(client.state(store, key).await.unwrap(), None, "{store} {key}");
        }
    }
}

#[tokio::test]
async fn a_write_over_what_the_caller_has_not_seen_is_refused_and_changes_nothing() {
    let stores = stores().await;
    let client = &stores.daprd.client;
    for store in STORES {
        let save = async |value: Value, condition: Condition| {
            let item = StateItem {
                condition,
                ..item("counter", value)
            };
            client.save_state(store, &[item]).await
        };
        save(json!(1), Condition::Absent).await.unwrap();
        assert_mismatch(save(json!(2), Condition::Absent).await);
        let first = etag(client, store, "counter").await;
        save(json!(3), Condition::Matches(first.clone())).await.unwrap();
        assert_mismatch(save(json!(4), Condition::Matches(first.clone())).await);
        assert_mismatch(client.delete_state(store, "counter", Some(&first)).await);
        assert_eq!(value(client, store, "counter").await, Some(json!(3)), "{store}");
        let second = etag(client, store, "counter").await;
        client.delete_state(store, "counter", Some(&second)).await.unwrap();
        assert_eq!(value(client, store, "counter").await, None, "{store}");
    }
}

#[tokio::test]
async fn a_transaction_happens_as_a_whole_or_not_at_all_where_the_store_rolls_back() {
    let stores = stores().await;
    let client = &stores.daprd.client;
    for store in STORES {
        let both = [
            Operation::Upsert(item("one", json!(1))),
            Operation::Upsert(item("two", json!(2))),
        ];
        client.state_transaction(store, &both).await.unwrap();
        let old = etag(client, store, "two").await;
        client.save_state(store, &[item("two", json!(22))]).await.unwrap();
        let stale_write = Operation::Upsert(StateItem {
            condition: Condition::Matches(old.clone()),
            ..item("two", json!(3))
        });
        let stale_delete = Operation::Delete {
            key: "two".to_owned(),
            etag: Some(old),
        };
        for stale in [stale_write, stale_delete] {
            let operations = [Operation::Upsert(item("one", json!(111))), stale];
            assert_mismatch(client.state_transaction(store, &operations).await);
        }
        assert_eq!(value(client, store, "two").await, Some(json!(22)), "{store}");
        let rolled_back = value(client, store, "one").await == Some(json!(1));
        assert_eq!(rolled_back, store == "statestore", "{store}");
    }
}

#[tokio::test]
async fn a_value_is_gone_after_its_time() {
    let stores = stores().await;
    let client = &stores.daprd.client;
    for store in STORES {
        let short = StateItem {
            ttl: Some(Duration::from_secs(1)),
            ..item("short", json!(1))
        };
        client
            .save_state(store, &[short, item("long", json!(2))])
            .await
            .unwrap();
        assert_eq!(value(client, store, "short").await, Some(json!(1)), "{store}");
    }
    tokio::time::sleep(Duration::from_millis(2100)).await;
    for store in STORES {
        assert_eq!(value(client, store, "short").await, None, "{store}");
        assert_eq!(value(client, store, "long").await, Some(json!(2)), "{store}");
        // It counts as absent for a write, too.
        let anew = StateItem {
            condition: Condition::Absent,
            ..item("short", json!(3))
        };
        client.save_state(store, &[anew]).await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_is_not_there_is_an_error_that_no_retry_mends() {
    let stores = stores().await;
    let error = stores.daprd.client.state(&unique(), "key").await.unwrap_err();
    assert_eq!(
        error.refusal().unwrap().code.as_deref(),
        Some("ERR_STATE_STORE_NOT_FOUND")
    );
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn writers_that_lose_do_not_make_the_sidecar_leave_the_store_alone() {
    let stores = stores().await;
    let client = &stores.daprd.client;
    for store in STORES {
        let save = async |value: Value, condition: Condition| {
            let item = StateItem {
                condition,
                ..item("contended", value)
            };
            client.save_state(store, &[item]).await
        };
        save(json!(1), Condition::Absent).await.unwrap();
        let old = etag(client, store, "contended").await;
        save(json!(2), Condition::Matches(old.clone())).await.unwrap();
        for _ in 0..6 {
            assert_mismatch(save(json!(3), Condition::Absent).await);
            assert_mismatch(save(json!(3), Condition::Matches(old.clone())).await);
        }
        assert_eq!(value(client, store, "contended").await, Some(json!(2)), "{store}");
    }
}

#[tokio::test]
async fn redis_takes_a_key_with_conditions_or_without_and_not_both() {
    let stores = stores().await;
    let client = &stores.daprd.client;
    let absent = |key, value| StateItem {
        condition: Condition::Absent,
        ..item(key, value)
    };
    for store in STORES {
        client.save_state(store, &[item("without", json!(1))]).await.unwrap();
        let overwritten = client.save_state(store, &[absent("without", json!(2))]).await.is_ok();
        assert_eq!(overwritten, store == "statestore-redis");

        client.save_state(store, &[absent("with", json!(1))]).await.unwrap();
        let overwritten = client.save_state(store, &[item("with", json!(2))]).await.is_ok();
        assert_eq!(overwritten, store == "statestore");
    }
}
