//! Walks: a platform that has been through other specs is, in the end, what a fresh one of its last spec is.
//!
//! Each walk goes A → B → C → A over random specs ([`Specs`]), with the whole operator. At each step everything is as it
//! is built and nothing is left of the step before, by what a plan would still do; the platform is ready, or says why
//! something of it is not; and no data have gone. At the end its children are compared with those of a platform of the
//! same name in another namespace that has only ever been A.
//!
//! A walk that fails says its seed: `TODO_WALK=SEED` repeats it, and no other.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{Api, ListParams};
use kube::core::DynamicObject;
use serde_json::Value;
use similar::TextDiff;
use todo_operator::child::Kind;
use todo_operator::discovery;
use todo_operator::names::PLATFORM_LABEL;
use todo_operator::plan::{Plan, against};
use todo_operator::platform::Severity;
use todo_operator::platform::status::ConditionType;
use todo_test_cluster::{Cluster, Options};

use super::ground::{Footing, ground, make_topics, platform};
use super::world::{PATIENCE, World, settings};
use crate::kafka::broker::Broker;
use crate::specs::Specs;

/// Walks that are always walked, on a cluster with every API and on one with none, besides one that is drawn each time.
const ON_FULL: [u64; 3] = [1, 2, 3];
const ON_BARE: [u64; 2] = [5, 6];
/// How many are walked at once.
const AT_ONCE: usize = 4;
/// Between two looks at a platform that is on its way.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The annotations that are made of random secrets or of the namespace's name.
const DRAWN: [&str; 2] = ["todoplatform.dev/tokens-hash", "todoplatform.dev/dapr-hash"];
/// The annotation by which a Deployment counts its own rollouts.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// A platform that walks.
struct Walker {
    world: World,
    footing: Footing,
    name: String,
    /// The UIDs of what holds data, since it was first seen.
    data: BTreeMap<String, String>,
}

/// Where a walk has led.
struct End {
    children: BTreeMap<String, Value>,
    status: Value,
}

impl Walker {
    async fn new(options: Options, name: &str) -> Result<Self> {
        let world = World::new(Cluster::shared_with(options).await?, "walk").await?;
        let footing = Footing::lay(&world, options).await?;
        Ok(Self {
            world,
            footing,
            name: name.to_owned(),
            data: BTreeMap::new(),
        })
    }

    /// Takes the platform through these specs, and answers where it is then.
    async fn walk(&mut self, specs: &[&Value]) -> Result<End> {
        let mut end = None;
        for (number, spec) in specs.iter().enumerate() {
            let arrived = Box::pin(self.step(spec)).await;
            end = Some(arrived.with_context(|| format!("step {}: {spec:#}", number + 1))?);
        }
        end.context("a walk has steps")
    }

