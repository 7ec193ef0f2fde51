//! Alarm clocks: the scheduler holds what the reminders say, and whatever it does, reminders go out without it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan};
use serde_json::json;
use sqlx::PgPool;
use todo_events::{BoxFuture, Waker};
use todo_tasks::task;
use todo_test_db::TestDb;
use todo_worker::{AlarmClock, AlarmError, Role, Settings, ring};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{PATIENCE, alice, count, create, wait_for};

const WORKING: u8 = 0;
const REFUSING: u8 = 1;
const HANGING: u8 = 2;

/// A scheduler that does what it is told, refuses it or hangs, and remembers its jobs.
#[derive(Debug, Default)]
struct Scheduler {
    mood: AtomicU8,
    calls: AtomicUsize,
    jobs: Mutex<BTreeMap<String, Timestamp>>,
}

impl Scheduler {
    fn set_mood(&self, mood: u8) {
        self.mood.store(mood, Ordering::SeqCst);
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn jobs(&self) -> BTreeMap<String, Timestamp> {
        self.jobs.lock().unwrap().clone()
    }

    async fn answer(&self) -> Result<(), AlarmError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.mood.load(Ordering::SeqCst) {
            WORKING => Ok(()),
            REFUSING => Err("not now".into()),
            _ => std::future::pending().await,
        }
    }
}

