//! Relays of one kind that come after those of another, and cursors that nobody needs any more.

use std::sync::Arc;

use sqlx::PgPool;
use todo_events::cursors::{self, Begins, Removal, Succession};
use todo_events::partitions::{self, Retention};
use todo_events::{BoxFuture, Bus, BusError, Consumer, Event, Relay, host};
use tokio::sync::Mutex;

use crate::support::{
    Recorder, assert_exactly_once_in_order, commit, database, drain, history, relay, relay_to, retry,
};

const OWN: &[&str] = &["broker"];
const FORMER: &[&str] = &["first", "second"];

const TO_THE_BROKER: Succession = Succession {
    own: OWN,
    former: FORMER,
    begins: Begins::WhereFormerStand,
};
const TO_LOCAL: Succession = Succession {
    own: FORMER,
    former: OWN,
    begins: Begins::AtTheOldest,
};

/// Keeps what is published, as a broker does, until somebody delivers it.
#[derive(Default)]
struct Broker {
    kept: Mutex<Vec<Event>>,
}

impl Bus for Broker {
    fn publish<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(async move {
            self.kept.lock().await.extend_from_slice(batch);
            Ok(())
        })
    }
}

impl Broker {
    /// Delivers all that is kept; returns how much that was.
    async fn deliver(&self, pool: &PgPool, consumers: &[&Arc<Recorder>]) -> usize {
        let kept = std::mem::take(&mut *self.kept.lock().await);
        for batch in kept.chunks(7) {
            for consumer in consumers {
                host::apply(pool, consumer.as_ref() as &dyn Consumer, batch, &retry())
                    .await
                    .unwrap();
            }
        }
        kept.len()
    }
}

fn to_broker(pool: &PgPool, broker: &Arc<Broker>) -> Relay {
    relay_to(pool, "broker", Arc::clone(broker) as Arc<dyn Bus>).succeeding(TO_THE_BROKER)
}

fn local(pool: &PgPool, recorder: &Arc<Recorder>) -> Relay {
    relay(pool, recorder).succeeding(TO_LOCAL)
}

async fn names(pool: &PgPool) -> Vec<String> {
    let cursors = cursors::list(pool).await.unwrap();
    cursors.into_iter().map(|cursor| cursor.name).collect()
}

