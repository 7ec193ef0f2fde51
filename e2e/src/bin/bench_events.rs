//! What `cargo xtask bench events` runs: the platform spread out, measured beside the bare path through the same
//! sidecar's program and the same Kafka.
//!
//! On standard output a line for each figure: `NAME VALUE`, or `NAME VALUE LIMIT` where the limit was measured too.
//! Their targets are with the caller. What is being done is said on standard error.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use jiff::Timestamp;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};
use todo_e2e::bare::Bare;
use todo_e2e::client::{Client, HTTP, text};
use todo_e2e::figures::percentile;
use todo_e2e::scene::{Scene, free_port};
use todo_e2e::stack::{Options, Part, Role, Stack};
use todo_e2e::{database, wait_for};
use tokio::task::JoinSet;
use uuid::Uuid;

/// Functions that make tasks and events, as the other benchmarks use them.
const FUNCTIONS: &str = include_str!("../../../xtask/src/bench/functions.sql");

/// The rate at which the time from commit to consumer is measured, in events per second, and for how long.
const RATE: u32 = 200;
const RATE_FOR: Duration = Duration::from_secs(20);
/// How many events are sent as fast as it goes.
const BURST: usize = 30_000;
const CALLS: usize = 500;
const MESSAGES: usize = 100;
const READS: usize = 200;
/// Between the requests of one user: the API allows each so many a second.
const UNHURRIED: Duration = Duration::from_millis(30);
/// The events that one copy and two copies work off.
const SHARED: i64 = 30_000;
const FEW: i64 = 10_000;
const MANY: i64 = 1_000_000;
/// The rate of the outage, in creations per second.
const OUTAGE_RATE: u32 = 100;
const PATIENCE: Duration = Duration::from_mins(20);

#[derive(Parser)]
struct Args {
    /// For how long Kafka is down, in minutes
    #[arg(long, default_value_t = 10)]
    outage_minutes: u64,

    /// Measure only this: latency, burst, call, history, copies, backlog, outage
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let scene = Scene::new()?;
    eprintln!("starting the platform");
    let options = Options::default()
        .copies(Role::Audit, 2)
        .set_for(Role::Api, "TODO_STATE_STORE", "statestore");
    let stack = Stack::start(&scene, options).await?;
    for part in [Part::Service(Role::Audit, 1), Part::Sidecar(Role::Audit, 1)] {
        stack.end(part).await?;
    }
    let bench = Bench::new(&scene, &stack).await?;
    if wanted("latency") || wanted("burst") {
        bench.path(wanted("latency"), wanted("burst")).await?;
    }
    if wanted("call") {
        bench.call().await?;
    }
    if wanted("history") {
        bench.history().await?;
    }
    if wanted("copies") {
        bench.copies().await?;
    }
    if wanted("backlog") {
        bench.backlog().await?;
    }
    if wanted("outage") {
        bench.outage(Duration::from_mins(args.outage_minutes)).await?;
    }
    drop(bench);
    stack.stop().await?;
    Ok(())
}

fn figure(name: &str, value: f64) {
    println!("{name} {value}");
}

fn figure_beside(name: &str, value: f64, limit: f64) {
    println!("{name} {value} {limit}");
}

struct Bench<'a> {
    scene: &'a Scene,
    stack: &'a Stack,
    pool: PgPool,
    users: Arc<Vec<Client>>,
}

impl<'a> Bench<'a> {
    async fn new(scene: &'a Scene, stack: &'a Stack) -> Result<Self> {
        let pool = database::open(&stack.database_url()?).await?;
        sqlx::raw_sql(FUNCTIONS).execute(&pool).await?;
        sqlx::raw_sql("CALL bench.make_tasks(10000)").execute(&pool).await?;
        // Whoever watches must not be what is measured.
        sqlx::raw_sql("CREATE INDEX bench_audit_seq ON audit (seq)")
            .execute(&pool)
            .await?;
        let mut users = vec![];
        for number in 0..16 {
            users.push(stack.client(scene, &format!("user-{number}")).await?);
        }
        Ok(Self {
            scene,
            stack,
            pool,
            users: Arc::new(users),
        })
    }

