//! Wake-ups between processes, each played by a pool of its own.

use std::time::Duration;

use sqlx::postgres::PgListener;
use todo_events::{Channel, Waker};
use todo_test_db::TestDb;
use tokio_util::sync::CancellationToken;

use crate::support::until;

async fn listeners(db: &TestDb) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*)
         FROM pg_stat_activity
         WHERE datname = current_database()
           AND query LIKE 'LISTEN%todo_outbox%'",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_wake_up_reaches_another_process_and_only_its_channel() {
    let db = TestDb::new().await;
    let shutdown = CancellationToken::new();
    let (here, there) = (Waker::new(), Waker::new());
    for waker in [&here, &there] {
        let (waker, pool, shutdown) = (waker.clone(), db.another_pool(2).await, shutdown.clone());
        tokio::spawn(async move { waker.run(pool, shutdown).await });
    }
    until(async || listeners(&db).await == 2).await;
    // Both have been woken once, for what they may have missed before they listened.
    tokio::time::sleep(Duration::from_millis(100)).await;

    let mut reminders = there.subscribe(Channel::Reminders);
    let mut schedules = there.subscribe(Channel::Schedules);
    here.wake(Channel::Reminders);
    tokio::time::timeout(Duration::from_secs(10), reminders.woken())
        .await
        .expect("no wake-up");
    let other = tokio::time::timeout(Duration::from_millis(200), schedules.woken()).await;
    assert!(other.is_err(), "woken for another channel");
    shutdown.cancel();
}

#[tokio::test]
async fn a_lost_listener_returns_and_wakes_for_what_it_missed() {
    let db = TestDb::new().await;
    let shutdown = CancellationToken::new();
    let waker = Waker::new();
    let pool = db.another_pool(2).await;
    tokio::spawn({
        let (waker, shutdown) = (waker.clone(), shutdown.clone());
        async move { waker.run(pool, shutdown).await }
    });
    until(async || listeners(&db).await == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;

    let mut schedules = waker.subscribe(Channel::Schedules);
    sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%todo_outbox%' AND datname = current_database()")
        .execute(&db.pool)
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(10), schedules.woken())
        .await
        .expect("no wake-up after the loss");
    until(async || listeners(&db).await == 1).await;

    // And it hears again.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut schedules = waker.subscribe(Channel::Schedules);
    sqlx::query("SELECT pg_notify('todo_schedules', 'another process')")
        .execute(&db.pool)
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(10), schedules.woken())
        .await
        .expect("no wake-up after the return");
    shutdown.cancel();
}

#[tokio::test]
async fn a_thousand_wake_ups_are_few_notifications() {
    let db = TestDb::new().await;
    let shutdown = CancellationToken::new();
    let waker = Waker::new();
    let mut listener = PgListener::connect(&db.url).await.unwrap();
    listener.listen("todo_outbox").await.unwrap();
    let pool = db.another_pool(2).await;
    tokio::spawn({
        let (waker, shutdown) = (waker.clone(), shutdown.clone());
        async move { waker.run(pool, shutdown).await }
    });
    for _ in 0..1000 {
        waker.wake(Channel::Outbox);
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(Duration::from_secs(10), listener.recv())
        .await
        .expect("no notification")
        .unwrap();
    let mut more = 0;
    while tokio::time::timeout(Duration::from_millis(300), listener.recv())
        .await
        .is_ok()
    {
        more += 1;
    }
    assert!(more < 20, "{more} more notifications");
    shutdown.cancel();
}

#[tokio::test]
async fn a_wake_up_while_its_subscriber_works_is_not_lost() {
    let waker = Waker::new();
    let mut outbox = waker.subscribe(Channel::Outbox);
    waker.wake(Channel::Outbox);
    waker.wake(Channel::Outbox);
    outbox.woken().await;
    let again = tokio::time::timeout(Duration::from_millis(50), outbox.woken()).await;
    assert!(again.is_err(), "two wake-ups before a look are one");
}
