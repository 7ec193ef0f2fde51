//! Many platforms from their manifests to settled, and a bare client that applies the same objects.
//!
//! Both begin when the manifests are there and the platforms are not. The operator's time goes from the start of its
//! process until the status of each platform says that all is as asked for; between its steps it waits for the Job and
//! the Deployment of each. The bare client's goes from its first request to its last answer: it sends each object that
//! the operator has made, with the same fields, and the status that each platform ended with, once; as many platforms
//! at once, each in order, and it waits for nothing else. Both have the same account, and the same stand-in beside them.
//!
//! One after the other, several times, since the same work takes a machine more or less time from minute to minute. Each
//! round has a cluster of its own, and who is first in it changes, since the more there is in a cluster, the longer an
//! object takes; and each begins after a rest, since a machine that others share does more after one. What counts are the
//! sums.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use todo_test_cluster::Namespace;
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
const ROUNDS: usize = 4;
/// How long nothing is done before it counts.
const REST: Duration = Duration::from_secs(8);

pub(crate) async fn measure(count: usize) -> Result<()> {
    let (mut operator, mut bare) = (Operator::default(), Bare::default());
    let mut before: Option<Vec<Platform>> = None;
    for number in 0..ROUNDS {
        eprintln!("round {} of {ROUNDS}", number + 1);
        let (ground, namespaces) = Ground::new(&["first", "settle", "bare"]).await?;
        let ground = Arc::new(ground);
        let [first, own, other] = namespaces.each_ref().map(Namespace::name);
        make(&ground, first, FIRST).await?;
        by_the_operator(&ground, first, FIRST).await?;

        let (by_operator, by_bare) = if let Some(made) = before.take() {
            let by_bare = race_bare(&ground, &made, other).await?;
            (race_operator(&ground, own, count).await?, by_bare)
        } else {
            let by_operator = race_operator(&ground, own, count).await?;
            let made = made(&ground, own).await?;
            let by_bare = race_bare(&ground, &made, other).await?;
            before = Some(made);
            (by_operator, by_bare)
        };
        eprintln!("{:.1} s against {:.1} s", by_operator.took, by_bare.took);
        operator.add(&by_operator);
        bare.add(&by_bare);
    }
    figure("settle_platforms", number(count));
    figure("settle_objects", number(bare.objects / ROUNDS));
    let each = |sum: f64| sum / number(ROUNDS);
    figure_beside("settle_s", each(operator.took), each(bare.took));
    let (own, other) = (operator.requests, bare.requests);
    figure_beside("settle_writes", each(number(own.writes)), each(number(other.writes)));
    figure_beside("settle_reads", each(number(own.reads)), each(number(other.reads)));
    figure("settle_processor_s", each(operator.processor));
    figure("settled_mib", operator.memory);
    Ok(())
}

/// What the operator needed.
#[derive(Default)]
struct Operator {
    /// Seconds.
    took: f64,
    /// Seconds of processor in that time.
    processor: f64,
    /// MiB that are resident when it rests.
    memory: f64,
    requests: Requests,
}

impl Operator {
    fn add(&mut self, other: &Self) {
        self.took += other.took;
        self.processor += other.processor;
        self.memory = self.memory.max(other.memory);
        self.requests.add(other.requests);
    }
}

/// What the bare client needed.
#[derive(Default)]
struct Bare {
    /// Seconds.
    took: f64,
    objects: usize,
    requests: Requests,
}

impl Bare {
    fn add(&mut self, other: &Self) {
        self.took += other.took;
        self.objects += other.objects;
        self.requests.add(other.requests);
    }
}

async fn race_operator(ground: &Arc<Ground>, namespace: &str, count: usize) -> Result<Operator> {
    make(ground, namespace, count).await?;
    tokio::time::sleep(REST).await;
    eprintln!("{count} platforms, by the operator");
    let (operator, requests) = ground.counting(by_the_operator(ground, namespace, count)).await?;
    Ok(Operator { requests, ..operator })
}

/// With the objects that the operator has made in another namespace.
async fn race_bare(ground: &Arc<Ground>, made: &[Platform], namespace: &str) -> Result<Bare> {
    make(ground, namespace, made.len()).await?;
    let work = moved(ground, made, namespace).await?;
    let objects: usize = work.iter().map(|platform| platform.children.len()).sum();
    ensure!(objects > work.len(), "{objects} objects of {} platforms", work.len());
    let client = Client::try_from(ground.account().await?)?;
    tokio::time::sleep(REST).await;
    eprintln!("{objects} objects, by a bare client");
    let (took, requests) = ground.counting(by_a_bare_client(client, work)).await?;
    Ok(Bare {
        took: took.as_secs_f64(),
        objects,
        requests,
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

/// Settles the platforms that wait in a namespace. The operator looks into no other: the bare client's are none of its
/// work.
async fn by_the_operator(ground: &Ground, namespace: &str, count: usize) -> Result<Operator> {
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
    let cost = Operator {
        took: (last - began).as_secs_f64(),
        processor: operator.processor_time()?,
        memory: operator.memory_at_rest().await?.now,
        requests: Requests::default(),
    };
    operator.stop().await?;
    Ok(cost)
}

/// One platform's objects, to be applied in this order, and its status.
struct Platform {
    name: String,
    namespace: String,
    uid: String,
    children: Vec<Child>,
    status: Value,
}

struct Child {
    resource: ApiResource,
    name: String,
    is_created: bool,
    body: Value,
}

/// What the operator has made in a namespace.
async fn made(ground: &Ground, namespace: &str) -> Result<Vec<Platform>> {
    let mut children: BTreeMap<String, Vec<Child>> = BTreeMap::new();
    for resource in kinds(&ground.client).await? {
        let api: Api<DynamicObject> = Api::namespaced_with(ground.client.clone(), namespace, &resource);
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
    let platforms = platforms(&ground.client, namespace)
        .list(&ListParams::default())
        .await?;
    let platforms = platforms.items.into_iter().map(|mut platform| {
        let name = platform.name_any();
        let mut children = children.remove(&name).unwrap_or_default();
        // As the operator does it: what runs comes last.
        children.sort_by_key(|child| match child.resource.kind.as_str() {
            "Deployment" => 2,
            "Job" => 1,
            _ => 0,
        });
        Platform {
            namespace: namespace.to_owned(),
            uid: platform.uid().unwrap_or_default(),
            status: platform.data["status"].take(),
            name,
            children,
        }
    });
    Ok(platforms.collect())
}

/// The same for the platforms of the same names in another namespace.
async fn moved(ground: &Ground, made: &[Platform], to: &str) -> Result<Vec<Platform>> {
    let own = platforms(&ground.client, to).list(&ListParams::default()).await?.items;
    ensure!(own.len() == made.len(), "not as many platforms");
    let moved = made.iter().zip(own).map(|(made, own)| {
        let (name, uid) = (own.name_any(), own.uid().unwrap_or_default());
        ensure!(made.name == name, "not the same platforms");
        let moved = |value: &Value| -> Result<Value> {
            let text = value.to_string().replace(&made.namespace, to);
            Ok(serde_json::from_str(&text.replace(&made.uid, &uid))?)
        };
        let children = made.children.iter().map(|child| {
            anyhow::Ok(Child {
                resource: child.resource.clone(),
                name: child.name.clone(),
                is_created: child.is_created,
                body: moved(&child.body)?,
            })
        });
        Ok(Platform {
            namespace: to.to_owned(),
            children: children.collect::<Result<_>>()?,
            status: moved(&made.status)?,
            name,
            uid,
        })
    });
    moved.collect()
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