    /// From commit to consumer, beside the bare path.
    async fn path(&self, latency: bool, burst: bool) -> Result<()> {
        // As large as an event of the platform's own.
        let mut connection = self.pool.acquire().await?;
        sqlx::raw_sql("CALL bench.make_events(1000)")
            .execute(&mut *connection)
            .await?;
        drop(connection);
        self.drained().await?;
        let bytes: i64 = sqlx::query_scalar("SELECT avg(length(data::text))::bigint + 500 FROM outbox")
            .fetch_one(&self.pool)
            .await?;
        let bare = Bare::start(usize::try_from(bytes)?).await?;
        let sidecar = BareSidecar::start(self.scene, self.stack, bare.port).await?;
        // Connections and partitions find their places.
        bare.run(&sidecar.base, 2000, None).await?;
        if burst {
            eprintln!("{BURST} events as fast as it goes, three times");
            let (mut ours, mut limits) = (vec![], vec![]);
            for _ in 0..3 {
                limits.push(bare.run(&sidecar.base, BURST, None).await?.per_second);
                ours.push(self.burst().await?);
            }
            figure_beside("events_per_second", median(&mut ours), median(&mut limits));
        }
        // After the burst: a JVM that has just begun is slow.
        if latency {
            eprintln!("events at {RATE} per second");
            let count = RATE as usize * usize::try_from(RATE_FOR.as_secs())?;
            let limit = bare.run(&sidecar.base, count, Some(RATE)).await?;
            let took = self.at_a_rate().await?;
            figure_beside("visible_p50_ms", percentile(&took, 50), milliseconds(limit.p50));
            figure_beside("visible_p95_ms", percentile(&took, 95), milliseconds(limit.p95));
            figure("visible_p99_ms", percentile(&took, 99));
        }
        Ok(())
    }

    /// The milliseconds from each event's transaction to its row in the audit log, as another connection sees it.
    async fn at_a_rate(&self) -> Result<Vec<f64>> {
        let last: i64 = sqlx::query_scalar("SELECT COALESCE(max(seq), 0) FROM audit")
            .fetch_one(&self.pool)
            .await?;
        let count = RATE as usize * usize::try_from(RATE_FOR.as_secs())?;
        let pool = self.pool.clone();
        let watching = tokio::spawn(async move { watch(&pool, last, count).await });
        self.create(RATE, RATE_FOR).await?;
        watching.await?
    }

    /// Creates tasks over HTTP at this rate; returns how long each answer took.
    async fn create(&self, per_second: u32, time: Duration) -> Result<Vec<f64>> {
        let began = Instant::now();
        let pause = Duration::from_secs(1) / per_second;
        let count = u32::try_from(u128::from(per_second) * time.as_millis() / 1000)?;
        let mut requests = JoinSet::new();
        let mut took = vec![];
        for number in 0..count {
            tokio::time::sleep_until((began + pause * number).into()).await;
            while let Some(done) = requests.try_join_next() {
                took.push(done??);
            }
            let users = Arc::clone(&self.users);
            requests.spawn(async move {
                let user = &users[number as usize % users.len()];
                let sent = Instant::now();
                user.post("/tasks", &json!({"title": format!("task {number}"), "tags": ["bench"]}))
                    .await?;
                anyhow::Ok(milliseconds(sent.elapsed()))
            });
        }
        while let Some(done) = requests.join_next().await {
            took.push(done??);
        }
        Ok(took)
    }

    /// Events per second from the first commit until the consumer has applied the last.
    async fn burst(&self) -> Result<f64> {
        let began = Instant::now();
        sqlx::raw_sql(AssertSqlSafe(format!("CALL bench.make_events({BURST})")))
            .execute(&self.pool)
            .await?;
        self.drained().await?;
        Ok(rate(BURST, began.elapsed()))
    }

