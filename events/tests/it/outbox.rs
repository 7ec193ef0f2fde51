//! The outbox and its contract with those who write to it.

use serde_json::json;
use sqlx::PgPool;
use todo_events::relay::Pass;
use todo_events::{EventType, NewEvent, outbox};
use uuid::Uuid;

use crate::support::{
    Recorder, assert_exactly_once_in_order, commit, database, drain, history, new_event, pass, recorded, relay, until,
    until_recorded,
};

#[tokio::test]
async fn an_event_that_commits_late_with_an_early_number_is_not_lost() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let relay = relay(&db.pool, &recorder);
    let early = [new_event(Uuid::now_v7(), 1)];
    let late = [new_event(Uuid::now_v7(), 1)];

    let mut first = db.pool.begin().await.unwrap();
    outbox::append(&mut first, &early).await.unwrap();
    commit(&db.pool, &late).await;
    assert_eq!(
        relay.pass().await.unwrap(),
        Pass::HeldBack,
        "the second must wait, or the first would be passed over"
    );
    first.commit().await.unwrap();

    assert_eq!(drain(&relay).await, 2);
    let order: Vec<_> = recorded(&db.pool, "recorder")
        .await
        .into_iter()
        .map(|(id, ..)| id)
        .collect();
    assert_eq!(order, [early[0].id, late[0].id]);
    assert_eq!(pass(&relay).await, Pass::Idle);
}

#[tokio::test]
async fn a_rolled_back_command_leaves_no_event() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let relay = relay(&db.pool, &recorder);
    let mut command = db.pool.begin().await.unwrap();
    outbox::append(&mut command, &[new_event(Uuid::now_v7(), 1)])
        .await
        .unwrap();
    command.rollback().await.unwrap();
    assert_eq!(pass(&relay).await, Pass::Idle);
}

/// What the contract in the docs of `outbox` rests on.
#[tokio::test]
async fn a_command_that_waits_for_its_task_has_no_transaction_id_yet() {
    let db = database().await;
    let subject = Uuid::now_v7();
    sqlx::query("CREATE TABLE task (id uuid PRIMARY KEY)")
        .execute(&db.pool)
        .await
        .unwrap();
    sqlx::query("INSERT INTO task VALUES ($1)")
        .bind(subject)
        .execute(&db.pool)
        .await
        .unwrap();

    for (statement, has_one) in [
        ("SELECT lock_subject($1)", false),
        (LOCK_AND_READ, false),
        // Why a plain UPDATE as the first statement would break the contract.
        ("UPDATE task SET id = id WHERE id = $1", true),
    ] {
        let mut holder = db.pool.begin().await.unwrap();
        outbox::lock(&mut holder, &[subject]).await.unwrap();
        sqlx::query("UPDATE task SET id = id WHERE id = $1")
            .bind(subject)
            .execute(&mut *holder)
            .await
            .unwrap();
        let mut waiter = db.pool.begin().await.unwrap();
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&mut *waiter)
            .await
            .unwrap();
        let waiting = tokio::spawn(async move {
            sqlx::query(statement)
                .bind(subject)
                .execute(&mut *waiter)
                .await
                .unwrap();
            waiter.rollback().await.unwrap();
        });
        until(async || {
            let event: Option<String> =
                sqlx::query_scalar("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $1")
                    .bind(pid)
                    .fetch_one(&db.pool)
                    .await
                    .unwrap();
            event.as_deref() == Some("Lock")
        })
        .await;
        let assigned: bool = sqlx::query_scalar("SELECT backend_xid IS NOT NULL FROM pg_stat_activity WHERE pid = $1")
            .bind(pid)
            .fetch_one(&db.pool)
            .await
            .unwrap();
        assert_eq!(assigned, has_one, "{statement}");
        holder.rollback().await.unwrap();
        waiting.await.unwrap();
    }
}

