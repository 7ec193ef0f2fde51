//! Many platforms from their manifests to settled, and a bare client that applies the same objects.
//!
//! Both begin when the manifests are there and the platforms are not. The operator's time goes from the start of its
//! process until the status of each platform says that all is as asked for; between its steps it waits for the Job and
//! the Deployment of each. The bare client's goes from its first request to its last answer: it sends each object that
//! the operator has made, with the same fields, and the status that each platform ended with, once; as many platforms
//! at once, each in order, and it waits for nothing else. Both have the same account, and the same stand-in beside them.
//!
//! One after the other, several times, since the same work takes a machine more or less time from minute to minute. What
//! counts are the sums.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::ground::{CONCURRENCY, Ground, Requests, Told, at_once, platforms};
use crate::owned::owned;
use crate::watch::{Watch, is_settled};
use crate::{figure, figure_beside, number};

/// By which the operator's own children are found.
const OWN: &str = "app.kubernetes.io/managed-by=todo-operator";
const MANAGER: &str = "todo-operator";
/// How many platforms settle before it counts: the API server is slow with kinds that it has not served yet.
const FIRST: usize = 20;

/// How often both do it.
const ROUNDS: usize = 3;

pub(crate) async fn measure(count: usize) -> Result<()> {
    let rounds: Vec<[String; 2]> = (0..ROUNDS)
        .map(|round| [format!("settle-{round}"), format!("bare-{round}")])
        .collect();
    let hints: Vec<&str> = std::iter::once("first")
        .chain(rounds.iter().flatten().map(String::as_str))
        .collect();
    let (ground, namespaces) = Ground::new(&hints).await?;
    let ground = Arc::new(ground);
    let (first, namespaces) = namespaces.split_first().context("no namespaces")?;
    make(&ground, first.name(), FIRST).await?;
    by_the_operator(&ground, first.name(), FIRST).await?;

    let mut total = Round::default();
    for (number, round) in namespaces.chunks_exact(2).enumerate() {
        eprintln!("round {} of {ROUNDS}", number + 1);
        let round = race(&ground, [round[0].name(), round[1].name()], count).await?;
        eprintln!("{:.1} s against {:.1} s", round.operator.took, round.bare_s);
        total.add(&round);
    }
    figure("settle_platforms", number(count));
    figure("settle_objects", number(total.objects / ROUNDS));
    let each = |sum: f64| sum / number(ROUNDS);
    figure_beside("settle_s", each(total.operator.took), each(total.bare_s));
    let [own, bare] = [total.requests, total.bare_requests];
    figure_beside("settle_writes", each(number(own.writes)), each(number(bare.writes)));
    figure_beside("settle_reads", each(number(own.reads)), each(number(bare.reads)));
    figure("settle_processor_s", each(total.operator.processor));
    figure("settled_mib", total.operator.memory);
    Ok(())
}

/// What each needed.
#[derive(Default)]
struct Round {
    objects: usize,
    operator: Cost,
    requests: Requests,
    bare_s: f64,
    bare_requests: Requests,
}

impl Round {
    fn add(&mut self, other: &Self) {
        self.objects += other.objects;
        self.operator.took += other.operator.took;
        self.operator.processor += other.operator.processor;
        self.operator.memory = self.operator.memory.max(other.operator.memory);
        self.requests.add(other.requests);
        self.bare_s += other.bare_s;
        self.bare_requests.add(other.bare_requests);
    }
}

async fn race(ground: &Arc<Ground>, [own, bare]: [&str; 2], count: usize) -> Result<Round> {
    make(ground, own, count).await?;
    eprintln!("{count} platforms, by the operator");
    let (operator, requests) = ground.counting(by_the_operator(ground, own, count)).await?;

    make(ground, bare, count).await?;
    let work = work(ground, own, bare).await?;
    let objects: usize = work.iter().map(|platform| platform.children.len()).sum();
    ensure!(
        work.len() == count && objects > count,
        "{objects} objects of {} platforms",
        work.len()
    );
    eprintln!("{objects} objects, by a bare client");
    let client = Client::try_from(ground.account().await?)?;
    let (bare_took, bare_requests) = ground.counting(by_a_bare_client(client, work)).await?;
    Ok(Round {
        objects,
        operator,
        requests,
        bare_s: bare_took.as_secs_f64(),
        bare_requests,
    })
}

/// Manifests of platforms.
async fn make(ground: &Arc<Ground>, namespace: &str, count: usize) -> Result<()> {
    ground.database(namespace).await?;
    let (ground, namespace) = (Arc::clone(ground), namespace.to_owned());
    at_once(count, move |number| {
        let (ground, namespace) = (Arc::clone(&ground), namespace.clone());
        async move {
            ground.platform(&namespace, &format!("p{number:04}")).await?;
            Ok(())
        }
    })
    .await
}

/// What it cost the operator.
#[derive(Default)]
struct Cost {
    /// Seconds.
    took: f64,
    /// Seconds of processor in that time.
    processor: f64,
    /// MiB that are resident when it rests.
    memory: f64,
}

