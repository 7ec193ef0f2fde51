//! Reminders with Dapr's scheduler as their alarm clock, whatever the scheduler does: they go out once, in time.
//!
//! The relay and the consumers are not in these stacks: whether a reminder went out, its row and the feed say.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::{Timestamp, ToSpan};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use todo_e2e::client::{Client, HTTP, text};
use todo_e2e::scene::Scene;
use todo_e2e::stack::{Options, Part, Role, Stack};
use todo_e2e::{database, wait_for};

/// How late a reminder may be, in seconds.
const LATEST: f64 = 60.0;
/// Longer than that.
const PATIENCE: Duration = Duration::from_secs(75);

/// The API, and workers of reminders with a scheduler.
struct Trial {
    stack: Stack,
    scene: Scene,
    alice: Client,
    pool: PgPool,
}

impl Trial {
    async fn start(workers: usize) -> Result<Self> {
        let scene = Scene::new()?;
        let options = [Role::Relay, Role::Recurring, Role::Audit]
            .into_iter()
            .fold(Options::default(), |options, role| options.copies(role, 0))
            .copies(Role::Reminders, workers);
        let stack = Stack::start(&scene, options).await?;
        let alice = stack.client(&scene, "alice").await?;
        let pool = database::open(&stack.database_url()?).await?;
        Ok(Self {
            stack,
            scene,
            alice,
            pool,
        })
    }

    /// Makes tasks with a reminder each, all for the instant in so many seconds.
    async fn remind_in(&self, seconds: i64, number: usize) -> Result<Vec<Value>> {
        let mut tasks = Vec::with_capacity(number);
        for _ in 0..number {
            let body =
                json!({"title": "call", "due": {"at": whole_second_in(seconds)}, "reminders": [{"before": "0s"}]});
            tasks.push(self.alice.post("/tasks", &body).await?);
        }
        Ok(tasks)
    }

    /// Waits until so many reminders have gone out, and holds them to the promise: each once, none early, none late.
    async fn all_go_out(&self, expected: i64) -> Result<()> {
        wait_for("reminders to go out", PATIENCE, || async {
            let sent: i64 = self
                .number("SELECT count(*) FROM reminders WHERE sent_at IS NOT NULL")
                .await?;
            Ok((sent >= expected).then_some(()))
        })
        .await?;
        // What would be doubled would be soon.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let told = self
            .number("SELECT count(*) FROM notifications WHERE kind = 'reminder'")
            .await?;
        ensure!(told == expected, "{told} notifications for {expected} reminders");
        let (earliest, latest): (f64, f64) = sqlx::query_as(
            "SELECT min(late)::float8, max(late)::float8
             FROM (SELECT extract(epoch FROM sent_at - fire_at) AS late FROM reminders WHERE sent_at IS NOT NULL) AS sent",
        )
        .fetch_one(&self.pool)
        .await?;
        println!("{expected} reminders, at most {latest:.3} s late");
        ensure!(earliest >= 0.0, "one was {earliest} s early");
        ensure!(latest <= LATEST, "one was {latest} s late");
        Ok(())
    }

    async fn number(&self, query: &'static str) -> Result<i64> {
        Ok(sqlx::query_scalar(query).fetch_one(&self.pool).await?)
    }

    /// The sum of a counter over the workers.
    async fn counted(&self, name: &str) -> Result<f64> {
        let mut sum = 0.0;
        for part in self.stack.parts() {
            if let Part::Service(Role::Reminders, copy) = part {
                let metrics = self.stack.metrics(Role::Reminders, copy).await?;
                let samples = metrics
                    .lines()
                    .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                sum += samples.filter_map(|value| value.parse::<f64>().ok()).sum::<f64>();
            }
        }
        Ok(sum)
    }

    /// Waits until a counter has grown to at least this.
    async fn wait_for_count(&self, name: &str, expected: f64) -> Result<f64> {
        let what = format!("{name} to be {expected}");
        wait_for(&what, PATIENCE, || async {
            let counted = self.counted(name).await?;
            Ok((counted >= expected).then_some(counted))
        })
        .await
    }

    /// Waits until the scheduler is known to hold what it should.
    async fn all_is_set(&self) -> Result<()> {
        wait_for("the scheduler to be told", PATIENCE, || async {
            let open = "SELECT count(*) FROM reminder_alarm WHERE (wanted_at = set_to) IS NOT TRUE";
            Ok((self.number(open).await? == 0).then_some(()))
        })
        .await
    }

