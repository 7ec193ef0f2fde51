//! One consumer and what can go wrong with it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::PgPool;
use todo_events::dead_letters::{self, Page, Selector};
use todo_events::host::{self, Outcome, Stopped};
use todo_events::{Consumer, Event};
use uuid::Uuid;

use crate::support::{
    Fault, Recorder, assert_exactly_once_in_order, database, delivered, history, new_event, recorded, retry,
};

async fn queue(pool: &PgPool) -> Vec<dead_letters::DeadLetter> {
    dead_letters::list(pool, &Selector::default(), Page { after: 0, limit: 1000 })
        .await
        .unwrap()
}

#[tokio::test]
async fn a_delivery_that_comes_again_changes_nothing() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let written = history(5, 2);
    let events = delivered(&written);
    let first = host::apply(&db.pool, &*recorder, &events[..6], &retry()).await.unwrap();
    assert_eq!(
        first,
        Outcome {
            applied: 6,
            ..Outcome::default()
        }
    );
    let second = host::apply(&db.pool, &*recorder, &events, &retry()).await.unwrap();
    assert_eq!(
        second,
        Outcome {
            applied: 4,
            duplicate: 6,
            ..Outcome::default()
        }
    );
    assert_exactly_once_in_order(&db.pool, "recorder", &written).await;
}

#[tokio::test]
async fn an_event_that_stands_twice_in_a_batch_is_handled_once() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let written = history(2, 1);
    let once = delivered(&written);
    let twice = [once.clone(), once].concat();
    let outcome = host::apply(&db.pool, &*recorder, &twice, &retry()).await.unwrap();
    assert_eq!(
        outcome,
        Outcome {
            applied: 2,
            duplicate: 2,
            ..Outcome::default()
        }
    );
    assert_exactly_once_in_order(&db.pool, "recorder", &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_batch_in_many_processes_at_once_is_applied_once() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let written = history(20, 5);
    let events = delivered(&written);
    let deliveries = (0..6).map(|_| {
        let (pool, recorder, events) = (db.pool.clone(), recorder.clone(), events.clone());
        tokio::spawn(async move { host::apply(&pool, &*recorder, &events, &retry()).await.unwrap() })
    });
    let mut total = Outcome::default();
    for delivery in deliveries.collect::<Vec<_>>() {
        total += delivery.await.unwrap();
    }
    assert_eq!(
        total,
        Outcome {
            applied: 100,
            duplicate: 500,
            ..Outcome::default()
        }
    );
    assert_exactly_once_in_order(&db.pool, "recorder", &written).await;
}

#[tokio::test]
async fn a_poisonous_event_is_isolated_and_its_task_waits_behind_it() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let written = history(100, 3);
    // Version 2 of the eighth task.
    let poison = &written[107];
    recorder.fail_on(poison.id, Fault::Permanent, u32::MAX);
    let outcome = host::apply(&db.pool, &*recorder, &delivered(&written), &retry())
        .await
        .unwrap();
    assert_eq!(
        outcome,
        Outcome {
            applied: 298,
            duplicate: 0,
            dead: 1,
            parked: 1
        }
    );

    let healthy: Vec<_> = written
        .iter()
        .filter(|event| event.subject != poison.subject || event.version == 1)
        .cloned()
        .collect();
    assert_exactly_once_in_order(&db.pool, "recorder", &healthy).await;
    let queue = queue(&db.pool).await;
    assert_eq!(queue.len(), 2);
    assert_eq!(
        (queue[0].event_id, queue[0].parked_behind, queue[0].attempts),
        (poison.id, None, 1)
    );
    assert_eq!(queue[0].error, "poison");
    assert_eq!(
        (queue[1].subject, queue[1].version, queue[1].attempts),
        (poison.subject, 3, 0)
    );
    assert_eq!(queue[1].parked_behind, Some(poison.id));
    assert_eq!(queue[0].event["data"]["task_id"], poison.subject.to_string());

    // A later event of the task joins the queue, one that comes again changes nothing.
    let later = new_event(poison.subject, 4);
    let again = delivered(&[poison.clone(), later]);
    let outcome = host::apply(&db.pool, &*recorder, &again, &retry()).await.unwrap();
    assert_eq!(
        outcome,
        Outcome {
            parked: 2,
            ..Outcome::default()
        }
    );
    assert_eq!(dead_letters::count(&db.pool).await.unwrap(), 3);
    assert_eq!(settled_twice(&db.pool).await, 0);
}

