//! Rebuilding what a consumer derived.

use std::collections::HashMap;

use jiff::{Timestamp, ToSpan};
use sqlx::PgPool;
use todo_events::host::Outcome;
use todo_events::replay::{self, Progress};
use todo_events::{Bus, Error, NewEvent, dead_letters, outbox};
use uuid::Uuid;

use crate::support::{
    Fault, Recorder, assert_exactly_once_in_order, commit, database, drain, history, local_bus, new_event, recorded,
    relay, retry, until,
};

fn long_ago() -> Timestamp {
    Timestamp::now().checked_sub(24.hours()).unwrap()
}

/// When the database says that this event was written.
async fn time_of(pool: &PgPool, event: &NewEvent) -> Timestamp {
    let time: jiff_sqlx::Timestamp = sqlx::query_scalar("SELECT created_at FROM outbox WHERE id = $1")
        .bind(event.id)
        .fetch_one(pool)
        .await
        .unwrap();
    time.to_jiff()
}

#[tokio::test]
async fn a_rebuild_ends_where_the_original_was() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let events = history(250, 10);
    commit(&db.pool, &events).await;
    drain(&relay(&db.pool, &recorder)).await;
    let original = recorded(&db.pool, "recorder").await;
    sqlx::query("DELETE FROM recorded WHERE version = 7")
        .execute(&db.pool)
        .await
        .unwrap();

    let mut seen = vec![];
    let outcome = replay::since(&db.pool, &*recorder, long_ago(), &retry(), |progress| {
        seen.push(progress);
    })
    .await
    .unwrap();
    assert_eq!(
        outcome,
        Outcome {
            applied: 2500,
            ..Outcome::default()
        }
    );
    assert_eq!(recorded(&db.pool, "recorder").await, original);
    let steps = [0, 1000, 2000, 2500].map(|done| Progress { done, total: 2500 });
    assert_eq!(seen, steps);
}

#[tokio::test]
async fn a_rebuild_leaves_what_is_older_and_what_is_others_alone() {
    let db = database().await;
    let (recorder, other) = (Recorder::new("recorder"), Recorder::new("other"));
    let subject = Uuid::now_v7();
    let events: Vec<_> = (1..=4).map(|version| new_event(subject, version)).collect();
    for event in &events {
        commit(&db.pool, std::slice::from_ref(event)).await;
    }
    drain(&relay(&db.pool, &recorder)).await;
    drain(&relay(&db.pool, &other)).await;
    let others = recorded(&db.pool, "other").await;

    let since = time_of(&db.pool, &events[2]).await;
    let outcome = replay::since(&db.pool, &*recorder, since, &retry(), |_| ())
        .await
        .unwrap();
    assert_eq!(outcome.applied, 2);
    assert_exactly_once_in_order(&db.pool, "recorder", &events).await;
    assert_eq!(recorded(&db.pool, "other").await, others);
}

#[tokio::test]
async fn a_rebuild_keeps_the_order_of_transactions_that_ran_beside_each_other() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let [early, late] = [1, 1].map(|version| new_event(Uuid::now_v7(), version));
    // It begins first, and writes last.
    let mut slow = db.pool.begin().await.unwrap();
    sqlx::query("SELECT now()").execute(&mut *slow).await.unwrap();
    commit(&db.pool, std::slice::from_ref(&late)).await;
    outbox::append(&mut slow, std::slice::from_ref(&early)).await.unwrap();
    slow.commit().await.unwrap();
    let since = time_of(&db.pool, &late).await;
    assert!(time_of(&db.pool, &early).await < since);
    drain(&relay(&db.pool, &recorder)).await;
    let original = recorded(&db.pool, "recorder").await;

    let outcome = replay::since(&db.pool, &*recorder, since, &retry(), |_| ())
        .await
        .unwrap();
    assert_eq!(outcome.applied, 2);
    assert_eq!(recorded(&db.pool, "recorder").await, original);
}

#[tokio::test]
async fn a_rebuild_that_is_interrupted_changes_nothing() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let events = history(3, 2);
    commit(&db.pool, &events).await;
    drain(&relay(&db.pool, &recorder)).await;
    let original = recorded(&db.pool, "recorder").await;
    recorder.fail_on(events[5].id, Fault::Transient, 1);
    let interrupted = replay::since(&db.pool, &*recorder, long_ago(), &retry(), |_| ()).await;
    assert!(matches!(interrupted, Err(Error::Interrupted(_))));
    assert_eq!(recorded(&db.pool, "recorder").await, original);
    replay::since(&db.pool, &*recorder, long_ago(), &retry(), |_| ())
        .await
        .unwrap();
    assert_exactly_once_in_order(&db.pool, "recorder", &events).await;
}