    /// Gives the platform this spec and waits until nothing is left to be done for it.
    async fn step(&mut self, spec: &Value) -> Result<End> {
        let spec = &self.footing.placed(spec);
        self.world.platform(&self.name, spec).await?;
        let began = Instant::now();
        loop {
            match Box::pin(self.has_arrived(spec)).await? {
                Ok(end) => {
                    self.check_data(spec, &end)?;
                    return Ok(self.masked(end));
                }
                Err(why) if began.elapsed() > PATIENCE => bail!("it does not arrive: {why}"),
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// What there is now that everything is as it should be, or what is not yet.
    async fn has_arrived(&self, spec: &Value) -> Result<std::result::Result<End, String>> {
        let (world, name) = (&self.world, &self.name);
        self.footing.answer_for_databases(world).await?;
        let found = world.platforms().get(name).await?;
        let status = found.status.clone().unwrap_or_default();
        if status.observed_generation != found.metadata.generation {
            return Ok(Err("its spec has not been looked at".to_owned()));
        }
        let answer = |kind: &str| {
            let mut conditions = status.conditions.iter();
            let found = conditions.find(|condition| condition.type_ == kind);
            found.map_or("", |condition| condition.status.as_str())
        };
        let expected = [
            ("Ready", "True"),
            ("Progressing", "False"),
            ("Migrated", "True"),
            ("TopicsReady", "True"),
        ];
        if expected.iter().any(|(kind, expected)| answer(kind) != *expected) {
            return Ok(Err(format!("{:#?}", status.conditions)));
        }
        let plan = against(
            &world.client,
            &settings(),
            platform(world.namespace.name(), name, spec)?,
        )
        .await?;
        let said = ["DatabaseReady", "Degraded"].map(answer);
        if !plan.changes.is_empty() || said != honest(&plan) {
            let changes: Vec<String> = plan.changes.iter().map(ToString::to_string).collect();
            let changes = changes.concat();
            return Ok(Err(format!("{changes}\n{:#?}\n{said:?}", plan.problems)));
        }
        ensure!(
            worst(&plan) != Some(Severity::Blocking),
            "a spec that is valid is refused: {:#?}",
            plan.problems
        );
        Ok(Ok(End {
            children: self.children().await?,
            status: serde_json::to_value(status)?,
        }))
    }

    /// Every child of the platform, by `KIND NAMESPACE/NAME`, as far as it is the same wherever and whenever it is made.
    async fn children(&self) -> Result<BTreeMap<String, Value>> {
        let world = &self.world;
        let capabilities = discovery::read(&world.client).await?;
        let own = world.namespace.name();
        let labels = ListParams::default().labels(&format!("{PLATFORM_LABEL}={}", self.name));
        let mut children = BTreeMap::new();
        for kind in Kind::ALL {
            let Some(resource) = kind.resource(&capabilities) else {
                continue;
            };
            for namespace in [own, &self.footing.elsewhere] {
                let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), namespace, &resource);
                for mut object in api.list(&labels).await?.items {
                    kind.name().clone_into(&mut object.types.get_or_insert_default().kind);
                    let object = serde_json::to_value(object)?;
                    let name = object["metadata"]["name"].as_str().unwrap_or_default();
                    children.insert(format!("{kind} {namespace}/{name}"), object);
                }
            }
        }
        Ok(children)
    }

    /// What holds data is never replaced, and goes with the platform only where the manifest says so.
    fn check_data(&mut self, spec: &Value, end: &End) -> Result<()> {
        for (name, uid) in &self.data {
            let now = end.children.get(name).map(|object| &object["metadata"]["uid"]);
            ensure!(
                now.and_then(Value::as_str) == Some(uid),
                "{name} held data and is gone or another: {now:?}"
            );
        }
        for (name, object) in &end.children {
            if !holds_data(name, &self.name) {
                continue;
            }
            let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
            self.data.insert(name.clone(), uid.to_owned());
            let goes_along = object["metadata"]["ownerReferences"].is_array();
            ensure!(
                !goes_along || spec["deletionPolicy"] == "Delete",
                "{name} would go with the platform, and the manifest says Retain"
            );
        }
        Ok(())
    }

    /// The end of a walk without what differs from run to run and from place to place.
    fn masked(&self, end: End) -> End {
        let namespace = self.world.namespace.name();
        let is_scaled = |name: &str| {
            let scalers = ["HorizontalPodAutoscaler", "ScaledObject"];
            let scalers = scalers.map(|scaler| name.replace("Deployment", scaler));
            scalers.iter().any(|scaler| end.children.contains_key(scaler))
        };
        let has_scaler = end
            .children
            .keys()
            .any(|name| name.starts_with("Deployment") && is_scaled(name));
        let mut children = BTreeMap::new();
        for (name, mut object) in end.children.clone() {
            self.world.mask(&mut object);
            drop_drawn(&mut object);
            // Its autoscaler may have left it at another number before.
            if name.starts_with("Deployment ") && is_scaled(&name) {
                object["spec"]["replicas"].take();
            }
            // Made once for a release and a database, and left alone: which of several specs it was made of is chance.
            if name.starts_with("Job ") {
                object["spec"].take();
            }
            if object["metadata"]["labels"]["grafana_dashboard"] == "1" {
                mask_dashboards(&mut object, namespace);
            }
            children.insert(name.replace(namespace, "NAMESPACE"), object);
        }
        let mut status = end.status;
        self.world.mask(&mut status);
        // A fresh one has run nothing before.
        status["version"]["previous"].take();
        if has_scaler {
            status["components"].take();
            for condition in status["conditions"].as_array_mut().into_iter().flatten() {
                if condition["type"] == "Ready" {
                    condition["message"].take();
                }
            }
        }
        End { children, status }
    }
}

/// Whether data, or the key to data, goes with an object of the platform.
fn holds_data(name: &str, platform: &str) -> bool {
    let kind = name.split(' ').next().unwrap_or_default();
    let is_key = kind == "Secret" && name.ends_with(&format!("/{platform}-db"));
    is_key || ["StatefulSet", "Cluster", "KafkaTopic"].contains(&kind)
}

/// How much stands in the way, at the most.
fn worst(plan: &Plan) -> Option<Severity> {
    plan.problems.iter().map(|problem| problem.severity).max()
}

/// What `DatabaseReady` and `Degraded` must say then.
fn honest(plan: &Plan) -> [&'static str; 2] {
    let mut serious = plan.problems.iter().filter(|problem| problem.severity > Severity::Note);
    let is_database = serious
        .clone()
        .any(|problem| problem.about == ConditionType::DatabaseReady);
    let is_degraded = serious.next().is_some();
    [!is_database, is_degraded].map(|holds| if holds { "True" } else { "False" })
}

fn drop_drawn(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !DRAWN.contains(&name.as_str()) && name != REVISION);
            fields.values_mut().for_each(drop_drawn);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_drawn),
        _ => {}
    }
}