/// Events of which the inbox says that they were applied and the dead letters that they were not.
async fn settled_twice(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM inbox JOIN dead_letters USING (consumer, event_id)")
        .fetch_one(pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn one_consumers_poison_is_no_others() {
    let db = database().await;
    let (sick, healthy) = (Recorder::new("sick"), Recorder::new("healthy"));
    let written = history(1, 3);
    sick.fail_on(written[0].id, Fault::Permanent, u32::MAX);
    for recorder in [&sick, &healthy] {
        host::apply(&db.pool, &**recorder, &delivered(&written), &retry())
            .await
            .unwrap();
    }
    assert!(recorded(&db.pool, "sick").await.is_empty());
    assert_exactly_once_in_order(&db.pool, "healthy", &written).await;
}

#[tokio::test]
async fn a_failure_is_tried_five_times_and_a_permanent_one_once() {
    for (fault, times, dead, attempts) in [
        (Fault::Failed, 4, 0, 0),
        (Fault::Failed, 5, 1, 5),
        (Fault::Panic, 4, 0, 0),
        (Fault::Panic, 5, 1, 5),
        (Fault::Swallow, 4, 0, 0),
        (Fault::Swallow, 5, 1, 5),
        (Fault::Permanent, 1, 1, 1),
        (Fault::Transient, 50, 0, 0),
    ] {
        let db = database().await;
        let recorder = Recorder::new("recorder");
        let written = history(1, 1);
        recorder.fail_on(written[0].id, fault, times);
        let outcome = host::apply(&db.pool, &*recorder, &delivered(&written), &retry())
            .await
            .unwrap();
        assert_eq!(
            outcome,
            Outcome {
                applied: 1 - dead,
                dead,
                ..Outcome::default()
            },
            "{fault:?} × {times}"
        );
        assert_eq!(recorder.faults_left(written[0].id), 0, "{fault:?} × {times}");
        assert_eq!(
            recorded(&db.pool, "recorder").await.len() as u64,
            1 - dead,
            "{fault:?} × {times}"
        );
        assert_eq!(
            queue(&db.pool).await.first().map_or(0, |letter| letter.attempts),
            attempts,
            "{fault:?} × {times}"
        );
    }
}

#[tokio::test]
async fn a_lost_connection_is_waited_out() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let written = history(3, 2);
    // Its table is locked, so that the delivery hangs until its connection is killed.
    let mut holder = db.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE recorded").execute(&mut *holder).await.unwrap();
    let delivery = tokio::spawn({
        let (pool, recorder, events) = (db.pool.clone(), recorder.clone(), delivered(&written));
        async move { host::apply(&pool, &*recorder, &events, &retry()).await }
    });
    crate::support::until(async || {
        let killed: Vec<bool> = sqlx::query_scalar(
            "SELECT pg_terminate_backend(pid)
             FROM pg_stat_activity
             WHERE datname = current_database()
               AND wait_event_type = 'Lock'",
        )
        .fetch_all(&db.pool)
        .await
        .unwrap();
        !killed.is_empty()
    })
    .await;
    holder.rollback().await.unwrap();
    assert_eq!(delivery.await.unwrap().unwrap().applied, 6);
    assert_exactly_once_in_order(&db.pool, "recorder", &written).await;
    assert_eq!(
        dead_letters::count(&db.pool).await.unwrap(),
        0,
        "it was not the events' fault"
    );
}

#[tokio::test]
async fn shutdown_ends_the_waiting_for_better_times() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let written = history(1, 1);
    recorder.fail_on(written[0].id, Fault::Transient, u32::MAX);
    let patience = retry();
    let shutdown = patience.shutdown.clone();
    let events = delivered(&written);
    let (outcome, ()) = tokio::join!(host::apply(&db.pool, &*recorder, &events, &patience), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        shutdown.cancel();
    });
    assert_eq!(outcome, Err(Stopped));
    assert_eq!(dead_letters::count(&db.pool).await.unwrap(), 0);
}

