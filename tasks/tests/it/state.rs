//! The database as a store of values under keys.

use std::time::Duration;

use serde_json::json;
use todo_tasks::state::{Condition, DatabaseState, Etag, StateError, StateStore, forget_expired};
use todo_test_db::TestDb;

use crate::fixture::{Outcome, at_once, number};

fn is_mismatch(outcome: Result<(), StateError>) -> bool {
    match outcome {
        Ok(()) => false,
        Err(StateError::Mismatch) => true,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_write_finds_what_its_condition_says_or_does_nothing() -> Outcome {
    let db = TestDb::new().await;
    let store = DatabaseState::new(db.pool.clone());
    assert_eq!(store.get("k").await?, None);
    assert!(is_mismatch(
        store
            .put("k", json!(0), Condition::Matches(Etag("1".to_owned())), None)
            .await
    ));
    store.put("k", json!(1), Condition::Absent, None).await?;
    assert!(is_mismatch(store.put("k", json!(2), Condition::Absent, None).await));
    let first = store.get("k").await?.unwrap();
    assert_eq!(first.value, json!(1));

    store
        .put("k", json!(3), Condition::Matches(first.etag.clone()), None)
        .await?;
    assert!(is_mismatch(
        store
            .put("k", json!(4), Condition::Matches(first.etag.clone()), None)
            .await
    ));
    assert!(is_mismatch(store.delete("k", Some(&first.etag)).await));
    assert!(is_mismatch(
        store.delete("k", Some(&Etag("not one of its own".to_owned()))).await
    ));
    store.put("k", json!(5), Condition::Always, None).await?;
    let last = store.get("k").await?.unwrap();
    assert_eq!(last.value, json!(5));
    store.delete("k", Some(&last.etag)).await?;
    assert_eq!(store.get("k").await?, None);
    store.delete("k", None).await?;
    Ok(())
}

#[tokio::test]
async fn of_writers_side_by_side_no_one_overwrites_another_unseen() -> Outcome {
    let db = TestDb::new().await;
    let store = DatabaseState::new(db.pool.clone());
    store.put("counter", json!(0), Condition::Absent, None).await?;
    let writers = (0..8).map(|_| {
        let store = store.clone();
        async move {
            for _ in 0..10 {
                loop {
                    let stored = store.get("counter").await?.unwrap();
                    let value = stored.value.as_i64().unwrap() + 1;
                    match store
                        .put("counter", json!(value), Condition::Matches(stored.etag), None)
                        .await
                    {
                        Ok(()) => break,
                        Err(StateError::Mismatch) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            Ok(())
        }
    });
    at_once(writers).await?;
    assert_eq!(store.get("counter").await?.unwrap().value, json!(80));
    Ok(())
}

#[tokio::test]
async fn what_has_expired_is_not_there_and_is_forgotten() -> Outcome {
    let db = TestDb::new().await;
    let store = DatabaseState::new(db.pool.clone());
    let long = Some(Duration::from_hours(1));
    for key in ["a", "b", "c"] {
        store.put(key, json!(key), Condition::Absent, long).await?;
    }
    let stale = store.get("a").await?.unwrap().etag;
    sqlx::query("UPDATE state SET expires_at = now() WHERE key IN ('a', 'b')")
        .execute(&db.pool)
        .await?;
    assert_eq!(store.get("a").await?, None);
    assert!(is_mismatch(
        store.put("a", json!(1), Condition::Matches(stale.clone()), long).await
    ));
    assert!(is_mismatch(store.delete("a", Some(&stale)).await));
    assert_eq!(store.keys("", "", 10).await?, ["c"]);
    store.put("a", json!("new"), Condition::Absent, None).await?;
    assert_eq!(forget_expired(&db.pool, 10).await?, 1);
    assert_eq!(number(&db.pool, "SELECT count(*) FROM state").await?, 2);
    assert_eq!(store.get("a").await?.unwrap().value, json!("new"));
    Ok(())
}

#[tokio::test]
async fn the_keys_of_a_kind_are_found_page_by_page() -> Outcome {
    let db = TestDb::new().await;
    let store = DatabaseState::new(db.pool.clone());
    for key in ["kind.Z", "kind.a", "kind", "kind.-", "kinder.a", "a"] {
        store.put(key, json!(1), Condition::Absent, None).await?;
    }
    let first = store.keys("kind.", "", 2).await?;
    assert_eq!(first, ["kind.-", "kind.Z"]);
    assert_eq!(store.keys("kind.", &first[1], 2).await?, ["kind.a"]);
    assert_eq!(store.keys("kind.", "kind.a", 2).await?, Vec::<String>::new());
    Ok(())
}