    /// Waits until the audit log has every event.
    async fn drained(&self) -> Result<()> {
        wait_for("the audit log to have every event", PATIENCE, || async {
            if self.waiting().await? > 0 {
                return Ok(None);
            }
            let is_whole: bool =
                sqlx::query_scalar("SELECT (SELECT count(*) FROM outbox) = (SELECT count(*) FROM audit)")
                    .fetch_one(&self.pool)
                    .await?;
            Ok(is_whole.then_some(()))
        })
        .await
    }

    /// How many events the audit log has not, by the numbers that both have given out: to count a million rows again
    /// and again would be what is measured.
    async fn waiting(&self) -> Result<i64> {
        let outbox = self.given_out("outbox").await?;
        Ok(outbox - self.given_out("audit").await?)
    }

    async fn given_out(&self, table: &str) -> Result<i64> {
        Ok(
            sqlx::query_scalar("SELECT COALESCE(pg_sequence_last_value(pg_get_serial_sequence($1, 'seq')), 0)")
                .bind(table)
                .fetch_one(&self.pool)
                .await?,
        )
    }

    /// What a sidecar in between adds to a call.
    async fn call(&self) -> Result<()> {
        eprintln!("{CALLS} calls with and without a sidecar in between");
        let direct = format!("{}/healthz", self.stack.api_base());
        // By its address: the stack's resolver of names finds nobody.
        let through = format!(
            "{}/v1.0/invoke/{}/method/healthz",
            self.stack.sidecar_base(Role::Api, 0),
            self.stack.api_base()
        );
        let token = self.stack.sidecar_token(Role::Api);
        let (mut with, mut without) = (vec![], vec![]);
        for _ in 0..CALLS {
            for (url, took) in [(&direct, &mut without), (&through, &mut with)] {
                let sent = Instant::now();
                let answer = HTTP.get(url).header("dapr-api-token", token).send().await?;
                ensure!(answer.status().is_success(), "{url} answered {}", answer.status());
                answer.bytes().await?;
                took.push(milliseconds(sent.elapsed()));
            }
        }
        let (with, without) = (percentile(&with, 95), percentile(&without, 95));
        figure("sidecar_adds_p95_ms", with - without);
        Ok(())
    }

    /// A conversation's last hundred messages, read back from the sidecar's state store.
    async fn history(&self) -> Result<()> {
        eprintln!("a conversation of {MESSAGES} messages, read {READS} times");
        let user = &self.users[0];
        let begun = user.act("/conversations").await?;
        let path = format!("/conversations/{}/messages", text(&begun, "id")?);
        for number in 0..MESSAGES {
            let content = format!("{number} {}", "word ".repeat(40));
            user.post(&path, &json!({"role": "user", "content": content})).await?;
            tokio::time::sleep(UNHURRIED).await;
        }
        let mut took = vec![];
        for _ in 0..READS {
            let asked = Instant::now();
            let history = user.get(&path).await?;
            took.push(milliseconds(asked.elapsed()));
            ensure!(
                history["items"].as_array().map(Vec::len) == Some(MESSAGES) && history["degraded"] == json!(false),
                "not the whole history, or not from the store"
            );
            tokio::time::sleep(UNHURRIED).await;
        }
        figure("history_p50_ms", percentile(&took, 50));
        figure("history_p95_ms", percentile(&took, 95));
        Ok(())
    }

    /// One copy of a consumer, then two, over the same number of events that wait in Kafka.
    async fn copies(&self) -> Result<()> {
        let mut rates = vec![];
        for copies in 1..=2 {
            eprintln!("{SHARED} events to {copies} of the consumer");
            for copy in 0..2 {
                for part in [Part::Service(Role::Audit, copy), Part::Sidecar(Role::Audit, copy)] {
                    if self.stack.process(part).is_some() {
                        self.stack.end(part).await?;
                    }
                }
            }
            self.make_events(SHARED).await?;
            self.published().await?;
            let before = self.applied().await?;
            for copy in 0..copies {
                self.stack.begin(Part::Service(Role::Audit, copy))?;
                self.stack.begin(Part::Sidecar(Role::Audit, copy))?;
            }
            rates.push(self.rate_of(before, SHARED).await?);
        }
        figure("one_copy_events_per_second", rates[0]);
        figure("two_copies_events_per_second", rates[1]);
        figure("two_copies_ratio", rates[1] / rates[0]);
        Ok(())
    }

