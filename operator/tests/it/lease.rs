//! The election on a real API server, with contenders that stop, freeze, and lose the way to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::client::ClientBuilder;
use kube::{Api, Client, Config};
use serde_json::{from_value, json};
use todo_operator::error::{Call, Error};
use todo_operator::lease::{Election, Ended, Leadership, Settings, identity};
use todo_test_cluster::{Cluster, Options, Program};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::scene::{PATIENCE, eventually};

const NAME: &str = "todo-operator";
const DURATION: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(4);
const EVERY: Duration = Duration::from_millis(400);

fn settings(namespace: &str) -> Settings {
    Settings {
        duration: DURATION,
        renew_deadline: DEADLINE,
        renew_every: EVERY,
        ..Settings::new(namespace, NAME, identity("pod"))
    }
}

/// One contender in this runtime.
struct Contender {
    leadership: Leadership,
    stop: CancellationToken,
    task: JoinHandle<Ended>,
}

impl Contender {
    fn start(client: Client, namespace: &str) -> Self {
        let election = Election::new(client, settings(namespace));
        let leadership = election.leadership();
        let stop = CancellationToken::new();
        let task = tokio::spawn(election.run(stop.clone()));
        Self { leadership, stop, task }
    }

    async fn leads(&self) -> Result<()> {
        eventually(|| self.leadership.is_leading()).await
    }
}

/// Looks again and again whether two lead at once, on a thread of its own.
struct Referee {
    is_over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<usize>,
}

