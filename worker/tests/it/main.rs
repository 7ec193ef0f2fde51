//! The roles on a real database: what follows from events and from time does follow, once, whichever roles ran when.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alarms;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use sqlx::PgPool;
use todo_events::{EventType, NewEvent, Waker, outbox};
use todo_tasks::schedule::{self, ScheduleInput};
use todo_tasks::task::{self, TaskInput};
use todo_tasks::{Caller, UserId};
use todo_test_db::TestDb;
use todo_worker::{Role, Settings};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Roles that run until they are stopped.
struct Running {
    shutdown: CancellationToken,
    worker: JoinHandle<()>,
}

impl Running {
    fn start(pool: &PgPool, roles: &[Role]) -> Self {
        let shutdown = CancellationToken::new();
        let settings = Settings {
            roles: roles.iter().copied().collect::<BTreeSet<_>>(),
            ..Settings::default()
        };
        let worker = tokio::spawn(todo_worker::run(pool.clone(), Waker::new(), settings, shutdown.clone()));
        Self { shutdown, worker }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.worker).await.unwrap().unwrap();
    }
}

/// Waits until the query answers at least `expected`.
async fn wait_for(pool: &PgPool, query: &'static str, expected: i64) {
    let counted = async {
        loop {
            let count: i64 = sqlx::query_scalar(query).fetch_one(pool).await.unwrap();
            if count >= expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, counted).await.is_ok(),
        "never reached {expected}: {query}"
    );
}

async fn count(pool: &PgPool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

fn alice() -> Caller {
    Caller::user(UserId::parse("alice").unwrap(), None)
}

async fn create(pool: &PgPool, input: serde_json::Value) -> task::Task {
    let fields = serde_json::from_value::<TaskInput>(input).unwrap().parse().unwrap();
    task::create(&mut pool.acquire().await.unwrap(), &alice(), fields)
        .await
        .unwrap()
}

#[tokio::test]
async fn what_follows_from_time_and_events_happens_and_happens_once() {
    let db = TestDb::new().await;
    let soon = Timestamp::now() + 1.second();
    let repeating = create(
        &db.pool,
        serde_json::json!({
            "title": "pay the rent",
            "due": {"at": soon},
            "recurrence": {"every": "1mo"},
            "reminders": [{"before": "0s"}],
        }),
    )
    .await;
    let every_second = serde_json::json!({
        "name": "tick",
        "schedule": {"every": "1s", "time_zone": "UTC"},
        "template": {"title": "tick {{n}}"},
    });
    let fields = serde_json::from_value::<ScheduleInput>(every_second)
        .unwrap()
        .parse(Timestamp::now())
        .unwrap();
    schedule::create(&mut db.pool.acquire().await.unwrap(), &alice(), fields)
        .await
        .unwrap();

    let first = Running::start(&db.pool, &Role::ALL);
    let second = Running::start(&db.pool, &Role::ALL);
    wait_for(&db.pool, "SELECT count(*) FROM notifications", 1).await;
    wait_for(&db.pool, "SELECT count(*) FROM occurrences", 3).await;
    let mut tx = db.pool.begin().await.unwrap();
    task::complete(&mut tx, &alice(), repeating.id, None).await.unwrap();
    tx.commit().await.unwrap();
    wait_for(&db.pool, "SELECT count(*) FROM tasks WHERE previous_id IS NOT NULL", 1).await;
    first.stop().await;

    // What the clocks made until they stopped is in the log soon after.
    wait_for(&db.pool, "SELECT count(*) FROM audit WHERE event_type = 'completed'", 1).await;
    second.stop().await;
    let third = Running::start(&db.pool, &[Role::Relay, Role::Audit]);
    let events = count(&db.pool, "SELECT count(*) FROM outbox").await;
    wait_for(&db.pool, "SELECT count(*) FROM audit", events).await;
    third.stop().await;

    assert_eq!(count(&db.pool, "SELECT count(*) FROM audit").await, events);
    assert_eq!(count(&db.pool, "SELECT count(*) FROM notifications").await, 1);
    assert_eq!(
        count(&db.pool, "SELECT count(*) FROM tasks WHERE previous_id IS NOT NULL").await,
        1
    );
    assert_eq!(
        count(&db.pool, "SELECT count(*) FROM occurrences").await,
        count(&db.pool, "SELECT made FROM schedules").await,
    );
}

#[tokio::test]
async fn a_consumer_that_was_switched_off_gets_all_that_happened_meanwhile() {
    let db = TestDb::new().await;
    let without_audit = Running::start(&db.pool, &[Role::Relay, Role::Recurring, Role::Reminders]);
    for number in 0..20 {
        create(&db.pool, serde_json::json!({"title": format!("task {number}")})).await;
    }
    wait_for(&db.pool, "SELECT count(*) FROM inbox WHERE consumer = 'recurring'", 20).await;
    without_audit.stop().await;
    assert_eq!(count(&db.pool, "SELECT count(*) FROM audit").await, 0);

    let with_audit = Running::start(&db.pool, &Role::ALL);
    wait_for(&db.pool, "SELECT count(*) FROM audit", 20).await;
    with_audit.stop().await;
    assert_eq!(count(&db.pool, "SELECT count(DISTINCT task_id) FROM audit").await, 20);
}

#[tokio::test]
async fn an_event_that_no_consumer_can_read_is_set_aside_and_the_rest_goes_on() {
    let db = TestDb::new().await;
    let event = NewEvent {
        id: NewEvent::new_id(),
        event_type: EventType::Completed,
        subject: uuid::Uuid::now_v7(),
        user_id: "alice".to_owned(),
        version: 1,
        actor: "alice".to_owned(),
        data: serde_json::json!({"not": "a task"}),
        previous: None,
        traceparent: None,
    };
    outbox::append(&mut db.pool.acquire().await.unwrap(), &[event])
        .await
        .unwrap();
    create(&db.pool, serde_json::json!({"title": "after it"})).await;

    let running = Running::start(&db.pool, &Role::ALL);
    wait_for(
        &db.pool,
        "SELECT count(*) FROM dead_letters WHERE consumer = 'recurring'",
        1,
    )
    .await;
    wait_for(&db.pool, "SELECT count(*) FROM inbox WHERE consumer = 'recurring'", 1).await;
    wait_for(&db.pool, "SELECT count(*) FROM audit", 2).await;
    running.stop().await;
    assert_eq!(count(&db.pool, "SELECT count(*) FROM dead_letters").await, 1);
}

#[tokio::test]
async fn late_reminders_go_out_behind_those_that_are_due_and_become_a_digest() {
    let db = TestDb::new().await;
    for number in 0..10 {
        create(
            &db.pool,
            serde_json::json!({
                "title": format!("missed {number}"),
                "due": {"at": Timestamp::now() - 1.hour()},
                "reminders": [{"before": "0s"}],
            }),
        )
        .await;
    }
    let running = Running::start(&db.pool, &Role::ALL);
    wait_for(&db.pool, "SELECT count(*) FROM reminders WHERE sent_at IS NOT NULL", 10).await;
    running.stop().await;
    assert_eq!(count(&db.pool, "SELECT count(*) FROM reminders WHERE late").await, 10);
    assert_eq!(
        count(
            &db.pool,
            "SELECT sum(reminder_count) FROM notifications WHERE kind = 'digest'"
        )
        .await,
        10
    );
}
