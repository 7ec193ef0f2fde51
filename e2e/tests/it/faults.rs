//! Random writes while everything is killed again and again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use todo_e2e::check;
use todo_e2e::client::{self, Client, text};
use todo_e2e::database::{self, Server};
use todo_e2e::load::{self, Load};
use todo_e2e::process::Process;
use todo_e2e::scene::{Scene, free_port};

const USERS: usize = 24;
const CLIENTS: u64 = 8;
const KILLS: usize = 20;
const RESTARTS: usize = 5;
const QUIET: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillThePlatform,
    RestartTheDatabase { crash: bool },
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() -> Result<()> {
    let seed = load::seed("nothing_acknowledged_is_lost");
    let mut random = StdRng::seed_from_u64(!seed);
    let scene = Scene::new()?;
    let mut server = Server::start(&scene).await?;
    let mut platform = Platform::start(&scene, &server.url).await?;
    let users = users(&scene, &platform.base).await?;
    make_schedules(&users).await?;

    let mut faults: Vec<Fault> = (0..KILLS)
        .map(|_| Fault::KillThePlatform)
        .chain((0..RESTARTS).map(|nth| Fault::RestartTheDatabase { crash: nth % 2 == 1 }))
        .collect();
    faults.shuffle(&mut random);
    let load = Load::start(users, CLIENTS, seed);
    let began = Instant::now();
    for fault in faults {
        tokio::time::sleep(Duration::from_millis(random.random_range(200..3200))).await;
        match fault {
            Fault::KillThePlatform => platform.kill(&scene)?,
            Fault::RestartTheDatabase { crash } => {
                // One that has begun must live through it; one that has not may give up.
                platform.wait_until_ready().await?;
                if crash {
                    server.crash(&scene).await?;
                } else {
                    server.restart(&scene).await?;
                }
                platform.still_runs()?;
            }
        }
    }
    platform.wait_until_ready().await?;
    let (ledger, users) = load.finish().await?;
    println!("{KILLS} kills and {RESTARTS} restarts took {:?}", began.elapsed());

    pause_schedules(&users).await?;
    let pool = database::open(&server.url).await?;
    check::wait_until_quiet(&pool, QUIET).await?;
    check::promises(&pool).await?;
    let (occurrences, skipped) = check::schedules_are_complete(&pool).await?;
    let held = ledger.check(&pool, &users).await?;
    println!("{held:?}; {occurrences} occurrences, {skipped} skipped");
    ensure!(
        held.acknowledged > 300 && occurrences > 20,
        "too little happened for a verdict"
    );
    something_of_everything_happened(&pool).await?;
    platform.stop().await
}

/// A test that never met what it is about proves nothing. And nothing was away for long.
pub(crate) async fn something_of_everything_happened(pool: &sqlx::PgPool) -> Result<()> {
    let kinds: Vec<String> = sqlx::query_scalar("SELECT DISTINCT event_type FROM outbox ORDER BY 1")
        .fetch_all(pool)
        .await?;
    let all = [
        "completed",
        "created",
        "deleted",
        "recurring_spawn",
        "reminder",
        "updated",
    ];
    ensure!(kinds == all, "only {kinds:?} happened");
    let successors: i64 = sqlx::query_scalar("SELECT count(*) FROM tasks WHERE previous_id IS NOT NULL")
        .fetch_one(pool)
        .await?;
    ensure!(successors > 0, "no task came back");
    let late: Vec<String> = sqlx::query_scalar(
        "SELECT format('of task %s, due %s, sent %s, after %s', n.task_id, n.scheduled_for, n.created_at,
            (SELECT string_agg(format('%s %s', o.event_type, o.created_at), ', ' ORDER BY o.version)
             FROM outbox AS o WHERE o.subject = n.task_id))
         FROM notifications AS n WHERE n.late",
    )
    .fetch_all(pool)
    .await?;
    ensure!(
        late.is_empty(),
        "nothing was away for a minute, yet reminders are late: {late:#?}"
    );
    Ok(())
}

/// A client for each user.
async fn users(scene: &Scene, base: &str) -> Result<Vec<Client>> {
    let mut users = Vec::with_capacity(USERS);
    for number in 0..USERS {
        users.push(scene.client(base, &format!("user-{number:02}")).await?);
    }
    Ok(users)
}

/// Schedules of several kinds, most of which fire in the test's time.
pub(crate) async fn make_schedules(users: &[Client]) -> Result<()> {
    let rules = [
        (
            "every-other-second",
            json!({"cron": "*/2 * * * * *", "time_zone": "UTC"}),
            "allow",
        ),
        (
            "interval",
            json!({"every": "3s", "time_zone": "Europe/Berlin"}),
            "allow",
        ),
        (
            "one-at-a-time",
            json!({"cron": "* * * * * *", "time_zone": "Asia/Kathmandu"}),
            "skip",
        ),
        (
            "daily",
            json!({"cron": "0 9 * * *", "time_zone": "America/New_York"}),
            "allow",
        ),
    ];
    for (user, (name, rule, overlap)) in users.iter().zip(rules) {
        let schedule = json!({
            "name": name,
            "schedule": rule,
            "overlap": overlap,
            "template": {"title": "{{n}} at {{time}}", "tags": ["made"], "due_in": "2s", "reminders": [{"before": "1s"}]},
        });
        user.post("/schedules", &schedule).await?;
    }
    Ok(())
}

/// Pauses every schedule: from then on nothing new comes due.
pub(crate) async fn pause_schedules(users: &[Client]) -> Result<()> {
    for user in users {
        for schedule in user.list("/schedules").await? {
            let paused: Value = user
                .act(&format!("/schedules/{}/pause", text(&schedule, "id")?))
                .await?;
            ensure!(paused["suspended"] == true, "not paused: {paused}");
        }
    }
    Ok(())
}

/// One `todo up` that comes back at the same address.
struct Platform {
    base: String,
    args: Vec<String>,
    process: Process,
    starts: u32,
}

impl Platform {
    async fn start(scene: &Scene, database: &str) -> Result<Self> {
        let listen = format!("127.0.0.1:{}", free_port()?);
        let data_dir = scene.data_dir().display().to_string();
        let args = [
            "up",
            "--listen",
            &listen,
            "--data-dir",
            &data_dir,
            "--database-url",
            database,
        ]
        .map(str::to_owned);
        let process = scene.start("up-0", &args)?;
        let mut platform = Self {
            base: format!("http://{listen}"),
            args: args.into(),
            process,
            starts: 0,
        };
        platform.wait_until_ready().await?;
        Ok(platform)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let ready = client::wait_until_ready(&self.base).await;
        self.still_runs()?;
        ready.with_context(|| format!("it says: {}", self.process.stderr()))
    }

    fn kill(&mut self, scene: &Scene) -> Result<()> {
        self.still_runs()?;
        self.process.kill()?;
        self.starts += 1;
        self.process = scene.start(&format!("up-{}", self.starts), &self.args)?;
        Ok(())
    }

    fn still_runs(&mut self) -> Result<()> {
        match self.process.ended()? {
            None => Ok(()),
            Some(status) => Err(anyhow::anyhow!(
                "it ended by itself ({status}): {}",
                self.process.stderr()
            )),
        }
    }

    async fn stop(mut self) -> Result<()> {
        let status = self.process.stop().await.context("the last stop")?;
        ensure!(status.success(), "it stopped with {status}: {}", self.process.stderr());
        Ok(())
    }
}
