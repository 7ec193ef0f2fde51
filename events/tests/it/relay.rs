//! The relay, alone and in company, alive and killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use todo_events::host::Retry;
use todo_events::partitions;
use todo_events::relay::{Pass, Settings};
use todo_events::{BoxFuture, Bus, BusError, Channel, Consumer, Event, LocalBus, Relay, Topic, Waker};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{
    Fault, Recorder, assert_exactly_once_in_order, commit, database, drain, history, local_bus, new_event, pass,
    recorded, relay, relay_to, retry, try_pass, until, until_recorded,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_drained_in_order_and_fast() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let relay = relay(&db.pool, &recorder);
    let events = history(2000, 10);
    for chunk in events.chunks(1000) {
        commit(&db.pool, chunk).await;
    }
    let started = Instant::now();
    assert_eq!(drain(&relay).await, events.len());
    let rate = events.len() as u128 * 1000 / started.elapsed().as_millis().max(1);
    println!("{rate} events/s");
    assert_exactly_once_in_order(&db.pool, "recorder", &events).await;
    // A quarter of what is promised of an optimised build: this one is not, and shares the machine with
    // other tests. One transaction for each event would not reach it.
    assert!(rate > 2500, "{rate} events/s");
}

#[tokio::test]
async fn a_consumer_gets_its_topics_once_each() {
    let db = database().await;
    let changes = Recorder::subscribed_to("changes", &[Topic::TaskEvents, Topic::TaskUpdates]);
    let reminders = Recorder::subscribed_to("reminders", &[Topic::Reminders]);
    let subject = Uuid::now_v7();
    let created = new_event(subject, 1);
    let mut reminder = new_event(subject, 1);
    reminder.event_type = todo_events::EventType::Reminder;
    commit(&db.pool, &[created.clone(), reminder.clone()]).await;
    for consumer in [&changes, &reminders] {
        assert_eq!(drain(&relay(&db.pool, consumer)).await, 2);
    }
    assert_eq!(
        recorded(&db.pool, "changes").await,
        [(created.id, subject, 1), (reminder.id, subject, 1)]
    );
    assert_eq!(recorded(&db.pool, "reminders").await, [(reminder.id, subject, 1)]);
}

#[tokio::test]
async fn a_consumer_that_was_switched_off_finds_all_that_happened_meanwhile() {
    let db = database().await;
    let (always, sometimes) = (Recorder::new("always"), Recorder::new("sometimes"));
    let events = history(10, 4);
    for (day, chunk) in events.chunks(10).enumerate() {
        commit(&db.pool, chunk).await;
        drain(&relay(&db.pool, &always)).await;
        if day % 2 == 1 {
            assert_eq!(drain(&relay(&db.pool, &sometimes)).await, 20);
        }
    }
    for consumer in ["always", "sometimes"] {
        assert_exactly_once_in_order(&db.pool, consumer, &events).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_relays_at_once_deliver_exactly_once_and_in_order() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let shutdown = CancellationToken::new();
    let mut relays = vec![];
    for _ in 0..3 {
        // A pool each, as in three processes, and small batches, so that they take turns.
        let pool = db.another_pool(4).await;
        let settings = Settings {
            batch: 20,
            poll: Duration::from_millis(5),
            ..Settings::default()
        };
        let relay = Relay::new(
            pool.clone(),
            "recorder",
            local_bus(&pool, &recorder),
            Waker::new(),
            settings,
        );
        let shutdown = shutdown.clone();
        relays.push(tokio::spawn(async move { relay.run(shutdown).await }));
    }
    let events = history(50, 40);
    for chunk in events.chunks(50) {
        commit(&db.pool, chunk).await;
    }
    until_recorded(&db.pool, "recorder", events.len()).await;
    shutdown.cancel();
    for relay in relays {
        relay.await.unwrap();
    }
    assert_exactly_once_in_order(&db.pool, "recorder", &events).await;
}

/// Delivers, and then fails as a relay does that dies before it has moved its cursor.
struct Forgetful {
    bus: Arc<LocalBus>,
    crashes: AtomicU64,
}

impl Bus for Forgetful {
    fn publish<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(async move {
            self.bus.publish(batch).await?;
            match self
                .crashes
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            {
                Ok(_) => Err(BusError::Unavailable("crash".into())),
                Err(_) => Ok(()),
            }
        })
    }
}