/// A task's lock and its row in one statement, as the migration shows it.
const LOCK_AND_READ: &str = "SELECT current.*
     FROM lock_subject($1) AS held(id)
     CROSS JOIN LATERAL (SELECT * FROM task WHERE task.id = held.id FOR UPDATE) AS current";

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_keep_the_contract_are_delivered_in_version_order() {
    const TASKS: usize = 3;
    const WRITERS: usize = 8;
    const COMMANDS: usize = 60;
    let db = database().await;
    sqlx::query("CREATE TABLE task (id uuid PRIMARY KEY, version bigint)")
        .execute(&db.pool)
        .await
        .unwrap();
    let created = history(TASKS, 1);
    let subjects: Vec<_> = created.iter().map(|event| event.subject).collect();
    for subject in &subjects {
        sqlx::query("INSERT INTO task VALUES ($1, 1)")
            .bind(subject)
            .execute(&db.pool)
            .await
            .unwrap();
    }
    commit(&db.pool, &created).await;

    let recorder = Recorder::new("recorder");
    let relay = relay(&db.pool, &recorder);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { relay.run(shutdown).await }
    });
    let pool = db.another_pool(8).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (pool, subjects) = (pool.clone(), subjects.clone());
            tokio::spawn(async move {
                let mut written = vec![];
                for command in 0..COMMANDS {
                    let subject = subjects[(writer + command) % TASKS];
                    written.extend(match command % 3 {
                        0 => change_one(&pool, subject).await,
                        1 => change(&pool, &[subject]).await,
                        _ => change(&pool, &subjects).await,
                    });
                }
                written
            })
        })
        .collect();
    let mut events = created;
    for writer in writers {
        events.extend(writer.await.unwrap());
    }
    until_recorded(&db.pool, "recorder", events.len()).await;
    shutdown.cancel();
    running.await.unwrap();
    assert_exactly_once_in_order(&db.pool, "recorder", &events).await;
}

/// A command that locks its tasks, and then reads and changes them.
async fn change(pool: &PgPool, subjects: &[Uuid]) -> Vec<NewEvent> {
    let mut transaction = pool.begin().await.unwrap();
    outbox::lock(&mut transaction, subjects).await.unwrap();
    let mut events = vec![];
    for &subject in subjects {
        let version: i64 = sqlx::query_scalar("UPDATE task SET version = version + 1 WHERE id = $1 RETURNING version")
            .bind(subject)
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
        events.push(new_event(subject, version));
    }
    outbox::append(&mut transaction, &events).await.unwrap();
    transaction.commit().await.unwrap();
    events
}

/// A command that locks and reads its task in one statement, which must read what the last one wrote.
async fn change_one(pool: &PgPool, subject: Uuid) -> Vec<NewEvent> {
    let mut transaction = pool.begin().await.unwrap();
    let (_, version): (Uuid, i64) = sqlx::query_as(LOCK_AND_READ)
        .bind(subject)
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
    let event = new_event(subject, version + 1);
    sqlx::query("UPDATE task SET version = $2 WHERE id = $1")
        .bind(subject)
        .bind(version + 1)
        .execute(&mut *transaction)
        .await
        .unwrap();
    outbox::append(&mut transaction, std::slice::from_ref(&event))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    vec![event]
}

#[tokio::test]
async fn the_sql_function_writes_what_append_writes() {
    let db = database().await;
    let appended = NewEvent {
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        ..new_event(Uuid::now_v7(), 2)
    };
    commit(&db.pool, std::slice::from_ref(&appended)).await;
    let appended_by_sql: i64 = sqlx::query_scalar("SELECT append_events($1, $2, $3, $4, $5, $6, $7, $8, $9)")
        .bind([NewEvent::new_id()])
        .bind([appended.event_type.as_str()])
        .bind([appended.subject])
        .bind([&appended.user_id])
        .bind([appended.version])
        .bind([&appended.actor])
        .bind([&appended.data])
        .bind([&appended.previous])
        .bind([&appended.traceparent])
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(appended_by_sql, 1);
    let kinds: i64 = sqlx::query_scalar(
        "SELECT count(DISTINCT (event_type, subject, user_id, version, actor, data, previous, traceparent)) FROM outbox",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!((kinds, rows), (1, 2));
}

#[tokio::test]
async fn every_event_type_fits_the_table_and_nonsense_does_not() {
    let db = database().await;
    for event_type in EventType::ALL {
        commit(
            &db.pool,
            &[NewEvent {
                event_type,
                ..new_event(Uuid::now_v7(), 1)
            }],
        )
        .await;
    }
    let good = || new_event(Uuid::now_v7(), 2);
    for bad in [
        NewEvent { version: 0, ..good() },
        NewEvent {
            user_id: String::new(),
            ..good()
        },
        NewEvent {
            actor: String::new(),
            ..good()
        },
        NewEvent {
            previous: Some(json!("not an object")),
            ..good()
        },
    ] {
        let mut connection = db.pool.acquire().await.unwrap();
        assert!(
            outbox::append(&mut connection, std::slice::from_ref(&bad))
                .await
                .is_err(),
            "{bad:?}"
        );
    }
}
