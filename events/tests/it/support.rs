//! A consumer that writes down what it is given, and the shortest ways to make events.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use todo_events::backoff::Backoff;
use todo_events::host::Retry;
use todo_events::relay::{Pass, Settings};
use todo_events::{
    BoxFuture, Bus, Consumer, Error, Event, EventType, HandleError, LocalBus, NewEvent, Relay, Topic, Waker, outbox,
};
use todo_test_db::TestDb;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How the recorder fails when it meets a certain event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Permanent,
    Failed,
    Transient,
    Panic,
    /// It runs into an SQL error and says that all went well.
    Swallow,
}

/// Writes each event into the table `recorded`, in the order in which it comes.
pub(crate) struct Recorder {
    name: &'static str,
    topics: &'static [Topic],
    faults: Mutex<HashMap<Uuid, (Fault, u32)>>,
}

impl Recorder {
    pub(crate) fn new(name: &'static str) -> Arc<Self> {
        Self::subscribed_to(name, &[Topic::TaskEvents])
    }

    pub(crate) fn subscribed_to(name: &'static str, topics: &'static [Topic]) -> Arc<Self> {
        Arc::new(Self {
            name,
            topics,
            faults: Mutex::default(),
        })
    }

    /// From now on fails on this event, this many times.
    pub(crate) fn fail_on(&self, event: Uuid, fault: Fault, times: u32) {
        self.faults.lock().unwrap().insert(event, (fault, times));
    }

    pub(crate) fn heal(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// How many failures it still has in store for this event.
    pub(crate) fn faults_left(&self, event: Uuid) -> u32 {
        self.faults.lock().unwrap().get(&event).map_or(0, |&(_, left)| left)
    }

    fn next_fault(&self, events: &[Event]) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        events.iter().find_map(|event| {
            let (fault, left) = faults.get_mut(&event.id)?;
            *left = left.checked_sub(1)?;
            Some(*fault)
        })
    }
}

impl Consumer for Recorder {
    fn name(&self) -> &'static str {
        self.name
    }

    fn topics(&self) -> &'static [Topic] {
        self.topics
    }

    fn handle<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<(), HandleError>> {
        Box::pin(async move {
            let ids: Vec<_> = events.iter().map(|event| event.id).collect();
            let subjects: Vec<_> = events.iter().map(|event| event.subject).collect();
            let versions: Vec<_> = events.iter().map(|event| event.version).collect();
            let times: Vec<_> = events
                .iter()
                .map(|event| jiff_sqlx::Timestamp::from(event.time))
                .collect();
            sqlx::query(
                "INSERT INTO recorded (consumer, event_id, subject, version, time)
                 SELECT $1, * FROM unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::timestamptz[])",
            )
            .bind(self.name)
            .bind(&ids)
            .bind(&subjects)
            .bind(&versions)
            .bind(&times)
            .execute(&mut *transaction)
            .await?;
            // After the effect, so that what a failure leaves behind would be seen.
            match self.next_fault(events) {
                None => Ok(()),
                Some(Fault::Permanent) => Err(HandleError::permanent("poison")),
                Some(Fault::Failed) => Err(HandleError::failed("perhaps poison")),
                Some(Fault::Transient) => Err(HandleError::transient("not now")),
                Some(Fault::Panic) => panic!("a consumer's bug"),
                Some(Fault::Swallow) => {
                    let _ = sqlx::query("SELECT 1 / 0").execute(&mut *transaction).await;
                    Ok(())
                }
            }
        })
    }

    fn forget<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        since: Timestamp,
    ) -> BoxFuture<'a, Result<(), HandleError>> {
        Box::pin(async move {
            sqlx::query("DELETE FROM recorded WHERE consumer = $1 AND time >= $2")
                .bind(self.name)
                .bind(jiff_sqlx::Timestamp::from(since))
                .execute(transaction)
                .await?;
            Ok(())
        })
    }
}

/// A database with the recorders' table.
pub(crate) async fn database() -> TestDb {
    let db = TestDb::new().await;
    sqlx::query(
        "CREATE TABLE recorded (
             place bigserial PRIMARY KEY, consumer text, event_id uuid, subject uuid, version bigint, time timestamptz
         )",
    )
    .execute(&db.pool)
    .await
    .unwrap();
    db
}

pub(crate) fn new_event(subject: Uuid, version: i64) -> NewEvent {
    NewEvent {
        id: NewEvent::new_id(),
        event_type: if version == 1 {
            EventType::Created
        } else {
            EventType::Updated
        },
        subject,
        user_id: "ada".to_owned(),
        version,
        actor: "ada".to_owned(),
        data: json!({"title": format!("version {version}")}),
        previous: (version > 1).then(|| json!({"title": format!("version {}", version - 1)})),
        traceparent: None,
    }
}