#[tokio::test]
async fn a_crash_between_publishing_and_moving_the_cursor_doubles_nothing() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let bus = Arc::new(Forgetful {
        bus: local_bus(&db.pool, &recorder),
        crashes: AtomicU64::new(2),
    });
    let relay = relay_to(&db.pool, "recorder", bus);
    let events = history(10, 3);
    commit(&db.pool, &events).await;
    assert!(try_pass(&relay).await.is_err());
    commit(&db.pool, &history(1, 1)).await;
    assert!(try_pass(&relay).await.is_err());
    assert_eq!(drain(&relay).await, 31, "the cursor must not have moved before");
    assert_eq!(recorded(&db.pool, "recorder").await.len(), 31);
    assert_exactly_once_in_order_of_prefix(&db.pool, &events).await;
}

async fn assert_exactly_once_in_order_of_prefix(pool: &PgPool, events: &[todo_events::NewEvent]) {
    let order: Vec<_> = recorded(pool, "recorder")
        .await
        .into_iter()
        .take(events.len())
        .map(|(id, ..)| id)
        .collect();
    assert_eq!(order, events.iter().map(|event| event.id).collect::<Vec<_>>());
}

/// Has the relay's own connection killed while a batch is on its way.
struct Assassin {
    bus: Arc<LocalBus>,
    pool: PgPool,
    struck: AtomicBool,
}

impl Bus for Assassin {
    fn publish<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(async move {
            if !self.struck.swap(true, Ordering::SeqCst) {
                let killed: Vec<bool> = sqlx::query_scalar(
                    "SELECT pg_terminate_backend(pid)
                     FROM pg_stat_activity
                     WHERE datname = current_database()
                       AND state = 'idle in transaction'",
                )
                .fetch_all(&self.pool)
                .await
                .unwrap();
                assert_eq!(killed, [true], "the relay's pass is the one open transaction");
                // Long enough for the other relay to take the cursor and deliver the same batch.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            self.bus.publish(batch).await
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_loses_its_connection_mid_pass_is_relieved_and_doubles_nothing() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let events = history(30, 20);
    commit(&db.pool, &events).await;
    let shutdown = CancellationToken::new();
    let settings = Settings {
        batch: 50,
        poll: Duration::from_millis(5),
        ..Settings::default()
    };
    let bus = Arc::new(Assassin {
        bus: local_bus(&db.pool, &recorder),
        pool: db.pool.clone(),
        struck: AtomicBool::new(false),
    });
    let victim = Relay::new(
        db.another_pool(2).await,
        "recorder",
        Arc::clone(&bus) as Arc<dyn Bus>,
        Waker::new(),
        settings,
    );
    let relieving = Relay::new(
        db.pool.clone(),
        "recorder",
        local_bus(&db.pool, &recorder),
        Waker::new(),
        settings,
    );
    let victim = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { victim.run(shutdown).await }
    });
    until(async || bus.struck.load(Ordering::SeqCst)).await;
    let relieving = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { relieving.run(shutdown).await }
    });
    until_recorded(&db.pool, "recorder", events.len()).await;
    shutdown.cancel();
    victim.await.unwrap();
    relieving.await.unwrap();
    assert_exactly_once_in_order(&db.pool, "recorder", &events).await;
}

