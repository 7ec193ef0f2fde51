//! The platform spread out over processes, sidecars and Kafka, while its parts are killed, frozen and doubled.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sqlx::PgPool;
use todo_e2e::client::{HTTP, text};
use todo_e2e::ledger::Held;
use todo_e2e::load::{self, Load};
use todo_e2e::scene::Scene;
use todo_e2e::stack::{Options, Part, Role, Stack};
use todo_e2e::{check, database, wait_for};

use crate::faults::{make_schedules, pause_schedules, something_of_everything_happened};

const USERS: usize = 24;
const CLIENTS: u64 = 6;
/// A part may have to wait for others that wait for others, each with a pause between its attempts.
const QUIET: Duration = Duration::from_mins(3);
/// A load that was shorter says nothing.
const LEAST: Duration = Duration::from_secs(20);
const CONSUMERS: [&str; 2] = ["audit", "recurring"];

/// A stack under load.
struct Trial {
    scene: Scene,
    stack: Stack,
    random: StdRng,
    load: Option<Load>,
    began: Instant,
    /// What was acknowledged to the test itself of a task of the first user.
    made_beside: Vec<Value>,
}

impl Trial {
    async fn start(name: &str, options: Options) -> Result<Self> {
        let seed = load::seed(name);
        let scene = Scene::new()?;
        let stack = Stack::start(&scene, options).await?;
        let mut users = Vec::with_capacity(USERS);
        for number in 0..USERS {
            users.push(stack.client(&scene, &format!("user-{number:02}")).await?);
        }
        make_schedules(&users).await?;
        let load = Load::start(users, CLIENTS, seed);
        Ok(Self {
            scene,
            stack,
            random: StdRng::seed_from_u64(!seed),
            load: Some(load),
            began: Instant::now(),
            made_beside: vec![],
        })
    }

    async fn for_a_while(&mut self, milliseconds: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(milliseconds))).await;
    }

    /// Lets the load end, waits until all that follows from it is done, and holds everything to the promises.
    async fn judge(&mut self) -> Result<(Held, PgPool)> {
        self.stack.wait_until_ready().await?;
        tokio::time::sleep_until((self.began + LEAST).into()).await;
        let load = self.load.take().context("judged already")?;
        let (ledger, users) = load.finish().await?;
        for task in &self.made_beside {
            ledger.shown(0, task);
        }
        pause_schedules(&users).await?;
        let pool = database::open(&self.stack.database_url()?).await?;
        let began = Instant::now();
        check::wait_until_quiet(&pool, QUIET)
            .await
            .with_context(|| self.logs())?;
        println!("quiet after {:?}", began.elapsed());
        check::promises(&pool).await?;
        let (occurrences, skipped) = check::schedules_are_complete(&pool).await?;
        let held = ledger.check(&pool, &users).await?;
        println!("{held:?}; {occurrences} occurrences, {skipped} skipped");
        ensure!(
            held.acknowledged > 200 && occurrences > 20,
            "too little happened for a verdict"
        );
        Ok((held, pool))
    }

    /// What the parts said last, for a failure.
    fn logs(&self) -> String {
        let parts = self.stack.parts().into_iter();
        let said = parts.map(|part| {
            let log = self.stack.log(part);
            let lines: Vec<&str> = log.lines().collect();
            format!("== {part}\n{}\n", lines[lines.len().saturating_sub(5)..].join("\n"))
        });
        said.collect()
    }

    async fn stop(self) -> Result<()> {
        self.stack.stop().await?;
        drop(self.scene);
        Ok(())
    }
}

