//! From one Deployment with its events inside to services over Kafka and Dapr, while users work: a `kubectl apply`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sqlx::PgPool;
use todo_e2e::client::{Client, text};
use todo_e2e::load::{self, Load};
use todo_e2e::{check, database};

use crate::world::{World, items, ready_containers, until};

/// The first has a task, and schedules that are resources.
const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];
const CLIENTS: u64 = 2;
/// Some twenty requests in a second: two cores have a cluster to run, too.
const THINK: Duration = Duration::from_millis(60);
/// How long users work before the climb, and after it.
const A_WHILE: Duration = Duration::from_secs(6);
const QUIET: Duration = Duration::from_mins(3);
/// The longest that a user may be kept from an answer, with all attempts, while pods of all services start on two cores.
const LONGEST: Duration = Duration::from_secs(15);
/// Schedules that users make, and one that is a resource, each with how often.
const SCHEDULES: [(&str, &str); 2] = [("every-other-second", "2s"), ("every-third-second", "3s")];
const RESOURCE: &str = "often";

/// The platform of `platform.yaml`, and what it gets.
pub(crate) const SPREAD_OUT: &str = "
apiVersion: todoplatform.dev/v1alpha1
kind: TodoPlatform
metadata: {name: home, namespace: first}
spec:
  version: '0.1.0'
  kafka:
    strimzi:
      cluster: {name: events, namespace: kafka}
      user: {create: true}
    topics:
      taskEvents: {partitions: 3, replicas: 1}
      taskUpdates: {partitions: 3, replicas: 1}
      reminders: {partitions: 3, replicas: 1}
  dapr:
    stateStore: {postgresql: {}}
";

/// The smallest platform climbs under load, and nothing is lost, doubled or left out.
pub(crate) async fn under_load(world: &World) -> Result<()> {
    let seed = load::seed("climb");
    let pool = own_database(world).await?;
    let mut users = vec![];
    for name in USERS {
        users.push(world.user("first", "home", name)?);
    }
    let from_before = users[0].list("/tasks").await?;
    for (user, (name, every)) in users[1..].iter().zip(SCHEDULES) {
        let schedule = json!({
            "name": name,
            "schedule": {"every": every, "time_zone": "UTC"},
            "template": {"title": "{{n}}", "due_in": "2s", "reminders": [{"before": "1s"}]},
        });
        user.post("/schedules", &schedule).await?;
    }
    let load = Load::paced(users, CLIENTS, seed, THINK);
    tokio::time::sleep(A_WHILE).await;
    let before = audited(&pool).await?;
    ensure!(before > 0, "nothing was written before the climb");

    let began = Instant::now();
    world.apply(SPREAD_OUT)?;
    world.has_condition("first", "todoplatform/home", "Ready")?;
    until("the pods of one for all to be gone", || async {
        let selector = "--selector=app.kubernetes.io/component=all";
        let left = world.get(&["--namespace", "first", "deployments,pods", selector])?;
        Ok(items(&left)?.is_empty().then_some(()))
    })
    .await?;
    let climbed = began.elapsed();
    world.stage("the platform has climbed");
    let at_the_top = audited(&pool).await?;
    tokio::time::sleep(A_WHILE).await;

    let (ledger, users) = load.finish().await?;
    for task in from_before.iter().filter(|task| task["schedule_id"].is_null()) {
        ledger.shown(0, task);
    }
    pause_schedules(world, &users[1..]).await?;
    check::wait_until_quiet(&pool, QUIET).await?;
    let after = audited(&pool).await?;
    ensure!(after > at_the_top, "nothing has come over Kafka");
    check::promises(&pool).await?;
    let occurrences = each_occurrence_has_its_task(&pool).await?;
    let held = ledger.check(&pool, &users).await?;
    eprintln!("climbed in {climbed:?} with {held:?}, {occurrences} occurrences, {after} events in the audit log");
    ensure!(
        held.slowest < LONGEST,
        "a user was kept from an answer for {:?}",
        held.slowest
    );
    ensure!(
        held.lost_answers * 100 <= u64::try_from(held.acknowledged)?,
        "{} requests failed beside {} states that were answered",
        held.lost_answers,
        held.acknowledged
    );
    ensure!(occurrences > 20, "too little happened for a verdict: {occurrences}");
    it_is_spread_out(world)?;
    world.stage("nothing was lost, doubled or left out on the climb");
    Ok(())
}

/// The platform's own PostgreSQL, which is one pod.
async fn own_database(world: &World) -> Result<PgPool> {
    let pod = world.get(&["--namespace", "first", "pod/home-db-0"])?;
    let address = pod.pointer("/status/podIP").and_then(serde_json::Value::as_str);
    let address = address.context("the database's pod has an address")?;
    let outside = world.leading_to(&format!("{address}:5432"))?;
    let mut url = reqwest::Url::parse(&world.secret("first", "home-db", "url")?)?;
    url.set_host(Some("127.0.0.1"))?;
    url.set_port(Some(outside.port())).ok().context("it has a host")?;
    database::open(url.as_str()).await
}

async fn audited(pool: &PgPool) -> Result<i64> {
    let count = sqlx::query_scalar("SELECT count(*) FROM audit");
    Ok(count.fetch_one(pool).await?)
}

/// From then on nothing new comes due: what users made is paused by them, the resource by whoever looks after it.
async fn pause_schedules(world: &World, users: &[Client]) -> Result<()> {
    for user in users {
        for schedule in user.list("/schedules").await? {
            user.act(&format!("/schedules/{}/pause", text(&schedule, "id")?))
                .await?;
        }
    }
    let suspend = [
        "patch",
        "recurringschedule/often",
        "--type=merge",
        "--patch={\"spec\":{\"suspend\":true}}",
    ];
    world.kubectl(&[&["--namespace", "first"], suspend.as_slice()].concat())?;
    world.has_condition("first", "recurringschedule/often", "Ready")
}

/// No gap, and nothing twice: each schedule made one task for each instant since it was made. How many there were.
async fn each_occurrence_has_its_task(pool: &PgPool) -> Result<usize> {
    let mut all = 0;
    let expected = SCHEDULES.map(|(name, _)| name).into_iter().chain([RESOURCE]);
    let schedules = check::schedules(pool).await?;
    for name in expected {
        let schedule = schedules.iter().find(|schedule| schedule.name == name);
        let schedule = schedule.with_context(|| format!("there is no schedule {name}"))?;
        let (expected, made) = (schedule.expected(schedule.created_at)?, schedule.made_for());
        ensure!(
            made == expected && schedule.missed == 0,
            "{name}: {} missed; without a task: {:?}; not of the rule: {:?}",
            schedule.missed,
            expected.difference(&made).collect::<Vec<_>>(),
            made.difference(&expected).collect::<Vec<_>>()
        );
        all += made.len();
    }
    Ok(all)
}

/// Each service has pods of its own, with a sidecar, and Kafka itself has the topics.
fn it_is_spread_out(world: &World) -> Result<()> {
    let pods = world.get(&[
        "--namespace",
        "first",
        "pods",
        "--selector=todoplatform.dev/platform=home",
    ])?;
    let with_sidecars = items(&pods)?.iter().filter(|pod| ready_containers(pod) == 2).count();
    ensure!(
        with_sidecars >= 5,
        "five pods and more have a sidecar, and both are ready: {with_sidecars}"
    );
    let topics = world.topics_of("home")?;
    ensure!(topics.len() >= 3, "Kafka itself has the topics: {topics:?}");
    Ok(())
}