    /// The instant that the scheduler itself has for a task's reminder, if it has one.
    async fn job_of(&self, task: &Value) -> Result<Option<Timestamp>> {
        let reminder = text(&task["reminders"][0], "id")?;
        let base = self.stack.sidecar_base(Role::Reminders, 0);
        let answer = HTTP
            .get(format!("{base}/v1.0-alpha1/jobs/reminder-{reminder}"))
            .header("dapr-api-token", self.stack.sidecar_token(Role::Reminders))
            .send()
            .await?;
        if !answer.status().is_success() {
            let said = answer.text().await?;
            ensure!(said.contains("not found"), "{said}");
            return Ok(None);
        }
        let job: Value = serde_json::from_str(&answer.text().await?)?;
        Ok(Some(text(&job, "dueTime")?.parse()?))
    }

    async fn stop(self) -> Result<()> {
        self.pool.close().await;
        self.stack.stop().await?;
        drop(self.scene);
        Ok(())
    }
}

fn whole_second_in(seconds: i64) -> Timestamp {
    let now = Timestamp::now().as_second();
    Timestamp::from_second(now + seconds).expect("an instant of this century")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheduler_holds_a_job_for_each_reminder_and_rings_at_its_instant() -> Result<()> {
    let trial = Trial::start(2).await?;
    let moved = trial.remind_in(3600, 1).await?.remove(0);
    let deleted = trial.remind_in(3600, 1).await?.remove(0);
    let completed = trial.remind_in(3600, 1).await?.remove(0);
    trial.all_is_set().await?;
    for task in [&moved, &deleted, &completed] {
        let due: Timestamp = text(&task["due"], "at")?.parse()?;
        ensure!(trial.job_of(task).await? == Some(due), "no job for {task}");
    }

    let later = whole_second_in(7200);
    let path = format!("/tasks/{}", text(&moved, "id")?);
    trial.alice.patch(&path, &json!({"due": {"at": later}})).await?;
    let deleted_path = format!("/tasks/{}", text(&deleted, "id")?);
    let answer = trial.alice.request(Method::DELETE, &deleted_path).send().await?;
    ensure!(answer.status().is_success(), "{}", answer.status());
    trial
        .alice
        .act(&format!("/tasks/{}/complete", text(&completed, "id")?))
        .await?;
    trial.all_is_set().await?;
    ensure!(trial.job_of(&moved).await? == Some(later), "the job did not move");
    ensure!(trial.job_of(&deleted).await?.is_none(), "the job outlived its task");
    ensure!(trial.job_of(&completed).await?.is_none(), "the job outlived its use");

    let soon = whole_second_in(4);
    trial.alice.patch(&path, &json!({"due": {"at": soon}})).await?;
    trial.remind_in(5, 20).await?;
    let rung = trial.wait_for_count("todo_alarms_received_total", 21.0).await?;
    trial.all_go_out(21).await?;
    println!(
        "{rung} alarms rang, {} were set",
        trial.counted("todo_alarms_set_total").await?
    );
    trial.all_is_set().await?;
    trial.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn reminders_go_out_once_and_in_time_while_the_scheduler_is_down() -> Result<()> {
    let trial = Trial::start(1).await?;
    trial.remind_in(20, 10).await?;
    trial.all_is_set().await?;
    trial.stack.kill(Part::Scheduler).await?;
    trial.remind_in(6, 20).await?;
    let later = trial.remind_in(3600, 5).await?;
    trial.all_go_out(30).await?;
    ensure!(
        trial.counted("todo_alarm_failures_total").await? > 0.0,
        "it was never told while down"
    );

    // Back: what it missed is told, and what rings late changes nothing.
    trial.stack.restart(Part::Scheduler).await?;
    trial.all_is_set().await?;
    for task in &later {
        ensure!(trial.job_of(task).await?.is_some(), "no job for {task}");
    }
    trial.all_go_out(30).await?;
    trial.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn reminders_go_out_once_and_in_time_while_the_scheduler_is_frozen() -> Result<()> {
    let trial = Trial::start(1).await?;
    trial.remind_in(15, 10).await?;
    trial.all_is_set().await?;
    trial.stack.pause(Part::Scheduler)?;
    trial.remind_in(5, 20).await?;
    trial.remind_in(3600, 5).await?;
    let began = Instant::now();
    trial.all_go_out(30).await?;
    ensure!(
        trial
            .number("SELECT count(*) FROM reminder_alarm WHERE (wanted_at = set_to) IS NOT TRUE")
            .await?
            >= 5
    );
    trial.stack.resume(Part::Scheduler)?;
    println!("frozen for {:?}", began.elapsed());
    trial.all_is_set().await?;
    trial.all_go_out(30).await?;
    trial.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_that_rings_again_and_again_sends_a_reminder_once_and_not_early() -> Result<()> {
    let trial = Trial::start(2).await?;
    let tasks = trial.remind_in(8, 10).await?;
    let token = trial.stack.sidecar_token(Role::Reminders);
    let began = Instant::now();
    let mut rung = 0;
    // From before the instant until after it, at both copies.
    while began.elapsed() < Duration::from_secs(12) {
        for task in &tasks {
            let reminder = text(&task["reminders"][0], "id")?;
            let base = trial.stack.base(Role::Reminders, rung % 2);
            let answer = HTTP
                .post(format!("{base}/job/reminder-{reminder}"))
                .header("dapr-api-token", token)
                .json(&Value::Null)
                .send()
                .await?;
            ensure!(answer.status().is_success(), "{}", answer.status());
            rung += 1;
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "a test's alarms are few")]
    let heard = trial.wait_for_count("todo_alarms_received_total", rung as f64).await?;
    println!("{heard} alarms for 10 reminders");
    trial.all_go_out(10).await?;
    let stranger = HTTP
        .post(format!("{}/job/reminder-x", trial.stack.base(Role::Reminders, 0)))
        .send()
        .await?;
    ensure!(!stranger.status().is_success(), "anybody can ring");
    trial.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_was_wiped_is_told_again_and_no_reminder_is_missed() -> Result<()> {
    let trial = Trial::start(1).await?;
    let soon = trial.remind_in(30, 10).await?;
    let later = trial.remind_in(600, 5).await?;
    trial.all_is_set().await?;
    trial.stack.kill(Part::Scheduler).await?;
    let logs = trial.stack.logs();
    let data = logs
        .parent()
        .context("the logs lie in the stack's folder")?
        .join("scheduler");
    std::fs::remove_dir_all(data.join("etcd"))?;
    trial.stack.restart(Part::Scheduler).await?;
    ensure!(
        wait_for("the scheduler to answer", PATIENCE, || async {
            Ok(trial.job_of(&later[0]).await.ok())
        })
        .await?
        .is_none(),
        "it was not wiped"
    );
    trial.all_go_out(10).await?;
    ensure!(
        trial.counted("todo_alarms_received_total").await? < 1.0,
        "a wiped job rang for one of {soon:?}"
    );

    // Whoever starts tells it again of what is near.
    trial.stack.restart(Part::Service(Role::Reminders, 0)).await?;
    wait_for("the jobs to be back", PATIENCE, || async {
        for task in &later {
            if trial.job_of(task).await?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await?;
    let path = format!("/tasks/{}", text(&later[0], "id")?);
    let soon = Timestamp::now() + 5.seconds();
    trial.alice.patch(&path, &json!({"due": {"at": soon}})).await?;
    trial.wait_for_count("todo_alarms_received_total", 1.0).await?;
    trial.all_go_out(11).await?;
    trial.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_changes_is_told_bit_by_bit_and_holds_no_reminder_up() -> Result<()> {
    const FLOOD: f64 = 2_000.0;
    let trial = Trial::start(2).await?;
    trial.remind_in(3600, 1).await?;
    sqlx::query(
        "INSERT INTO reminders (id, user_id, task_id, before_seconds, fire_at)
         SELECT gen_random_uuid(), user_id, id, seconds, due_at - make_interval(secs => seconds)
         FROM tasks, generate_series(1, 2000) AS seconds",
    )
    .execute(&trial.pool)
    .await?;
    let began = Instant::now();
    trial.remind_in(5, 10).await?;
    trial.all_go_out(10).await?;
    trial.wait_for_count("todo_alarms_set_total", FLOOD).await?;
    trial.all_is_set().await?;
    let took = began.elapsed();
    println!("{FLOOD} alarms set by two copies in {took:?}");
    ensure!(took > Duration::from_secs(3), "a storm on the scheduler");
    trial.stop().await
}