impl Referee {
    fn watch(leaderships: Vec<Leadership>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let thread = std::thread::spawn(move || {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(leaderships.iter().filter(|leadership| leadership.is_leading()).count());
                std::thread::sleep(Duration::from_millis(1));
            }
            most
        });
        Self { is_over, thread }
    }

    /// The most that led at once.
    fn most(self) -> usize {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[tokio::test]
async fn of_three_one_leads_and_when_it_stops_the_next_follows_at_once() -> Result<()> {
    let cluster = Cluster::shared_with(Options::NONE).await?;
    let namespace = cluster.namespace("election").await?;
    let mut contenders = vec![];
    for _ in 0..3 {
        contenders.push(Contender::start(cluster.client().await?, namespace.name()));
    }
    let referee = Referee::watch(
        contenders
            .iter()
            .map(|contender| contender.leadership.clone())
            .collect(),
    );
    while !contenders.is_empty() {
        eventually(|| contenders.iter().any(|contender| contender.leadership.is_leading())).await?;
        let at = contenders
            .iter()
            .position(|contender| contender.leadership.is_leading())
            .unwrap();
        let leader = contenders.swap_remove(at);
        // Longer than a lease without renewal lasts.
        tokio::time::sleep(DURATION + EVERY).await;
        assert!(leader.leadership.is_leading());
        assert!(contenders.iter().all(|contender| !contender.leadership.is_leading()));
        let began = Instant::now();
        leader.stop.cancel();
        assert_eq!(leader.task.await?, Ended::Stopped);
        assert!(!leader.leadership.is_leading());
        if !contenders.is_empty() {
            eventually(|| contenders.iter().any(|contender| contender.leadership.is_leading())).await?;
            assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
        }
    }
    assert_eq!(referee.most(), 1);
    let lease = namespace.api::<Lease>().get(NAME).await?.spec.unwrap();
    assert_eq!(lease.holder_identity, None);
    assert_eq!(lease.lease_transitions, Some(2));
    Ok(())
}

#[tokio::test]
async fn many_that_begin_together_find_one_leader() -> Result<()> {
    let cluster = Cluster::shared_with(Options::NONE).await?;
    let namespace = cluster.namespace("rush").await?;
    let client = cluster.client().await?;
    for _ in 0..5 {
        let contenders: Vec<_> = (0..8)
            .map(|_| Contender::start(client.clone(), namespace.name()))
            .collect();
        let referee = Referee::watch(
            contenders
                .iter()
                .map(|contender| contender.leadership.clone())
                .collect(),
        );
        eventually(|| contenders.iter().any(|contender| contender.leadership.is_leading())).await?;
        tokio::time::sleep(3 * EVERY).await;
        assert_eq!(referee.most(), 1);
        // All at once, and those that stand by first, so that none takes over in between.
        let (leads, stands_by): (Vec<_>, Vec<_>) = contenders
            .into_iter()
            .partition(|contender| contender.leadership.is_leading());
        for contender in stands_by.into_iter().chain(leads) {
            contender.stop.cancel();
            assert_eq!(contender.task.await?, Ended::Stopped);
        }
    }
    Ok(())
}

/// A contender on a thread of its own, which can be stopped where it stands: no timer of its runs, nothing is awaited.
struct Frozen {
    leadership: Leadership,
    freeze: std::sync::mpsc::Sender<Duration>,
    thread: std::thread::JoinHandle<(Ended, Vec<String>)>,
}

impl Frozen {
    fn start(config: Config, namespace: &str) -> Self {
        let (hand_over, leadership) = std::sync::mpsc::channel();
        let (freeze, frozen) = std::sync::mpsc::channel::<Duration>();
        let namespace = namespace.to_owned();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let client = Client::try_from(config.clone()).unwrap();
                let election = Election::new(client, settings(&namespace));
                let leadership = election.leadership();
                let fenced = ClientBuilder::try_from(config)
                    .unwrap()
                    .with_layer(&leadership.fence())
                    .build();
                hand_over.send(leadership).unwrap();
                let ended = tokio::spawn(election.run(CancellationToken::new()));
                let maps: Api<ConfigMap> = Api::namespaced(fenced, &namespace);
                let mut said = vec![];
                loop {
                    if let Ok(nap) = frozen.try_recv() {
                        // The whole thread: no other task of it runs, and no timer.
                        std::thread::sleep(nap);
                        // The first thing that a woken process does is what it was about to do.
                        let late = from_value(json!({"metadata": {"name": "late"}})).unwrap();
                        let written = maps.create(&PostParams::default(), &late).await;
                        let written = written.map_err(|error| Call::new("create", "configmaps", "", "").failed(error));
                        said.push(format!(
                            "{:?}",
                            written.map(|_| ()).map_err(|error| matches!(error, Error::NotLeading))
                        ));
                        return (ended.await.unwrap(), said);
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        });
        Self {
            leadership: leadership.recv().unwrap(),
            freeze,
            thread,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_is_followed_and_writes_nothing_when_it_wakes() -> Result<()> {
    let cluster = Cluster::shared_with(Options::NONE).await?;
    let namespace = cluster.namespace("frozen").await?;
    let frozen = Frozen::start(cluster.config().await?, namespace.name());
    eventually(|| frozen.leadership.is_leading()).await?;
    let next = Contender::start(cluster.client().await?, namespace.name());
    // Until it has seen who leads.
    tokio::time::sleep(2 * EVERY).await;
    let referee = Referee::watch(vec![frozen.leadership.clone(), next.leadership.clone()]);
    let began = Instant::now();
    frozen.freeze.send(2 * DURATION)?;
    next.leads().await?;
    // From its last renewal, which was up to one interval before, and it is looked at once in an interval.
    assert!(began.elapsed() + 2 * EVERY >= DURATION, "{:?}", began.elapsed());
    assert!(began.elapsed() < DURATION + 10 * EVERY, "{:?}", began.elapsed());
    let (ended, said) = frozen.thread.join().unwrap();
    assert_eq!((ended, said), (Ended::Lost, vec!["Err(true)".to_owned()]));
    assert!(namespace.api::<ConfigMap>().get_opt("late").await?.is_none());
    assert!(next.leadership.is_leading());
    assert_eq!(referee.most(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_api_server_the_leader_stops_in_time_and_someone_leads_when_it_is_back() -> Result<()> {
    let cluster = Cluster::start(Options::NONE).await?;
    let namespace = cluster.namespace("away").await?;
    let first = Contender::start(cluster.client().await?, namespace.name());
    first.leads().await?;
    let second = Contender::start(cluster.client().await?, namespace.name());
    tokio::time::sleep(2 * EVERY).await;
    let referee = Referee::watch(vec![first.leadership.clone(), second.leadership.clone()]);
    cluster.kill_program(Program::ApiServer)?;
    let began = Instant::now();
    assert_eq!(first.task.await?, Ended::Lost);
    assert!(began.elapsed() <= DEADLINE + EVERY, "{:?}", began.elapsed());
    assert!(!first.leadership.is_leading());
    cluster.start_program(Program::ApiServer).await?;
    second.leads().await?;
    assert_eq!(referee.most(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_hangs_costs_the_lead_in_time_too() -> Result<()> {
    let cluster = Cluster::start(Options::NONE).await?;
    let namespace = cluster.namespace("hangs").await?;
    let first = Contender::start(cluster.client().await?, namespace.name());
    first.leads().await?;
    let second = Contender::start(cluster.client().await?, namespace.name());
    tokio::time::sleep(2 * EVERY).await;
    let referee = Referee::watch(vec![first.leadership.clone(), second.leadership.clone()]);
    cluster.pause_program(Program::ApiServer)?;
    let began = Instant::now();
    assert_eq!(first.task.await?, Ended::Lost);
    assert!(began.elapsed() <= DEADLINE + EVERY, "{:?}", began.elapsed());
    tokio::time::sleep(DURATION).await;
    // What was sent and not answered is answered now, whoever still wants it.
    cluster.resume_program(Program::ApiServer)?;
    second.leads().await?;
    tokio::time::sleep(DURATION).await;
    assert!(second.leadership.is_leading());
    assert_eq!(referee.most(), 1);
    Ok(())
}

#[tokio::test]
async fn a_short_absence_of_the_api_server_costs_nothing() -> Result<()> {
    let cluster = Cluster::start(Options::NONE).await?;
    let namespace = cluster.namespace("blip").await?;
    let leader = Contender::start(cluster.client().await?, namespace.name());
    leader.leads().await?;
    cluster.pause_program(Program::ApiServer)?;
    tokio::time::sleep(2 * EVERY).await;
    cluster.resume_program(Program::ApiServer)?;
    tokio::time::sleep(DURATION).await;
    assert!(leader.leadership.is_leading());
    Ok(())
}

#[tokio::test]
async fn the_clock_of_another_is_not_believed() -> Result<()> {
    let cluster = Cluster::shared_with(Options::NONE).await?;
    for renewed in ["1999-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"] {
        let namespace = cluster.namespace("clocks").await?;
        let lease = json!({"metadata": {"name": NAME}, "spec": {
            "holderIdentity": "another", "leaseDurationSeconds": 3, "renewTime": renewed, "acquireTime": renewed}});
        let leases = namespace.api::<Lease>();
        leases.create(&PostParams::default(), &from_value(lease)?).await?;
        let began = Instant::now();
        let contender = Contender::start(cluster.client().await?, namespace.name());
        contender.leads().await?;
        assert!(began.elapsed() >= DURATION, "{renewed}: {:?}", began.elapsed());
        assert!(
            began.elapsed() < DURATION + 10 * EVERY,
            "{renewed}: {:?}",
            began.elapsed()
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_lease_that_another_renews_is_left_to_it_whatever_its_clock_says() -> Result<()> {
    let cluster = Cluster::shared_with(Options::NONE).await?;
    let namespace = cluster.namespace("slow-clock").await?;
    let leases = namespace.api::<Lease>();
    let lease = json!({"metadata": {"name": NAME}, "spec": {"holderIdentity": "another", "leaseDurationSeconds": 3}});
    leases.create(&PostParams::default(), &from_value(lease)?).await?;
    let contender = Contender::start(cluster.client().await?, namespace.name());
    for second in 0..12 {
        let renewed = json!({"spec": {"renewTime": format!("1999-01-01T00:00:{second:02}.000000Z")}});
        leases
            .patch(NAME, &PatchParams::default(), &Patch::Merge(&renewed))
            .await?;
        tokio::time::sleep(DURATION / 6).await;
        assert!(!contender.leadership.is_leading(), "{second}");
    }
    // And one that says that it keeps others out for longer than this one would.
    let longer = json!({"spec": {"leaseDurationSeconds": 2 * DURATION.as_secs()}});
    leases
        .patch(NAME, &PatchParams::default(), &Patch::Merge(&longer))
        .await?;
    let began = Instant::now();
    contender.leads().await?;
    assert!(began.elapsed() >= 2 * DURATION, "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_label_on_the_lease_does_not_cost_the_lead_and_another_holder_does() -> Result<()> {
    let cluster = Cluster::shared_with(Options::NONE).await?;
    let namespace = cluster.namespace("edited").await?;
    let leases = namespace.api::<Lease>();
    let leader = Contender::start(cluster.client().await?, namespace.name());
    leader.leads().await?;
    for label in 0..4 {
        let edit = json!({"metadata": {"labels": {"edited": label.to_string()}}});
        leases
            .patch(NAME, &PatchParams::default(), &Patch::Merge(&edit))
            .await?;
        tokio::time::sleep(EVERY * 2).await;
        assert!(leader.leadership.is_leading());
    }
    let taken = json!({"spec": {"holderIdentity": "another"}});
    leases
        .patch(NAME, &PatchParams::default(), &Patch::Merge(&taken))
        .await?;
    let ended = tokio::time::timeout(PATIENCE, leader.task).await??;
    assert_eq!(ended, Ended::Lost);
    Ok(())
}

#[tokio::test]
async fn one_that_stands_by_does_not_take_a_lease_that_was_deleted_under_its_holder() -> Result<()> {
    let cluster = Cluster::shared_with(Options::NONE).await?;
    let namespace = cluster.namespace("vanished").await?;
    let first = Contender::start(cluster.client().await?, namespace.name());
    first.leads().await?;
    let second = Contender::start(cluster.client().await?, namespace.name());
    tokio::time::sleep(3 * EVERY).await;
    let referee = Referee::watch(vec![first.leadership.clone(), second.leadership.clone()]);
    namespace.api::<Lease>().delete(NAME, &DeleteParams::default()).await?;
    assert_eq!(tokio::time::timeout(PATIENCE, first.task).await??, Ended::Lost);
    second.leads().await?;
    assert_eq!(referee.most(), 1);
    Ok(())
}