/// A history, how it is cut into deliveries, which events come again, and which are poison.
#[derive(Debug, Clone)]
struct Story {
    tasks: usize,
    versions: i64,
    cuts: Vec<usize>,
    repeats: Vec<usize>,
    poison: Vec<usize>,
}

fn stories() -> impl Strategy<Value = Story> {
    (1..6_usize, 1..6_i64).prop_flat_map(|(tasks, versions)| {
        let events = tasks * usize::try_from(versions).unwrap();
        (
            prop::collection::vec(0..events, 0..4),
            prop::collection::vec(0..events, 0..4),
            prop::collection::vec(0..events, 0..4),
        )
            .prop_map(move |(cuts, repeats, poison)| Story {
                tasks,
                versions,
                cuts,
                repeats,
                poison,
            })
    })
}

/// Whatever is poison and however often deliveries are cut and repeated: each task's applied events are
/// what comes before its first poison, the rest is in its queue, and once the consumer is well a replay
/// ends with everything applied once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn any_story_ends_with_everything_applied_once_in_order() {
    let db = database().await;
    let runtime = tokio::runtime::Handle::current();
    let mut runner = TestRunner::new(Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    });
    tokio::task::block_in_place(|| {
        runner
            .run(&stories(), |story| {
                runtime.block_on(tell(&db.pool, story));
                Ok(())
            })
            .unwrap();
    });
}

async fn tell(pool: &PgPool, story: Story) {
    let name: &'static str = format!("consumer {}", Uuid::now_v7()).leak();
    let recorder = Recorder::new(name);
    let written = history(story.tasks, story.versions);
    let events = delivered(&written);
    for &poison in &story.poison {
        recorder.fail_on(events[poison].id, Fault::Permanent, u32::MAX);
    }
    let mut cuts = story.cuts.clone();
    cuts.extend([0, events.len()]);
    cuts.sort_unstable();
    for cut in cuts.windows(2) {
        // A delivery begins again at any earlier place, as after a crash.
        let from = story
            .repeats
            .iter()
            .copied()
            .find(|&repeat| repeat < cut[0])
            .unwrap_or(cut[0]);
        host::apply(pool, &*recorder, &events[from..cut[1]], &retry())
            .await
            .unwrap();
    }

    let mut poisoned: HashMap<Uuid, i64> = HashMap::new();
    for event in story.poison.iter().map(|&place| &events[place]) {
        let first = poisoned.entry(event.subject).or_insert(event.version);
        *first = event.version.min(*first);
    }
    let expected = |event: &&Event| poisoned.get(&event.subject).is_none_or(|&first| event.version < first);
    let applied: HashSet<_> = recorded(pool, name).await.into_iter().map(|(id, ..)| id).collect();
    assert_eq!(
        applied,
        events.iter().filter(expected).map(|event| event.id).collect(),
        "{story:?}"
    );

    recorder.heal();
    let selector = Selector {
        consumer: Some(name.to_owned()),
        ..Selector::default()
    };
    let consumers: [std::sync::Arc<dyn Consumer>; 1] = [recorder.clone()];
    let replayed = dead_letters::replay(pool, &consumers, &selector).await.unwrap();
    assert_eq!(
        (replayed.applied, replayed.failed),
        ((events.len() - applied.len()) as u64, 0),
        "{story:?}"
    );
    assert_exactly_once_in_order(pool, name, &written).await;
    assert_eq!(settled_twice(pool).await, 0);
}