#[tokio::test]
async fn a_rebuild_survives_poison_and_takes_in_what_was_dead() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let events = history(3, 3);
    let (dead, poison) = (&events[0], &events[4]);
    recorder.fail_on(dead.id, Fault::Permanent, u32::MAX);
    commit(&db.pool, &events).await;
    drain(&relay(&db.pool, &recorder)).await;
    assert_eq!(dead_letters::count(&db.pool).await.unwrap(), 3);

    recorder.heal();
    recorder.fail_on(poison.id, Fault::Permanent, u32::MAX);
    let outcome = replay::since(&db.pool, &*recorder, long_ago(), &retry(), |_| ())
        .await
        .unwrap();
    assert_eq!(
        outcome,
        Outcome {
            applied: 7,
            duplicate: 0,
            dead: 1,
            parked: 1
        }
    );
    let healthy: Vec<_> = events
        .iter()
        .filter(|event| event.subject != poison.subject || event.version == 1)
        .cloned()
        .collect();
    assert_exactly_once_in_order(&db.pool, "recorder", &healthy).await;
    assert_eq!(dead_letters::count(&db.pool).await.unwrap(), 2);
}

#[tokio::test]
async fn a_task_with_an_older_dead_letter_stays_parked() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let subject = Uuid::now_v7();
    let events: Vec<_> = (1..=3).map(|version| new_event(subject, version)).collect();
    recorder.fail_on(events[0].id, Fault::Permanent, u32::MAX);
    for event in &events {
        commit(&db.pool, std::slice::from_ref(event)).await;
    }
    drain(&relay(&db.pool, &recorder)).await;
    let since = time_of(&db.pool, &events[1]).await;
    let outcome = replay::since(&db.pool, &*recorder, since, &retry(), |_| ())
        .await
        .unwrap();
    assert_eq!(
        outcome,
        Outcome {
            parked: 2,
            ..Outcome::default()
        }
    );
    assert!(recorded(&db.pool, "recorder").await.is_empty());
    assert_eq!(dead_letters::count(&db.pool).await.unwrap(), 3);
}

/// Events that a consumer had applied when the relay died, before its cursor passed them.
#[tokio::test]
async fn what_was_applied_beyond_the_cursor_is_rebuilt_too() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let events = history(2, 2);
    commit(&db.pool, &events[..2]).await;
    drain(&relay(&db.pool, &recorder)).await;
    commit(&db.pool, &events[2..]).await;
    let mut beyond = crate::support::delivered(&events[2..]);
    for event in &mut beyond {
        event.time = Timestamp::now();
    }
    local_bus(&db.pool, &recorder).publish(&beyond).await.unwrap();

    replay::since(&db.pool, &*recorder, long_ago(), &retry(), |_| ())
        .await
        .unwrap();
    drain(&relay(&db.pool, &recorder)).await;
    assert_exactly_once_in_order(&db.pool, "recorder", &events).await;
}

#[tokio::test]
async fn a_rebuild_from_before_what_is_kept_is_refused() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let events = history(1, 2);
    commit(&db.pool, &events).await;
    drain(&relay(&db.pool, &recorder)).await;
    sqlx::query("UPDATE outbox_retained SET retained_from = now() - interval '14 days'")
        .execute(&db.pool)
        .await
        .unwrap();
    let too_early = Timestamp::now().checked_sub((24 * 15).hours()).unwrap();
    let refused = replay::since(&db.pool, &*recorder, too_early, &retry(), |_| ()).await;
    assert!(matches!(refused, Err(Error::NotRetained { .. })));
    assert_exactly_once_in_order(&db.pool, "recorder", &events).await;
    replay::since(&db.pool, &*recorder, long_ago(), &retry(), |_| ())
        .await
        .unwrap();
}

/// Readers look while it runs, the relay goes on meanwhile, and a delivery comes that no cursor holds.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_half_a_rebuild_and_live_events_come_after_it() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let mut events = history(300, 10);
    let (kept, live) = events.split_at(2700);
    commit(&db.pool, kept).await;
    drain(&relay(&db.pool, &recorder)).await;
    let live = live.to_vec();

    let rebuild = tokio::spawn({
        let (pool, recorder) = (db.pool.clone(), recorder.clone());
        async move { replay::since(&pool, &*recorder, long_ago(), &retry(), |_| ()).await }
    });
    until(async || {
        let locked: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))")
            .fetch_one(&db.pool)
            .await
            .unwrap();
        locked || rebuild.is_finished()
    })
    .await;
    commit(&db.pool, &live).await;
    let bus = local_bus(&db.pool, &recorder);
    let mut uncursored = crate::support::delivered(&live);
    for event in &mut uncursored {
        event.time = Timestamp::now();
    }
    let delivery = tokio::spawn(async move { bus.publish(&uncursored).await });
    while !rebuild.is_finished() {
        let seen = recorded(&db.pool, "recorder").await.len();
        assert!(seen >= kept_count(), "a reader saw {seen} events");
    }
    assert_eq!(rebuild.await.unwrap().unwrap().applied, 2700);
    delivery.await.unwrap().unwrap();
    drain(&relay(&db.pool, &recorder)).await;
    events.sort_by_key(|event| event.id);
    assert_exactly_once_in_order(&db.pool, "recorder", &events).await;
    let per_task: HashMap<Uuid, usize> =
        recorded(&db.pool, "recorder")
            .await
            .into_iter()
            .fold(HashMap::new(), |mut counts, (_, subject, _)| {
                *counts.entry(subject).or_default() += 1;
                counts
            });
    assert!(per_task.values().all(|&count| count == 10));
}

const fn kept_count() -> usize {
    2700
}