    /// Whether an event costs more because others wait.
    async fn backlog(&self) -> Result<()> {
        let mut costs = vec![];
        for count in [FEW, MANY] {
            eprintln!("{count} events wait for the relay");
            self.stack.end(Part::Service(Role::Relay, 0)).await?;
            self.make_events(count).await?;
            sqlx::raw_sql("VACUUM ANALYZE").execute(&self.pool).await?;
            let before = self.applied().await?;
            self.stack.begin(Part::Service(Role::Relay, 0))?;
            costs.push(1e6 / self.rate_of(before, count).await?);
        }
        figure("event_us_of_10000", costs[0]);
        figure_beside("event_us_of_1000000", costs[1], costs[0]);
        Ok(())
    }

    /// Kafka down for a while, and back.
    async fn outage(&self, time: Duration) -> Result<()> {
        let minute = Duration::from_mins(1);
        eprintln!("the API for a minute, then {time:?} without Kafka");
        let before = self.create(OUTAGE_RATE, minute).await?;
        self.stack.kill(Part::Kafka).await?;
        let during = self.create(OUTAGE_RATE, time).await?;
        let waiting = self.waiting().await?;
        // The load goes on while the backlog drains.
        let (drained, after) = tokio::join!(
            async {
                self.stack.restart(Part::Kafka).await?;
                let began = Instant::now();
                wait_for("the backlog to drain", PATIENCE, || async {
                    // What the load adds meanwhile is on its way.
                    Ok((self.waiting().await? < i64::from(OUTAGE_RATE)).then_some(()))
                })
                .await?;
                anyhow::Ok(began.elapsed())
            },
            self.create(OUTAGE_RATE, minute)
        );
        figure("outage_backlog_events", count_of(waiting));
        figure("outage_drained_s", drained?.as_secs_f64());
        let usual = percentile(&before, 99);
        figure_beside("outage_api_p99_ms", percentile(&during, 99), usual);
        figure_beside("drain_api_p99_ms", percentile(&after?, 99), usual);
        Ok(())
    }

    async fn make_events(&self, count: i64) -> Result<()> {
        sqlx::raw_sql(AssertSqlSafe(format!("CALL bench.make_events({count})")))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Waits until the relay has nothing left to publish.
    async fn published(&self) -> Result<()> {
        wait_for("the relay to publish everything", PATIENCE, || async {
            let all: bool = sqlx::query_scalar(
                "SELECT NOT EXISTS (
                     SELECT
                     FROM outbox AS o
                     CROSS JOIN relay_cursor AS c
                     WHERE c.name = 'dapr'
                         AND (o.xid, o.seq) > (c.xid, c.seq)
                 )",
            )
            .fetch_one(&self.pool)
            .await?;
            Ok(all.then_some(()))
        })
        .await
    }

    async fn applied(&self) -> Result<i64> {
        self.given_out("audit").await
    }

    /// Events per second, from the first that is applied to the last.
    async fn rate_of(&self, before: i64, count: i64) -> Result<f64> {
        let first = wait_for("the first event", PATIENCE, || async {
            let now = self.applied().await?;
            Ok((now > before).then(|| (Instant::now(), now - before)))
        })
        .await?;
        self.drained().await?;
        Ok(rate(usize::try_from(count - first.1)?, first.0.elapsed()))
    }
}