#[tokio::test]
async fn a_second_relay_leaves_a_running_pass_alone() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let bus = Arc::new(Slow::new(local_bus(&db.pool, &recorder)));
    let first = relay_to(&db.pool, "recorder", Arc::clone(&bus) as Arc<dyn Bus>);
    let second = relay(&db.pool, &recorder);
    let events = history(3, 1);
    commit(&db.pool, &events).await;
    let (published, ()) = tokio::join!(pass(&first), async {
        bus.begun.notified().await;
        assert_eq!(pass(&second).await, Pass::Elsewhere);
    });
    assert_eq!(published, Pass::Published(3));
    assert_eq!(pass(&second).await, Pass::Idle);
    assert_exactly_once_in_order(&db.pool, "recorder", &events).await;
}

#[tokio::test]
async fn a_consumer_that_waits_for_better_times_holds_up_nothing_else() {
    let db = database().await;
    let (stuck, other) = (Recorder::new("stuck"), Recorder::new("other"));
    let events = history(3, 2);
    let (first, later) = events.split_at(3);
    stuck.fail_on(first[0].id, Fault::Transient, u32::MAX);
    commit(&db.pool, first).await;
    let shutdown = CancellationToken::new();
    let bus = Arc::new(LocalBus::new(
        db.pool.clone(),
        Arc::clone(&stuck) as Arc<dyn Consumer>,
        Retry {
            shutdown: shutdown.clone(),
            ..retry()
        },
    ));
    let waiting = relay_to(&db.pool, "stuck", bus);
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { waiting.run(shutdown).await }
    });
    until(async || stuck.faults_left(first[0].id) < u32::MAX).await;

    commit(&db.pool, later).await;
    let drained = tokio::time::timeout(Duration::from_secs(20), drain(&relay(&db.pool, &other))).await;
    assert_eq!(drained.expect("another consumer must not wait"), 6);
    assert_exactly_once_in_order(&db.pool, "other", &events).await;
    let tomorrow = partitions::ensure(&db.pool, 1).await.unwrap();
    assert_eq!(
        tomorrow.created.len(),
        2,
        "today lies in the default partition, tomorrow must not be locked"
    );
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_wake_up_is_faster_than_the_poll() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let waker = Waker::new();
    let settings = Settings {
        poll: Duration::from_hours(1),
        ..Settings::default()
    };
    let relay = Relay::new(
        db.pool.clone(),
        "recorder",
        local_bus(&db.pool, &recorder),
        waker.clone(),
        settings,
    );
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { relay.run(shutdown).await }
    });
    let events = history(3, 1);
    for event in &events {
        // Long enough for the relay to have gone idle, so that only a wake-up brings it back.
        tokio::time::sleep(Duration::from_millis(100)).await;
        commit(&db.pool, std::slice::from_ref(event)).await;
        waker.wake(Channel::Outbox);
    }
    until_recorded(&db.pool, "recorder", events.len()).await;
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), running)
        .await
        .expect("shutdown must not wait for the poll")
        .unwrap();
}

/// Takes its time, and says when it is at it.
struct Slow {
    bus: Arc<LocalBus>,
    begun: tokio::sync::Notify,
}

impl Slow {
    fn new(bus: Arc<LocalBus>) -> Self {
        Self {
            bus,
            begun: tokio::sync::Notify::new(),
        }
    }
}

impl Bus for Slow {
    fn publish<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(async move {
            self.begun.notify_one();
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.bus.publish(batch).await
        })
    }
}

#[tokio::test]
async fn shutdown_finishes_the_pass_that_runs() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let bus = Arc::new(Slow::new(local_bus(&db.pool, &recorder)));
    let relay = relay_to(&db.pool, "recorder", Arc::clone(&bus) as Arc<dyn Bus>);
    let events = history(5, 1);
    commit(&db.pool, &events).await;
    let shutdown = CancellationToken::new();
    let (running, ()) = tokio::join!(
        tokio::spawn({
            let shutdown = shutdown.clone();
            async move {
                relay.run(shutdown).await;
                relay
            }
        }),
        async {
            bus.begun.notified().await;
            shutdown.cancel();
        }
    );
    assert_exactly_once_in_order(&db.pool, "recorder", &events).await;
    assert_eq!(pass(&running.unwrap()).await, Pass::Idle, "the cursor was moved, too");
}