/// Versions 1 to `versions` of `tasks` tasks, version by version.
pub(crate) fn history(tasks: usize, versions: i64) -> Vec<NewEvent> {
    let subjects: Vec<_> = (0..tasks).map(|_| Uuid::now_v7()).collect();
    (1..=versions)
        .flat_map(|version| subjects.iter().map(move |&subject| new_event(subject, version)))
        .collect()
}

/// Commits these events in one transaction.
pub(crate) async fn commit(pool: &PgPool, events: &[NewEvent]) {
    let mut transaction = pool.begin().await.unwrap();
    outbox::append(&mut transaction, events).await.unwrap();
    transaction.commit().await.unwrap();
}

/// The same events as a consumer would get them, without the outbox.
pub(crate) fn delivered(events: &[NewEvent]) -> Vec<Event> {
    let time = "2026-11-21T08:30:00Z".parse().unwrap();
    events
        .iter()
        .cloned()
        .map(
            |NewEvent {
                 id,
                 event_type,
                 subject,
                 user_id,
                 version,
                 actor,
                 data,
                 previous,
                 traceparent,
             }| Event {
                id,
                event_type,
                subject,
                user_id,
                version,
                actor,
                data,
                previous,
                traceparent,
                time,
            },
        )
        .collect()
}

/// Impatient, so that tests are quick.
pub(crate) fn retry() -> Retry {
    Retry {
        attempts: 5,
        backoff: Backoff {
            first: Duration::from_millis(1),
            max: Duration::from_millis(5),
        },
        shutdown: CancellationToken::new(),
    }
}

pub(crate) fn local_bus(pool: &PgPool, recorder: &Arc<Recorder>) -> Arc<LocalBus> {
    Arc::new(LocalBus::new(
        pool.clone(),
        Arc::clone(recorder) as Arc<dyn Consumer>,
        retry(),
    ))
}

/// A relay to this bus on the cursor of this name.
pub(crate) fn relay_to(pool: &PgPool, cursor: &'static str, bus: Arc<dyn Bus>) -> Relay {
    Relay::new(pool.clone(), cursor, bus, Waker::new(), Settings::default())
}

/// A relay as a process has for each of its consumers.
pub(crate) fn relay(pool: &PgPool, recorder: &Arc<Recorder>) -> Relay {
    relay_to(pool, recorder.name(), local_bus(pool, recorder))
}

/// The next pass that is not held back. Snapshots see the transactions of the whole cluster, so those of
/// other tests hold it back, too.
pub(crate) async fn try_pass(relay: &Relay) -> Result<Pass, Error> {
    loop {
        match relay.pass().await {
            Ok(Pass::HeldBack) => tokio::time::sleep(Duration::from_millis(2)).await,
            pass => return pass,
        }
    }
}

pub(crate) async fn pass(relay: &Relay) -> Pass {
    try_pass(relay).await.unwrap()
}

/// Passes until nothing is left; returns how many events were published.
pub(crate) async fn drain(relay: &Relay) -> usize {
    let mut published = 0;
    loop {
        match pass(relay).await {
            Pass::Published(events) => published += events,
            Pass::Idle => return published,
            other => panic!("{other:?}: nobody else has this cursor"),
        }
    }
}

/// What a recorder has, in its order: `(event, task, version)`.
pub(crate) async fn recorded(pool: &PgPool, consumer: &str) -> Vec<(Uuid, Uuid, i64)> {
    sqlx::query_as("SELECT event_id, subject, version FROM recorded WHERE consumer = $1 ORDER BY place")
        .bind(consumer)
        .fetch_all(pool)
        .await
        .unwrap()
}

/// Waits until a recorder has this many events.
pub(crate) async fn until_recorded(pool: &PgPool, consumer: &str, events: usize) {
    until(async || {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM recorded WHERE consumer = $1")
            .bind(consumer)
            .fetch_one(pool)
            .await
            .unwrap();
        usize::try_from(count).unwrap() >= events
    })
    .await;
}

/// Waits for a condition, a minute at most: machines that run tests are busy.
pub(crate) async fn until(condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting)
        .await
        .expect("nothing happened for a minute");
}

/// Fails unless each of these events was recorded once, and each task's in the order of its versions.
pub(crate) async fn assert_exactly_once_in_order(pool: &PgPool, consumer: &str, events: &[NewEvent]) {
    let recorded = recorded(pool, consumer).await;
    let distinct: HashSet<_> = recorded.iter().map(|&(id, ..)| id).collect();
    assert_eq!(distinct.len(), recorded.len(), "{consumer} applied an event twice");
    assert_eq!(
        distinct,
        events.iter().map(|event| event.id).collect(),
        "{consumer} has other events than were written"
    );
    let mut versions: HashMap<Uuid, i64> = HashMap::new();
    for (_, subject, version) in recorded {
        let before = versions.insert(subject, version).unwrap_or(0);
        assert!(
            version > before,
            "{consumer} got version {version} of {subject} after {before}"
        );
    }
}
