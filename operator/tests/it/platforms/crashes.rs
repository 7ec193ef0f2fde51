//! An operator that ends at any of its writes, before it or after it, leaves what the next one makes whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use similar::TextDiff;
use todo_test_cluster::{Cluster, Options};
use tokio::sync::Semaphore;

use super::tap::{Crash, Write};
use super::world::World;

/// How many platforms are made at once.
const AT_ONCE: usize = 4;

fn spec() -> Value {
    json!({"version": "1.0.0", "api": {"replicas": 2}, "networkPolicy": true})
}

/// What a run left, without what differs from run to run, and how much it made and deleted.
#[derive(Debug, PartialEq)]
pub(super) struct End {
    objects: BTreeMap<String, Value>,
    created: Vec<String>,
    deleted: Vec<String>,
}

impl End {
    /// What was made and deleted by writes of which no answer says whether they were done: the same was done here as in
    /// `expected`, as far as one of these may have done it. That it is there, or gone, show the objects.
    pub(super) fn credit(&mut self, world: &World, unanswered: &[Write], expected: &Self) {
        for write in paths(world, unanswered, |_| true) {
            for (done, expected) in [
                (&mut self.created, &expected.created),
                (&mut self.deleted, &expected.deleted),
            ] {
                let count = |paths: &[String]| paths.iter().filter(|path| **path == write).count();
                if count(done) < count(expected) {
                    done.push(write.clone());
                    done.sort();
                }
            }
        }
    }
}

pub(super) async fn end(world: &World, writes: &[Write]) -> Result<End> {
    let mut objects = BTreeMap::new();
    for (name, mut object) in world.objects().await? {
        world.mask(&mut object);
        objects.insert(name, object);
    }
    Ok(End {
        objects,
        created: paths(world, writes, Write::created),
        deleted: paths(world, writes, Write::deleted),
    })
}

/// What was written to, each as often as it was.
fn paths(world: &World, writes: &[Write], which: fn(&Write) -> bool) -> Vec<String> {
    let written = writes.iter().filter(|write| which(write));
    let mut paths: Vec<String> = written
        .map(|write| {
            format!(
                "{} {}",
                write.method,
                write.path.replace(world.namespace.name(), "NAMESPACE")
            )
        })
        .collect();
    paths.sort();
    paths
}

/// Makes a platform, and ends the operator once on the way.
async fn run(crash: Option<Crash>) -> Result<(End, usize)> {
    let cluster = Cluster::shared_with(Options::NONE).await?;
    let mut world = World::new(cluster, "crash").await?;
    if let Some(crash) = crash {
        world.tap.crash_at(crash);
    }
    world.platform("acme", &spec()).await?;
    if crash.is_some() {
        tokio::time::timeout(super::world::PATIENCE, world.tap.crashed())
            .await
            .context("it did not come to that write")?;
        world.kill_operator();
        world.tap.revive();
        world.start_operator().await?;
    }
    world.wait_for("acme", "Ready", "True").await?;
    world.wait_for("acme", "Progressing", "False Settled").await?;
    world.until_quiet().await?;
    let writes = world.tap.take();
    Ok((end(&world, &writes).await?, writes.len()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_may_end_at_any_write() -> Result<()> {
    let (whole, writes) = run(None).await?;
    ensure!(writes >= 15, "{writes} writes are too few to be all");
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let crashes = (1..=writes).flat_map(|number| [Crash::Before(number), Crash::After(number)]);
    let mut runs = tokio::task::JoinSet::new();
    for crash in crashes {
        let room = Arc::clone(&room);
        runs.spawn(async move {
            let _room = room.acquire().await;
            (crash, run(Some(crash)).await)
        });
    }
    let mut reached = 0;
    while let Some(run) = runs.join_next().await {
        let (crash, outcome) = run?;
        match outcome {
            Ok((end, _)) => {
                reached += 1;
                let (expected, left) = (format!("{whole:#?}"), format!("{end:#?}"));
                ensure!(
                    end == whole,
                    "{crash:?}:\n{}",
                    TextDiff::from_lines(&expected, &left).unified_diff()
                );
            }
            // Statuses are written as often as pods come and go, so the last writes are not always reached.
            Err(error) if error.to_string().contains("did not come to that write") => {}
            Err(error) => return Err(error.context(format!("{crash:?}"))),
        }
    }
    ensure!(
        reached + 8 >= 2 * writes,
        "only {reached} of {} crashes happened",
        2 * writes
    );
    println!("{reached} crashes at {writes} writes");
    Ok(())
}