/// Settles the platforms that wait in a namespace. The operator looks into no other: there are those of rounds before.
async fn by_the_operator(ground: &Ground, namespace: &str, count: usize) -> Result<Cost> {
    let mut homes = Watch::start(platforms(&ground.client, namespace));
    let mut settled = BTreeMap::new();
    let began = Instant::now();
    let mut operator = ground.begin(Told {
        namespace: Some(namespace),
        ..Told::default()
    })?;
    let all_settled = homes.until(|platform| {
        settled.insert(platform.name_any(), is_settled(platform));
        settled.values().filter(|is_settled| **is_settled).count() == count
    });
    let last = operator.during(all_settled).await?;
    let cost = Cost {
        took: (last - began).as_secs_f64(),
        processor: operator.processor_time()?,
        memory: operator.memory_at_rest().await?.now,
    };
    operator.stop().await?;
    Ok(cost)
}

/// One platform's objects, to be applied in this order, and its status.
struct Platform {
    name: String,
    namespace: String,
    children: Vec<Child>,
    status: Value,
}

struct Child {
    resource: ApiResource,
    name: String,
    is_created: bool,
    body: Value,
}

/// What the operator has made in a namespace, for the platforms of the same names in another.
async fn work(ground: &Ground, from: &str, to: &str) -> Result<Vec<Platform>> {
    let mut children: BTreeMap<String, Vec<Child>> = BTreeMap::new();
    for resource in kinds(&ground.client).await? {
        let api: Api<DynamicObject> = Api::namespaced_with(ground.client.clone(), from, &resource);
        for object in api.list(&ListParams::default().labels(OWN)).await? {
            let platform = object.labels().get("todoplatform.dev/platform").cloned();
            let Some((platform, owned)) = platform.zip(owned(&object, &resource.api_version, &resource.kind)) else {
                continue;
            };
            children.entry(platform).or_default().push(Child {
                resource: resource.clone(),
                name: object.name_any(),
                is_created: owned.is_created,
                body: owned.body,
            });
        }
    }
    let theirs = platforms(&ground.client, from)
        .list(&ListParams::default())
        .await?
        .items;
    let own = platforms(&ground.client, to).list(&ListParams::default()).await?.items;
    let mut work = vec![];
    for (theirs, own) in theirs.iter().zip(own) {
        let name = own.name_any();
        ensure!(theirs.name_any() == name, "not the same platforms");
        let moved = |value: &Value| -> Result<Value> {
            let text = value.to_string().replace(from, to);
            let uid = |object: &DynamicObject| object.uid().unwrap_or_default();
            Ok(serde_json::from_str(&text.replace(&uid(theirs), &uid(&own)))?)
        };
        let mut children = children.remove(&name).unwrap_or_default();
        for child in &mut children {
            child.body = moved(&child.body)?;
        }
        // As the operator does it: what runs comes last.
        children.sort_by_key(|child| match child.resource.kind.as_str() {
            "Deployment" => 2,
            "Job" => 1,
            _ => 0,
        });
        work.push(Platform {
            status: moved(&theirs.data["status"])?,
            namespace: to.to_owned(),
            name,
            children,
        });
    }
    Ok(work)
}

/// Every kind that may be listed in a namespace.
async fn kinds(client: &Client) -> Result<Vec<ApiResource>> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let groups = discovery.groups();
    let recommended = groups.flat_map(kube::discovery::ApiGroup::recommended_resources);
    let listed = recommended.filter(|(_, capabilities)| {
        capabilities.scope == Scope::Namespaced && capabilities.supports_operation(verbs::LIST)
    });
    Ok(listed.map(|(resource, _)| resource).collect())
}

/// Applies everything, and says how long it took.
async fn by_a_bare_client(client: Client, work: Vec<Platform>) -> Result<Duration> {
    let work = Arc::new(work);
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..CONCURRENCY {
        let (client, work, next) = (client.clone(), Arc::clone(&work), Arc::clone(&next));
        workers.spawn(async move {
            while let Some(platform) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                settle(&client, platform).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = workers.join_next().await {
        done??;
    }
    Ok(began.elapsed())
}

async fn settle(client: &Client, platform: &Platform) -> Result<()> {
    let apply = PatchParams::apply(MANAGER).force();
    for child in &platform.children {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &platform.namespace, &child.resource);
        if child.is_created {
            let object: DynamicObject = serde_json::from_value(child.body.clone())?;
            api.create(&PostParams::default(), &object).await?;
        } else {
            api.patch(&child.name, &apply, &Patch::Apply(&child.body)).await?;
        }
    }
    let status = json!({
        "apiVersion": "todoplatform.dev/v1alpha1",
        "kind": "TodoPlatform",
        "status": platform.status,
    });
    platforms(client, &platform.namespace)
        .patch_status(&platform.name, &apply, &Patch::Apply(&status))
        .await?;
    Ok(())
}