/// As if no relay had attended to these cursors for an hour.
async fn abandon(pool: &PgPool, names: &[&str]) {
    sqlx::query("UPDATE relay_cursor SET updated_at = now() - interval '1 hour' WHERE name = ANY($1)")
        .bind(names)
        .execute(pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_broker_takes_over_where_the_last_consumer_stands_and_nothing_is_lost_or_doubled() {
    let db = database().await;
    let (first, second) = (Recorder::new("first"), Recorder::new("second"));
    let (of_first, of_second) = (local(&db.pool, &first), local(&db.pool, &second));
    let events = history(5, 12);
    commit(&db.pool, &events[..20]).await;
    drain(&of_first).await;
    drain(&of_second).await;
    // The first goes on for a while after the second was stopped.
    commit(&db.pool, &events[20..40]).await;
    drain(&of_first).await;

    let broker = Arc::new(Broker::default());
    let published = to_broker(&db.pool, &broker);
    assert_eq!(drain(&published).await, 20, "only what is not settled everywhere");
    // The old process still runs beside the new one.
    commit(&db.pool, &events[40..]).await;
    drain(&of_first).await;
    drain(&published).await;
    broker.deliver(&db.pool, &[&first, &second]).await;
    for consumer in FORMER {
        assert_exactly_once_in_order(&db.pool, consumer, &events).await;
    }
}

#[tokio::test]
async fn a_broker_begins_with_the_oldest_event_when_a_consumer_has_seen_none() {
    let db = database().await;
    let (first, second) = (Recorder::new("first"), Recorder::new("second"));
    let events = history(3, 10);
    commit(&db.pool, &events).await;
    drain(&local(&db.pool, &first)).await;

    let broker = Arc::new(Broker::default());
    assert_eq!(drain(&to_broker(&db.pool, &broker)).await, events.len());
    broker.deliver(&db.pool, &[&first, &second]).await;
    for consumer in FORMER {
        assert_exactly_once_in_order(&db.pool, consumer, &events).await;
    }
}

#[tokio::test]
async fn what_a_broker_still_kept_reaches_the_consumers_that_come_after_it() {
    let db = database().await;
    let (first, second) = (Recorder::new("first"), Recorder::new("second"));
    let events = history(3, 10);
    let broker = Arc::new(Broker::default());
    let published = to_broker(&db.pool, &broker);
    commit(&db.pool, &events[..15]).await;
    drain(&published).await;
    broker.deliver(&db.pool, &[&first, &second]).await;
    commit(&db.pool, &events[15..]).await;
    drain(&published).await;
    // Never delivered: the broker is switched off.
    assert!(!broker.kept.lock().await.is_empty());
    for (name, consumer) in [("first", &first), ("second", &second)] {
        drain(&local(&db.pool, consumer)).await;
        assert_exactly_once_in_order(&db.pool, name, &events).await;
    }
}

#[tokio::test]
async fn cursors_of_the_former_kind_go_when_nobody_attends_to_them_and_no_sooner() {
    let db = database().await;
    let (first, second) = (Recorder::new("first"), Recorder::new("second"));
    let (of_first, of_second) = (local(&db.pool, &first), local(&db.pool, &second));
    drain(&of_first).await;
    drain(&of_second).await;
    let broker = Arc::new(Broker::default());
    let published = to_broker(&db.pool, &broker);
    drain(&published).await;

    // While the old processes are being replaced.
    published.attend().await.unwrap();
    assert_eq!(names(&db.pool).await, ["broker", "first", "second"]);

    // One of them still runs.
    abandon(&db.pool, FORMER).await;
    of_first.attend().await.unwrap();
    published.attend().await.unwrap();
    assert_eq!(names(&db.pool).await, ["broker", "first"]);

    abandon(&db.pool, FORMER).await;
    published.attend().await.unwrap();
    assert_eq!(names(&db.pool).await, ["broker"]);

    // And back: the broker's goes only when every consumer has a place of its own.
    abandon(&db.pool, OWN).await;
    let of_first = local(&db.pool, &first);
    drain(&of_first).await;
    of_first.attend().await.unwrap();
    assert_eq!(names(&db.pool).await, ["broker", "first"]);
    drain(&local(&db.pool, &second)).await;
    of_first.attend().await.unwrap();
    assert_eq!(names(&db.pool).await, ["first", "second"]);
}

#[tokio::test]
async fn a_relay_whose_cursor_was_removed_does_nothing_and_then_makes_it_again() {
    let db = database().await;
    let (first, second) = (Recorder::new("first"), Recorder::new("second"));
    let of_first = local(&db.pool, &first);
    let events = history(3, 10);
    commit(&db.pool, &events[..10]).await;
    drain(&of_first).await;
    drain(&local(&db.pool, &second)).await;
    let broker = Arc::new(Broker::default());
    let published = to_broker(&db.pool, &broker);
    drain(&published).await;
    abandon(&db.pool, FORMER).await;
    published.attend().await.unwrap();

    commit(&db.pool, &events[10..]).await;
    assert_eq!(drain(&of_first).await, 0, "there is no place to read from");
    of_first.attend().await.unwrap();
    drain(&of_first).await;
    drain(&published).await;
    broker.deliver(&db.pool, &[&first, &second]).await;
    for consumer in FORMER {
        assert_exactly_once_in_order(&db.pool, consumer, &events).await;
    }
}

#[tokio::test]
async fn old_days_go_once_the_cursor_that_held_them_is_removed() {
    let db = database().await;
    let kept = Recorder::new("first");
    let of_kept = relay(&db.pool, &kept);
    sqlx::query("INSERT INTO relay_cursor (name) VALUES ('given-up')")
        .execute(&db.pool)
        .await
        .unwrap();
    commit(&db.pool, &history(1, 1)).await;
    drain(&of_kept).await;
    of_kept.attend().await.unwrap();
    sqlx::query("UPDATE outbox SET created_at = created_at - interval '30 days'")
        .execute(&db.pool)
        .await
        .unwrap();
    let swept = || async {
        partitions::drop_older(&db.pool, Retention::default())
            .await
            .unwrap()
            .swept
    };
    assert_eq!(swept().await, 0);

    assert_eq!(cursors::remove(&db.pool, "nobody").await.unwrap(), Removal::Missing);
    assert_eq!(cursors::remove(&db.pool, "first").await.unwrap(), Removal::Attended);
    assert_eq!(cursors::remove(&db.pool, "given-up").await.unwrap(), Removal::Attended);
    let listed = cursors::list(&db.pool).await.unwrap();
    assert_eq!(listed[0].oldest_beyond, None);
    assert!(listed[1].name == "given-up" && listed[1].oldest_beyond.is_some());
    abandon(&db.pool, &["given-up"]).await;
    assert_eq!(cursors::remove(&db.pool, "given-up").await.unwrap(), Removal::Removed);
    assert_eq!(swept().await, 1);
}