impl AlarmClock for Scheduler {
    fn set<'a>(&'a self, name: &'a str, at: Timestamp) -> BoxFuture<'a, Result<(), AlarmError>> {
        Box::pin(async move {
            self.answer().await?;
            self.jobs.lock().unwrap().insert(name.to_owned(), at);
            Ok(())
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), AlarmError>> {
        Box::pin(async move {
            self.answer().await?;
            self.jobs.lock().unwrap().remove(name);
            Ok(())
        })
    }
}

/// The role reminders with an alarm clock, as a process of its own would run it.
struct Running {
    waker: Waker,
    shutdown: CancellationToken,
    worker: JoinHandle<()>,
}

impl Running {
    fn start(pool: &PgPool, scheduler: &Arc<Scheduler>) -> Self {
        let (waker, shutdown) = (Waker::new(), CancellationToken::new());
        let clock: Arc<dyn AlarmClock> = Arc::clone(scheduler) as _;
        let settings = Settings {
            roles: [Role::Reminders].into(),
            alarms: Some(clock),
            ..Settings::default()
        };
        let run = todo_worker::run(pool.clone(), waker.clone(), settings, shutdown.clone());
        Self {
            waker,
            shutdown,
            worker: tokio::spawn(run),
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.worker).await.unwrap().unwrap();
    }
}

async fn remind_in(pool: &PgPool, seconds: i64) -> task::Task {
    let at = Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap();
    let due = json!({"title": "call", "due": {"at": at}, "reminders": [{"before": "0s"}]});
    create(pool, due).await
}

fn job_of(task: &task::Task) -> (String, Timestamp) {
    (
        format!("reminder-{}", task.reminders[0].id),
        task.due.as_ref().unwrap().at,
    )
}

/// Waits until the scheduler's jobs are exactly these.
async fn wait_for_jobs(scheduler: &Scheduler, expected: impl IntoIterator<Item = (String, Timestamp)>) {
    let expected: BTreeMap<_, _> = expected.into_iter().collect();
    let deadline = Instant::now() + PATIENCE;
    while scheduler.jobs() != expected {
        assert!(
            Instant::now() < deadline,
            "never {expected:?}, but {:?}",
            scheduler.jobs()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn move_to(pool: &PgPool, task: &task::Task, at: Timestamp) -> task::Task {
    let mut tx = pool.begin().await.unwrap();
    let alice = alice();
    let moved = task::change(&mut tx, &alice, task.id, None, |input| {
        let due = serde_json::from_value(json!({"at": at})).unwrap();
        Ok::<_, todo_tasks::Error>(task::TaskInput {
            due: Some(due),
            ..input
        })
    });
    let moved = moved.await.unwrap();
    tx.commit().await.unwrap();
    moved
}

#[tokio::test]
async fn the_schedulers_jobs_follow_the_reminders_whichever_copy_tells_it() {
    let db = TestDb::new().await;
    let scheduler = Arc::new(Scheduler::default());
    let copies = [
        Running::start(&db.pool, &scheduler),
        Running::start(&db.pool, &scheduler),
    ];
    let mut tasks = Vec::new();
    for number in 0..40 {
        tasks.push(remind_in(&db.pool, 3600 + number).await);
    }
    copies[0].waker.wake(todo_events::Channel::Reminders);
    wait_for_jobs(&scheduler, tasks.iter().map(job_of)).await;

    for task in tasks.iter_mut().take(10) {
        *task = move_to(&db.pool, task, job_of(task).1 + 1.hour()).await;
    }
    let mut tx = db.pool.begin().await.unwrap();
    task::delete(&mut tx, &alice(), tasks.remove(20).id, None)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    task::complete(&mut tx, &alice(), tasks.remove(21).id, None)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    copies[1].waker.wake(todo_events::Channel::Reminders);
    wait_for_jobs(&scheduler, tasks.iter().map(job_of)).await;
    wait_for_settled(&db.pool).await;
    let calls = scheduler.calls();
    assert!(
        (52..=60).contains(&calls),
        "{calls} calls for 40 set, 10 moved, 2 removed"
    );
    for copy in copies {
        copy.stop().await;
    }
}

/// Waits until the books say that all is as it should be.
async fn wait_for_settled(pool: &PgPool) {
    let settled =
        "SELECT (count(*) FILTER (WHERE (wanted_at = set_to) IS NOT TRUE) = 0)::int::bigint FROM reminder_alarm";
    wait_for(pool, settled, 1).await;
}

#[tokio::test]
async fn a_reminder_goes_out_once_and_on_time_while_the_scheduler_hangs() {
    let db = TestDb::new().await;
    let scheduler = Arc::new(Scheduler::default());
    scheduler.set_mood(HANGING);
    let running = Running::start(&db.pool, &scheduler);
    for _ in 0..30 {
        remind_in(&db.pool, 2).await;
    }
    let later = remind_in(&db.pool, 3600).await;
    running.waker.wake(todo_events::Channel::Reminders);
    wait_for(&db.pool, "SELECT count(*) FROM notifications", 30).await;
    assert!(scheduler.calls() > 0, "it was being told all the while");
    let slowest = "SELECT max(extract(epoch FROM sent_at - fire_at))::bigint FROM reminders WHERE sent_at IS NOT NULL";
    let slowest = count(&db.pool, slowest).await;
    assert!(slowest <= 5, "{slowest} s late");
    assert_eq!(count(&db.pool, "SELECT count(*) FROM notifications").await, 30);

    // Back again: what was under way is handed back, and told by whoever comes next.
    running.stop().await;
    scheduler.set_mood(WORKING);
    let next = Running::start(&db.pool, &scheduler);
    wait_for_jobs(&scheduler, [job_of(&later)]).await;
    next.stop().await;
}

#[tokio::test]
async fn a_scheduler_that_refuses_is_left_alone_and_told_when_it_is_back() {
    let db = TestDb::new().await;
    let scheduler = Arc::new(Scheduler::default());
    scheduler.set_mood(REFUSING);
    let mut tasks = Vec::new();
    for _ in 0..40 {
        tasks.push(remind_in(&db.pool, 3600).await);
    }
    let running = Running::start(&db.pool, &scheduler);
    wait_for(
        &db.pool,
        "SELECT count(*) FROM reminder_alarm WHERE claim IS NOT NULL",
        1,
    )
    .await;
    for _ in 0..20 {
        running.waker.wake(todo_events::Channel::Reminders);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let calls = scheduler.calls();
    assert!(calls <= 16 + 3, "{calls} calls in two seconds to one that takes none");
    scheduler.set_mood(WORKING);
    wait_for_jobs(&scheduler, tasks.iter().map(job_of)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_scheduler_that_was_wiped_is_told_again_by_whoever_starts() {
    let db = TestDb::new().await;
    let scheduler = Arc::new(Scheduler::default());
    let task = remind_in(&db.pool, 1800).await;
    let first = Running::start(&db.pool, &scheduler);
    wait_for_jobs(&scheduler, [job_of(&task)]).await;
    wait_for_settled(&db.pool).await;
    first.stop().await;
    scheduler.jobs.lock().unwrap().clear();
    let second = Running::start(&db.pool, &scheduler);
    wait_for_jobs(&scheduler, [job_of(&task)]).await;
    second.stop().await;
}

#[tokio::test]
async fn an_alarm_only_wakes_however_often_it_rings() {
    let db = TestDb::new().await;
    let scheduler = Arc::new(Scheduler::default());
    let task = remind_in(&db.pool, 3600).await;
    let running = Running::start(&db.pool, &scheduler);
    let (name, _) = job_of(&task);
    wait_for_jobs(&scheduler, [job_of(&task)]).await;
    for _ in 0..50 {
        ring(&running.waker, &name);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        count(&db.pool, "SELECT count(*) FROM notifications").await,
        0,
        "it is not due"
    );

    // Due behind the worker's back, which would look by itself within five seconds.
    sqlx::query("UPDATE reminders SET fire_at = now()")
        .execute(&db.pool)
        .await
        .unwrap();
    let started = Instant::now();
    ring(&running.waker, "somebody-elses-job");
    for _ in 0..50 {
        ring(&running.waker, &name);
    }
    wait_for(&db.pool, "SELECT count(*) FROM notifications", 1).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    wait_for_jobs(&scheduler, []).await;
    assert_eq!(count(&db.pool, "SELECT count(*) FROM notifications").await, 1);
    running.stop().await;
}