fn two_of_each_worker() -> Options {
    let workers = [Role::Relay, Role::Recurring, Role::Reminders, Role::Audit];
    workers
        .into_iter()
        .fold(Options::default(), |options, role| options.copies(role, 2))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_any_part_is_killed_at_any_time() -> Result<()> {
    let mut trial = Trial::start("any_part_is_killed", two_of_each_worker()).await?;
    // Each part once, in random order, then again at random.
    let mut victims = trial.stack.parts();
    victims.shuffle(&mut trial.random);
    for _ in 0..10 {
        victims.extend(trial.stack.parts().choose(&mut trial.random));
    }
    let began = Instant::now();
    for part in &victims {
        trial.for_a_while(500..6000).await;
        trial
            .stack
            .crash(*part)
            .await
            .with_context(|| format!("killing {part}"))?;
    }
    println!("{} kills took {:?}", victims.len(), began.elapsed());
    let (_, pool) = trial.judge().await?;
    something_of_everything_happened(&pool).await?;
    trial.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_on_while_kafka_is_frozen_for_a_minute_and_nothing_is_lost() -> Result<()> {
    let mut trial = Trial::start("kafka_is_frozen", Options::default()).await?;
    trial.for_a_while(3000..5000).await;
    trial.stack.pause(Part::Kafka)?;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let pool = database::open(&trial.stack.database_url()?).await?;
    let waiting = waiting_for(&pool, "audit").await?;
    ensure!(waiting > 100, "kafka is frozen, yet only {waiting} events wait");
    trial.stack.resume(Part::Kafka)?;
    trial.for_a_while(3000..5000).await;
    let (held, pool) = trial.judge().await?;
    // The API answered everything, and none of it waited for Kafka.
    ensure!(held.lost_answers == 0, "{} answers were lost", held.lost_answers);
    ensure!(
        held.slowest < Duration::from_secs(10),
        "an answer took {:?}",
        held.slowest
    );
    something_of_everything_happened(&pool).await?;

    everything_again_changes_nothing(&trial.stack, &pool).await?;
    trial.stop().await
}

/// Publishes the whole outbox twice more, under the same ids, and looks at what that did.
async fn everything_again_changes_nothing(stack: &Stack, pool: &PgPool) -> Result<()> {
    let before = derived(pool).await?;
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
        .fetch_one(pool)
        .await?;
    for again in 1..=2 {
        let duplicates = duplicates(stack).await?;
        sqlx::query("UPDATE relay_cursor SET xid = '0', seq = 0 WHERE name = 'dapr'")
            .execute(pool)
            .await?;
        wait_for("everything to be delivered again", QUIET, || async {
            #[allow(clippy::cast_precision_loss, reason = "a test's events are few")]
            let all = 2.0 * events as f64;
            Ok((self::duplicates(stack).await? - duplicates >= all).then_some(()))
        })
        .await?;
        ensure!(
            derived(pool).await? == before,
            "events that came again (time {again}) had an effect"
        );
    }
    check::promises(pool).await
}

/// What consumers have made of events.
async fn derived(pool: &PgPool) -> Result<Vec<(String, i64)>> {
    Ok(sqlx::query_as(
        "SELECT 'audit', count(*) FROM audit
         UNION ALL SELECT 'inbox', count(*) FROM inbox
         UNION ALL SELECT 'tasks', count(*) FROM tasks
         UNION ALL SELECT 'outbox', count(*) FROM outbox
         ORDER BY 1",
    )
    .fetch_all(pool)
    .await?)
}

/// How many events the two consumers have found that they had applied.
async fn duplicates(stack: &Stack) -> Result<f64> {
    let mut all = 0.0;
    for role in [Role::Audit, Role::Recurring] {
        all += sample(
            &stack.metrics(role, 0).await?,
            "todo_consumer_events_total",
            "outcome=\"duplicate\"",
        );
    }
    Ok(all)
}

/// The sum of a metric's samples that have this label.
fn sample(metrics: &str, name: &str, label: &str) -> f64 {
    metrics
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// How many events this consumer has not seen.
async fn waiting_for(pool: &PgPool, consumer: &str) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "SELECT count(*)
         FROM outbox AS o
         LEFT JOIN inbox AS i ON i.consumer = $1 AND i.event_id = o.id
         WHERE i.event_id IS NULL",
    )
    .bind(consumer)
    .fetch_one(pool)
    .await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_come_and_go_share_the_work_and_lose_none() -> Result<()> {
    let options = Options::default().copies(Role::Audit, 2).copies(Role::Recurring, 2);
    let mut trial = Trial::start("copies_come_and_go", options).await?;
    // A copy that is away with its sidecar gives its partitions to the other: a rebalance, and another when it is back.
    for round in 0..4 {
        let role = if round % 2 == 0 { Role::Audit } else { Role::Recurring };
        let copy = trial.random.random_range(0..2);
        trial.for_a_while(1000..3000).await;
        trial.stack.kill(Part::Sidecar(role, copy)).await?;
        // Killed in the middle of a batch: it holds a transaction when nobody listens to its answer any more.
        trial.stack.kill(Part::Service(role, copy)).await?;
        trial.for_a_while(500..12_000).await;
        trial.stack.begin(Part::Service(role, copy))?;
        trial.stack.restart(Part::Sidecar(role, copy)).await?;
    }
    // In peace: each drains, and hands its partitions over.
    for role in [Role::Audit, Role::Recurring] {
        trial.for_a_while(1000..2000).await;
        let status = trial.stack.end(Part::Service(role, 0)).await?;
        ensure!(status.success(), "{} drained with {status}", role.name());
        trial.stack.end(Part::Sidecar(role, 0)).await?;
        trial.for_a_while(1000..2000).await;
        trial.stack.begin(Part::Service(role, 0))?;
        trial.stack.restart(Part::Sidecar(role, 0)).await?;
    }
    let (held, pool) = trial.judge().await?;
    ensure!(held.lost_answers == 0, "{} answers were lost", held.lost_answers);
    something_of_everything_happened(&pool).await?;
    trial.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_blocks_no_partition_and_is_kept_with_its_reason() -> Result<()> {
    let mut trial = Trial::start("poison", Options::default()).await?;
    let pool = database::open(&trial.stack.database_url()?).await?;
    // Messages that are no events, of many keys: they get into every partition.
    let poison = ["no JSON at all", "{\"specversion\": \"1.0\"}", "[]", "null", ""];
    let mut sent = 0;
    let sidecar = trial.stack.sidecar_base(Role::Relay, 0);
    for key in 0..30 {
        for text in poison {
            let answer = HTTP
                .post(format!("{sidecar}/v1.0/publish/pubsub/task-events"))
                .query(&[
                    ("metadata.rawPayload", "true"),
                    ("metadata.partitionKey", &format!("key-{key}")),
                ])
                .header("dapr-api-token", trial.stack.sidecar_token(Role::Relay))
                .header("content-type", "application/octet-stream")
                .body(text)
                .send()
                .await?;
            ensure!(answer.status().is_success(), "publishing {text:?}: {}", answer.status());
            sent += 1;
        }
    }
    // And an event that is one, but that the consumer cannot apply.
    let user = trial.stack.client(&trial.scene, "user-00").await?;
    let due = json!({"local": "2030-01-31T09:00:00", "time_zone": "Europe/Berlin"});
    let rent = json!({"title": "Rent", "due": due, "recurrence": {"every": "1mo"}});
    let task = user.post("/tasks", &rent).await?;
    let id = text(&task, "id")?;
    poison_completion_of(&pool, id).await?;
    let completed = user.act(&format!("/tasks/{id}/complete")).await?;
    trial.made_beside.extend([task.clone(), completed]);
    wait_for("the dead letter", Duration::from_mins(1), || async {
        let dead: Vec<String> = sqlx::query_scalar("SELECT error FROM dead_letters WHERE consumer = 'recurring'")
            .fetch_all(&pool)
            .await?;
        Ok(dead.into_iter().find(|error| error.contains("task_data")))
    })
    .await?;
    wait_for(
        "the audit log to have the same event",
        Duration::from_mins(1),
        || async {
            let recorded: bool =
                sqlx::query_scalar("SELECT EXISTS (SELECT FROM audit WHERE after -> 'due' = '\"broken\"')")
                    .fetch_one(&pool)
                    .await?;
            Ok(recorded.then_some(()))
        },
    )
    .await?;
    // Healed, it is replayed, and the platform owes nothing.
    repair(&pool, &task["due"]).await?;
    let url = trial.stack.database_url()?;
    let outcome = trial
        .scene
        .run_well(["events", "dlq", "replay", "--database-url", &url])
        .await?;
    ensure!(outcome.contains("0 still fail"), "{outcome}");

    let (_, _) = trial.judge().await?;
    for consumer in CONSUMERS {
        let letters = dead_letters(&trial.stack, consumer, sent).await?;
        ensure!(
            letters.len() == sent,
            "{consumer} has {} of {sent} dead letters",
            letters.len()
        );
        for letter in &letters {
            let reason = letter["data"]["reason"].as_str().unwrap_or_default();
            ensure!(!reason.is_empty(), "a dead letter without a reason: {letter}");
        }
        let received = |text: &str| letters.iter().any(|letter| letter["data"]["received"] == text);
        ensure!(
            poison.iter().all(|text| received(text)),
            "not all poison was kept: {letters:?}"
        );
    }
    trial.stop().await
}

/// When this task is completed, its due date will be broken in the event, as by a faulty writer.
async fn poison_completion_of(pool: &PgPool, task: &str) -> Result<()> {
    for statement in [
        "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             NEW.data := jsonb_set(NEW.data, '{due}', '\"broken\"');
             RETURN NEW;
         END
         $$"
        .to_owned(),
        format!(
            "CREATE TRIGGER poison BEFORE INSERT ON outbox
             FOR EACH ROW WHEN (NEW.event_type = 'completed' AND NEW.subject = '{task}') EXECUTE FUNCTION poison()"
        ),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(pool).await?;
    }
    Ok(())
}

/// Makes good what the poison did, where it lies.
async fn repair(pool: &PgPool, due: &Value) -> Result<()> {
    sqlx::query("DROP TRIGGER poison ON outbox").execute(pool).await?;
    sqlx::query(
        "UPDATE dead_letters
         SET event = jsonb_set(event, '{data,task_data,due}', $1)
         WHERE event #> '{data,task_data,due}' = '\"broken\"'",
    )
    .bind(due)
    .execute(pool)
    .await?;
    for table in ["outbox", "audit"] {
        let column = if table == "outbox" { "data" } else { "after" };
        let statement = format!(
            "UPDATE {table} SET {column} = jsonb_set({column}, '{{due}}', $1) WHERE {column} -> 'due' = '\"broken\"'"
        );
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(due)
            .execute(pool)
            .await?;
    }
    Ok(())
}

/// What is on a consumer's dead-letter topic, from its beginning.
async fn dead_letters(stack: &Stack, consumer: &str, expected: usize) -> Result<Vec<Value>> {
    let topic = format!("{consumer}-dead-letters");
    let expected = expected.to_string();
    let read = stack
        .kafka_tool(
            "org.apache.kafka.tools.consumer.ConsoleConsumer",
            &[
                "--topic",
                &topic,
                "--from-beginning",
                "--max-messages",
                &expected,
                "--timeout-ms",
                "20000",
            ],
            "",
        )
        .await?;
    read.lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).context("a dead letter is no JSON"))
        .collect()
}