/// The files of dashboards are called after the namespace, and so is a hash in each.
fn mask_dashboards(map: &mut Value, namespace: &str) {
    let files = map["data"].as_object_mut().map(std::mem::take).unwrap_or_default();
    for (name, text) in files {
        let mut dashboard: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        assert!(dashboard["uid"].take().is_string(), "{name} has no uid");
        map["data"][name.replace(namespace, "NAMESPACE")] = dashboard;
    }
}

/// What of `walked` is not as in `fresh`. Data that the platform once had are still there, with what a database needs to
/// be opened: that is no difference.
fn difference(walked: &End, fresh: &End, platform: &str) -> Option<String> {
    let left = walked
        .children
        .keys()
        .filter(|name| !fresh.children.contains_key(*name));
    let goes_with_data = |name: &str| holds_data(name, platform) || name.ends_with(&format!("/{platform}-db"));
    let left: Vec<&String> = left.filter(|name| !goes_with_data(name)).collect();
    if !left.is_empty() {
        return Some(format!("left from before: {left:?}"));
    }
    for (name, expected) in &fresh.children {
        match walked.children.get(name) {
            None => return Some(format!("{name} is not there")),
            Some(found) if found != expected => return Some(format!("{name}:\n{}", diff(found, expected))),
            Some(_) => {}
        }
    }
    (walked.status != fresh.status).then(|| format!("status:\n{}", diff(&walked.status, &fresh.status)))
}

fn diff(found: &Value, expected: &Value) -> String {
    let (expected, found) = (format!("{expected:#}"), format!("{found:#}"));
    let diff = TextDiff::from_lines(&expected, &found);
    diff.unified_diff()
        .header("a fresh one", "the one that walked")
        .to_string()
}

/// Walks from A to A by way of two others, beside a platform that has only ever been A.
async fn walk(options: Options, seed: u64) -> Result<()> {
    let broker = Broker::shared().await;
    let mut specs = Specs::new(seed, ground(options, broker));
    let [a, b, c] = [specs.next(), specs.next(), specs.next()];
    let name = format!("w{seed:x}");
    // One and the same for all of them, but for how long they are kept.
    let elsewhere = [&a, &b, &c]
        .into_iter()
        .find(|spec| spec.pointer("/kafka/external").is_some());
    if let Some(spec) = elsewhere {
        make_topics(broker, &name, spec).await?;
    }
    let (mut walker, mut other) = tokio::try_join!(Walker::new(options, &name), Walker::new(options, &name))?;
    let (way, shortcut) = ([&a, &b, &c, &a], [&a]);
    let (mut found, mut expected) = tokio::try_join!(walker.walk(&way), other.walk(&shortcut))?;
    let began = Instant::now();
    while let Some(difference) = difference(&found, &expected, &name) {
        ensure!(
            began.elapsed() < PATIENCE,
            "after {a:#}\n{b:#}\n{c:#}\n{a:#}\n{difference}"
        );
        tokio::time::sleep(LOOK_AGAIN).await;
        (found, expected) = tokio::try_join!(walker.step(&a), other.step(&a))?;
    }
    Ok(())
}

async fn walk_all(options: Options, seeds: &[u64]) -> Result<()> {
    let seeds = match std::env::var("TODO_WALK") {
        Ok(seed) => vec![seed.parse().context("TODO_WALK")?],
        Err(_) => seeds.iter().copied().chain([rand::random()]).collect(),
    };
    println!("walks {seeds:?}");
    let walks = seeds.into_iter().map(|seed| async move {
        let began = Instant::now();
        Box::pin(walk(options, seed))
            .await
            .with_context(|| format!("TODO_WALK={seed}"))?;
        println!("walk {seed}: {:?}", began.elapsed());
        anyhow::Ok(())
    });
    stream::iter(walks).buffer_unordered(AT_ONCE).try_collect::<()>().await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_platform_has_been_does_not_show_on_a_cluster_with_every_api() -> Result<()> {
    walk_all(Options::ALL, &ON_FULL).await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_platform_has_been_does_not_show_on_a_bare_cluster() -> Result<()> {
    walk_all(Options::NONE, &ON_BARE).await
}