/// When each new row of the audit log was first seen, against when its event's transaction began.
async fn watch(pool: &PgPool, mut last: i64, count: usize) -> Result<Vec<f64>> {
    let mut seen: HashMap<Uuid, Timestamp> = HashMap::new();
    let began = Instant::now();
    let mut connection = pool.acquire().await?;
    while seen.len() < count {
        ensure!(
            began.elapsed() < PATIENCE,
            "only {} of {count} events were seen",
            seen.len()
        );
        let rows: Vec<(i64, Uuid)> = sqlx::query_as("SELECT seq, event_id FROM audit WHERE seq > $1 ORDER BY seq")
            .bind(last)
            .fetch_all(&mut *connection)
            .await?;
        let now = Timestamp::now();
        for (seq, id) in rows {
            last = last.max(seq);
            seen.insert(id, now);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let ids: Vec<Uuid> = seen.keys().copied().collect();
    let committed: Vec<(Uuid, jiff_sqlx::Timestamp)> =
        sqlx::query_as("SELECT id, created_at FROM outbox WHERE id = ANY($1)")
            .bind(ids)
            .fetch_all(&mut *connection)
            .await?;
    committed
        .into_iter()
        .map(|(id, at)| {
            let seen = seen.get(&id).context("an event that was not seen")?;
            Ok(seen.duration_since(at.to_jiff()).as_secs_f64() * 1e3)
        })
        .collect()
}

/// The sidecar of the bare path.
struct BareSidecar {
    base: String,
    process: std::process::Child,
}

impl BareSidecar {
    async fn start(scene: &Scene, stack: &Stack, app_port: u16) -> Result<Self> {
        let resources = scene.path("bare");
        std::fs::create_dir_all(&resources)?;
        // The stack's own settings of Kafka, without its scopes.
        std::fs::write(
            resources.join("pubsub.yaml"),
            format!(
                "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: pubsub}}\nspec:\n  \
                 type: pubsub.kafka\n  version: v1\n  metadata:\n  - {{name: brokers, value: \"{}\"}}\n  \
                 - {{name: authType, value: none}}\n  - {{name: version, value: \"3.9.0\"}}\n  \
                 - {{name: initialOffset, value: oldest}}\n",
                stack.brokers()
            ),
        )?;
        let http = free_port()?;
        let log = std::fs::File::create(scene.path("bare.log"))?;
        let process = std::process::Command::new(todo_test_tools::dapr()?.daprd)
            .args([
                "--mode=standalone",
                "--app-id=bare",
                "--app-channel-address=127.0.0.1",
                "--dapr-listen-addresses=127.0.0.1",
                "--dapr-internal-grpc-listen-address=127.0.0.1",
                "--metrics-listen-address=127.0.0.1",
                "--enable-mtls=false",
                "--log-level=warn",
            ])
            .arg(format!("--app-port={app_port}"))
            .arg(format!("--dapr-http-port={http}"))
            .arg(format!("--dapr-grpc-port={}", free_port()?))
            .arg(format!("--dapr-internal-grpc-port={}", free_port()?))
            .arg(format!("--metrics-port={}", free_port()?))
            .arg(format!("--resources-path={}", resources.display()))
            .env("NAMESPACE", "default")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let sidecar = Self {
            base: format!("http://127.0.0.1:{http}"),
            process,
        };
        let healthy = format!("{}/v1.0/healthz", sidecar.base);
        wait_for("the bare path's sidecar", Duration::from_mins(1), || async {
            let answer = HTTP.get(&healthy).send().await;
            Ok(answer.is_ok_and(|answer| answer.status().is_success()).then_some(()))
        })
        .await?;
        Ok(sidecar)
    }
}

impl Drop for BareSidecar {
    fn drop(&mut self) {
        let _may_be_gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[allow(clippy::cast_precision_loss, reason = "a benchmark's counts are far below 2^52")]
fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

#[allow(clippy::cast_precision_loss, reason = "a benchmark's counts are far below 2^52")]
fn count_of(count: i64) -> f64 {
    count as f64
}

fn median(values: &mut [f64]) -> f64 {
    percentile(values, 50)
}
