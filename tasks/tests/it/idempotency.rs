//! `Idempotency-Key`: however often a request comes, its effect happens once.

use std::time::Duration;

use serde_json::json;
use sqlx::PgPool;
use todo_tasks::idempotency::{self, Begun, Key, StoredAnswer};
use todo_tasks::task::{self, TaskInput};
use todo_tasks::{Error, TaskId};
use todo_test_db::TestDb;

use crate::fixture::{Outcome, ada, at_once, caller, create, events, number};

fn key(request: &[u8]) -> Key {
    Key::parse("key-1", request).unwrap()
}

/// A request that creates a task, as the API makes it; `None` for the key's answer when it does the work itself.
async fn post(pool: &PgPool, user: &str, key: Key) -> anyhow::Result<(bool, StoredAnswer)> {
    match idempotency::begin(pool, &caller(user).user, Some(key), None).await? {
        Begun::Replay(answer) => Ok((false, answer)),
        Begun::Fresh(mut work) => {
            let fields = TaskInput::titled("once").parse().map_err(Error::Invalid)?;
            let task = task::create(&mut work.tx, &caller(user), fields).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            let answer = StoredAnswer {
                status: 201,
                headers: json!({"location": format!("/api/v1/tasks/{}", task.id)}),
                body: serde_json::to_string(&task)?,
            };
            idempotency::finish(work, &answer).await?;
            Ok((true, answer))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_at_the_same_time_has_one_effect_and_one_answer() -> Outcome {
    let db = TestDb::new().await;
    let requests = (0..8).map(|_| {
        let pool = db.pool.clone();
        async move { post(&pool, "ada", key(b"request")).await }
    });
    let answers = at_once(requests).await?;
    assert_eq!(answers.iter().filter(|(fresh, _)| *fresh).count(), 1);
    assert!(answers.iter().all(|(_, answer)| answer == &answers[0].1));
    assert_eq!(number(&db.pool, "SELECT count(*) FROM tasks").await?, 1);
    // Another user's key of the same name is another key.
    assert!(post(&db.pool, "bob", key(b"request")).await?.0);
    Ok(())
}

#[tokio::test]
async fn a_key_used_for_another_request_is_refused() -> Outcome {
    let db = TestDb::new().await;
    post(&db.pool, "ada", key(b"request")).await?;
    let other = idempotency::begin(&db.pool, &ada().user, Some(key(b"other")), None).await;
    assert!(matches!(other, Err(Error::IdempotencyKeyReused)), "{other:?}");
    Ok(())
}

#[tokio::test]
async fn a_request_that_failed_leaves_no_key() -> Outcome {
    let db = TestDb::new().await;
    let begun = idempotency::begin(&db.pool, &ada().user, Some(key(b"request")), None).await?;
    let Begun::Fresh(mut work) = begun else {
        panic!("{begun:?}")
    };
    let fields = TaskInput::titled("never").parse().map_err(Error::Invalid)?;
    task::create(&mut work.tx, &ada(), fields).await?;
    drop(work);
    let (fresh, _) = post(&db.pool, "ada", key(b"request")).await?;
    assert!(fresh);
    assert_eq!(number(&db.pool, "SELECT count(*) FROM tasks").await?, 1);
    Ok(())
}

#[tokio::test]
async fn an_empty_body_is_kept_as_one() -> Outcome {
    let db = TestDb::new().await;
    let answer = StoredAnswer {
        status: 204,
        headers: json!({}),
        body: String::new(),
    };
    let Begun::Fresh(work) = idempotency::begin(&db.pool, &ada().user, Some(key(b"request")), None).await? else {
        panic!("not fresh")
    };
    idempotency::finish(work, &answer).await?;
    let Begun::Replay(kept) = idempotency::begin(&db.pool, &ada().user, Some(key(b"request")), None).await? else {
        panic!("not kept")
    };
    assert_eq!(kept, answer);
    Ok(())
}

/// Completes a task under a key of its own.
async fn complete_once(pool: &PgPool, id: TaskId, name: &str) -> anyhow::Result<()> {
    let key = Key::parse(name, b"request".as_slice()).unwrap();
    if let Begun::Fresh(mut work) = idempotency::begin(pool, &ada().user, Some(key), Some(id)).await? {
        task::change(&mut work.tx, &ada(), id, None, |input| {
            Ok::<_, Error>(TaskInput {
                title: name.to_owned(),
                ..input
            })
        })
        .await?;
        let answer = StoredAnswer {
            status: 200,
            headers: json!({}),
            body: "{}".to_owned(),
        };
        idempotency::finish(work, &answer).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_does_not_disturb_the_order_of_a_tasks_events() -> Outcome {
    let db = TestDb::new().await;
    let task = create(&db.pool, &ada(), TaskInput::titled("contended")).await?;
    let requests = (0..40).map(|request| {
        let (pool, id) = (db.pool.clone(), task.id);
        // Each key comes twice.
        async move { complete_once(&pool, id, &format!("key-{}", request / 2)).await }
    });
    at_once(requests).await?;
    let versions: Vec<i64> = events(&db.pool, task.id)
        .await?
        .iter()
        .map(|event| event.version)
        .collect();
    assert_eq!(versions, (1..=21).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn an_answer_outlives_its_task() -> Outcome {
    let db = TestDb::new().await;
    let task = create(&db.pool, &ada(), TaskInput::titled("short-lived")).await?;
    complete_once(&db.pool, task.id, "key-1").await?;
    commit!(db.pool, |tx| task::delete(&mut tx, &ada(), task.id, None))?;
    let again = idempotency::begin(&db.pool, &ada().user, Some(key(b"request")), Some(task.id)).await?;
    assert!(matches!(again, Begun::Replay(_)), "{again:?}");
    Ok(())
}

#[tokio::test]
async fn old_answers_are_forgotten_a_batch_at_a_time() -> Outcome {
    let db = TestDb::new().await;
    sqlx::query(
        "INSERT INTO idempotency_keys (user_id, key, fingerprint, created_at)
        SELECT 'ada', n::text, '', now() - make_interval(hours => $1) + n * interval '1 minute'
        FROM generate_series(-9, 10) AS n",
    )
    .bind(idempotency::KEPT_HOURS)
    .execute(&db.pool)
    .await?;
    assert_eq!(idempotency::forget_old(&db.pool, 6).await?, 6);
    assert_eq!(
        number(&db.pool, "SELECT min(key::int)::bigint FROM idempotency_keys").await?,
        -3
    );
    assert_eq!(idempotency::forget_old(&db.pool, 6).await?, 4);
    assert_eq!(idempotency::forget_old(&db.pool, 6).await?, 0);
    assert_eq!(number(&db.pool, "SELECT count(*) FROM idempotency_keys").await?, 10);
    Ok(())
}

#[test]
fn a_key_is_visible_ascii() {
    for good in ["a", "8e03978e-40d5-43dd-bc93-6894a57f9324", &"k".repeat(255)] {
        assert!(Key::parse(good, Vec::new()).is_ok(), "{good}");
    }
    for bad in ["", "a b", "ä", "tab\t", &"k".repeat(256)] {
        assert_eq!(
            Key::parse(bad, Vec::new()).unwrap_err().field,
            "Idempotency-Key",
            "{bad}"
        );
    }
}
