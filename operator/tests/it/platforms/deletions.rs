//! Platforms, schedules, namespaces and Kafka go in any order, with the operator there or away: nothing hangs, and nothing
//! is left but what is to be kept.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Secret};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};
use todo_crds::RecurringSchedule;
use todo_operator::connection;
use todo_operator::names::FINALIZER;
use todo_operator::pace::Pace;
use todo_test_cluster::{Cluster, Options, StandInKafka, StandInTopicOperator, StandInUserOperator};

use super::world::{PATIENCE, World};

/// Seconds instead of minutes, until a platform goes without what will not go.
const NOT_LONG: Duration = Duration::from_secs(3);
/// Longer than a busy machine takes for what goes.
const LONG: Duration = Duration::from_secs(30);

/// A world whose operator waits so long for what is to go with a platform.
async fn world(hint: &str, let_go: Duration) -> Result<World> {
    let pace = Pace {
        let_go,
        look_again: Duration::from_millis(500),
        ..Pace::default()
    };
    World::at_pace(Cluster::shared().await?, hint, pace, connection::PATIENCE).await
}

/// A Kafka in a namespace of its own, or in the platforms'.
struct Strimzi {
    namespace: String,
    client: Client,
    kafka: StandInKafka,
    operators: Option<(StandInTopicOperator, StandInUserOperator)>,
}

impl Strimzi {
    async fn elsewhere(world: &World) -> Result<Self> {
        let namespace = format!("{}-kafka", world.namespace.name());
        let object = serde_json::from_value(json!({"metadata": {"name": namespace}}))?;
        Api::<Namespace>::all(world.client.clone())
            .create(&PostParams::default(), &object)
            .await?;
        Self::within(world, namespace).await
    }

    async fn beside(world: &World) -> Result<Self> {
        Self::within(world, world.namespace.name().to_owned()).await
    }

    async fn within(world: &World, namespace: String) -> Result<Self> {
        let client = world.client.clone();
        let mut strimzi = Self {
            namespace,
            client,
            kafka: StandInKafka::new(),
            operators: None,
        };
        let listener = json!({"name": "plain", "port": 9092, "type": "internal", "tls": false,
            "authentication": {"type": "scram-sha-512"}});
        let object = json!({
            "apiVersion": "kafka.strimzi.io/v1", "kind": "Kafka", "metadata": {"name": "events"},
            "spec": {"kafka": {"listeners": [listener]}},
        });
        let opened =
            json!({"status": {"listeners": [{"name": "plain", "bootstrapServers": "events-kafka-bootstrap:9092"}]}});
        let api = strimzi.api("Kafka");
        let parameters = PatchParams::apply("a-person");
        api.patch("events", &parameters, &Patch::Apply(&object)).await?;
        api.patch_status("events", &PatchParams::default(), &Patch::Merge(&opened))
            .await?;
        strimzi.begin()?;
        Ok(strimzi)
    }

    /// Strimzi's operators are there.
    fn begin(&mut self) -> Result<()> {
        self.operators = Some((
            StandInTopicOperator::start(self.client.clone(), &self.namespace, self.kafka.clone()),
            StandInUserOperator::start(self.client.clone(), &self.namespace)?,
        ));
        Ok(())
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("kafka.strimzi.io", "v1", kind));
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    async fn count(&self, kind: &str) -> Result<usize> {
        Ok(self.api(kind).list(&ListParams::default()).await?.items.len())
    }

    async fn until_nothing_is_left(&self) -> Result<()> {
        until("the topics and the user go", async || {
            let objects = self.count("KafkaTopic").await? + self.count("KafkaUser").await?;
            Ok(objects == 0 && self.kafka.topics().is_empty())
        })
        .await?;
        Ok(())
    }

    async fn is_gone(&self) -> Result<bool> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        Ok(api.get_opt(&self.namespace).await?.is_none())
    }

    async fn delete_namespace(&self) -> Result<()> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.delete(&self.namespace, &DeleteParams::default()).await?;
        Ok(())
    }

    fn spec(&self, policy: &str) -> Value {
        over_kafka(
            policy,
            &json!({"strimzi": {"cluster": {"name": "events", "namespace": self.namespace}}}),
        )
    }
}

pub(super) fn over_kafka(policy: &str, kafka: &Value) -> Value {
    json!({
        "version": "1.0.0",
        "deletionPolicy": policy,
        "database": {"urlSecretRef": {"name": "acme-db", "key": "url"}},
        "kafka": kafka,
        "dapr": {"stateStore": {"postgresql": {}}},
    })
}

/// A platform that is ready, and what it refers to.
async fn settled(world: &World, spec: &Value) -> Result<()> {
    world
        .secret("acme-db", &json!({"url": "postgres://todo:secret@db/todo"}))
        .await?;
    world.platform("acme", spec).await?;
    world.wait_for("acme", "Progressing", "False Settled").await?;
    world.wait_for("acme", "Ready", "True").await?;
    Ok(())
}

/// Schedules that their platform has taken over, as their finalizers say.
async fn taken_over(world: &World, names: &[&str]) -> Result<()> {
    for name in names {
        world
            .apply(&json!({
                "apiVersion": "todoplatform.dev/v1alpha1",
                "kind": "RecurringSchedule",
                "metadata": {"name": name, "finalizers": [FINALIZER]},
                "spec": {
                    "platformRef": {"name": "acme"},
                    "user": "ada",
                    "schedule": {"cron": "0 9 * * *"},
                    "template": {"title": "a task"},
                },
            }))
            .await?;
    }
    Ok(())
}

async fn delete_schedules(world: &World, names: &[&str]) -> Result<()> {
    let api: Api<RecurringSchedule> = world.namespace.api();
    for name in names {
        api.delete(name, &DeleteParams::default()).await?;
    }
    Ok(())
}

async fn delete_platform(world: &World) -> Result<()> {
    world.platforms().delete("acme", &DeleteParams::default()).await?;
    Ok(())
}

pub(super) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<Duration> {
    let began = Instant::now();
    while !is_so().await? {
        ensure!(began.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(began.elapsed())
}

/// Waits until nothing of the platform is in its namespace, nor any schedule, and returns how long that took.
async fn until_nothing_is_left(world: &World) -> Result<Duration> {
    let schedules: Api<RecurringSchedule> = world.namespace.api();
    let took = until("the platform and its schedules go", async || {
        let is_left = !schedules.list(&ListParams::default()).await?.items.is_empty();
        Ok(!is_left && world.platforms().get_opt("acme").await?.is_none())
    })
    .await?;
    until("the children go", async || Ok(world.children("acme").await?.is_empty())).await?;
    Ok(took)
}

/// What the operator says in the end is there a moment later than what it does.
async fn until_told(world: &World, beginning: &str) -> Result<String> {
    let mut found = None;
    until(beginning, async || {
        let events = world.events("acme").await?;
        found = events.into_iter().find(|event| event.starts_with(beginning));
        Ok(found.is_some())
    })
    .await?;
    found.context("no event")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_and_its_schedules_go_in_any_order() -> Result<()> {
    let mut world = world("order", LONG).await?;
    let strimzi = Strimzi::elsewhere(&world).await?;
    let names = ["one", "two", "three"];
    for order in ["platform first", "schedules first", "at once", "with the operator away"] {
        settled(&world, &strimzi.spec("Delete")).await?;
        let topics = strimzi.kafka.topics();
        ensure!(topics.len() > 3, "{topics:?}");
        taken_over(&world, &names).await?;
        match order {
            "platform first" => {
                delete_platform(&world).await?;
                until("the platform goes", async || {
                    Ok(world.platforms().get_opt("acme").await?.is_none())
                })
                .await?;
                delete_schedules(&world, &names).await?;
            }
            "schedules first" => {
                delete_schedules(&world, &names).await?;
                // Nobody answers here for the platform, which may still make their tasks: so they wait for it.
                tokio::time::sleep(Duration::from_secs(1)).await;
                delete_platform(&world).await?;
            }
            "at once" => {
                tokio::try_join!(delete_platform(&world), delete_schedules(&world, &names))?;
            }
            _ => {
                world.stop_operator().await?;
                tokio::try_join!(delete_platform(&world), delete_schedules(&world, &names))?;
                tokio::time::sleep(Duration::from_secs(1)).await;
                ensure!(strimzi.kafka.topics() == topics, "who deleted them?");
                world.start_operator().await?;
            }
        }
        let took = until_nothing_is_left(&world).await.context(order)?;
        strimzi.until_nothing_is_left().await.context(order)?;
        let events = world.events("acme").await?;
        ensure!(
            !events.iter().any(|event| event.contains("LeftBehind")),
            "{order}: {events:?}"
        );
        println!("{order}: {took:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_at_once_with_all_that_is_in_it() -> Result<()> {
    for is_beside in [true, false] {
        let world = world("whole", LONG).await?;
        let strimzi = if is_beside {
            Strimzi::beside(&world).await?
        } else {
            Strimzi::elsewhere(&world).await?
        };
        settled(&world, &strimzi.spec("Delete")).await?;
        world.secret("somebodys-own", &json!({"value": "x"})).await?;
        taken_over(&world, &["one", "two"]).await?;
        let began = Instant::now();
        world.namespace.delete().await?;
        println!("beside: {is_beside}, {:?}", began.elapsed());
        ensure!(strimzi.count("KafkaTopic").await? == 0, "topics are left");
        ensure!(strimzi.count("KafkaUser").await? == 0, "a user is left");
        ensure!(strimzi.kafka.topics().is_empty(), "{:?}", strimzi.kafka.topics());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_told_of_with_its_place() -> Result<()> {
    let world = world("kept", LONG).await?;
    let strimzi = Strimzi::elsewhere(&world).await?;
    settled(&world, &strimzi.spec("Retain")).await?;
    let topics = strimzi.kafka.topics();
    delete_platform(&world).await?;
    until_nothing_is_left(&world).await?;
    let said = until_told(&world, "Normal Retained").await?;
    let place = format!("{}/acme-task-events", strimzi.namespace);
    ensure!(said.contains(&place), "{place} is not in: {said}");
    ensure!(strimzi.kafka.topics() == topics, "{:?}", strimzi.kafka.topics());
    ensure!(
        strimzi.count("KafkaTopic").await? == topics.len(),
        "kept, and nobody looks after them"
    );
    until("the right to write there goes", async || {
        Ok(strimzi.count("KafkaUser").await? == 0)
    })
    .await?;

    // The same platform again has the same topics.
    settled(&world, &strimzi.spec("Delete")).await?;
    delete_platform(&world).await?;
    until_nothing_is_left(&world).await?;
    strimzi.until_nothing_is_left().await
}

#[tokio::test(flavor = "multi_thread")]
async fn kafkas_namespace_may_go_before_the_platform() -> Result<()> {
    let world = world("before", LONG).await?;
    let strimzi = Strimzi::elsewhere(&world).await?;
    settled(&world, &strimzi.spec("Delete")).await?;
    strimzi.delete_namespace().await?;
    until("the namespace goes", async || strimzi.is_gone().await).await?;
    let said = world.wait_for("acme", "TopicsReady", "False").await?;
    ensure!(said.contains("events"), "{said}");
    delete_platform(&world).await?;
    until_nothing_is_left(&world).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_nobody_looks_after_any_more_holds_up_nobody_for_ever() -> Result<()> {
    let world = world("deserted", NOT_LONG).await?;
    let mut strimzi = Strimzi::elsewhere(&world).await?;
    settled(&world, &strimzi.spec("Delete")).await?;
    // Who would let go of the topics is gone.
    strimzi.operators = None;
    strimzi.delete_namespace().await?;
    let began = Instant::now();
    delete_platform(&world).await?;
    until_nothing_is_left(&world).await?;
    ensure!(began.elapsed() >= NOT_LONG, "{:?}", began.elapsed());
    let said = until_told(&world, "Warning LeftBehind").await?;
    ensure!(said.contains("acme-task-events"), "{said}");

    // Nothing else holds the topics.
    strimzi.begin()?;
    until("the namespace goes", async || strimzi.is_gone().await).await?;
    ensure!(strimzi.kafka.topics().is_empty(), "{:?}", strimzi.kafka.topics());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_cannot_be_reached_hold_up_nobody_for_ever() -> Result<()> {
    let world = world("unreachable", NOT_LONG).await?;
    world
        .secret("acme-db", &json!({"url": "postgres://todo:secret@db/todo"}))
        .await?;
    let nowhere = json!({"external": {"brokers": ["127.0.0.1:1"], "tls": false, "manageTopics": true}});
    world.platform("acme", &over_kafka("Delete", &nowhere)).await?;
    let said = world
        .wait_for("acme", "TopicsReady", "False BrokersUnreachable")
        .await?;
    ensure!(said.contains("127.0.0.1:1"), "{said}");
    let began = Instant::now();
    delete_platform(&world).await?;
    until_nothing_is_left(&world).await?;
    ensure!(began.elapsed() >= NOT_LONG, "{:?}", began.elapsed());
    let said = until_told(&world, "Warning LeftBehind").await?;
    ensure!(
        said.contains("acme-task-events") && said.contains("127.0.0.1:1"),
        "{said}"
    );

    // What stays by the deletion policy need not be reached.
    world.platform("acme", &over_kafka("Retain", &nowhere)).await?;
    world
        .wait_for("acme", "TopicsReady", "False BrokersUnreachable")
        .await?;
    let began = Instant::now();
    delete_platform(&world).await?;
    until_nothing_is_left(&world).await?;
    println!("kept: {:?}", began.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_database_goes_or_stays_with_its_data_as_the_policy_says() -> Result<()> {
    let world = World::new(Cluster::shared_with(Options::NONE).await?, "own-data").await?;
    let claims: Api<PersistentVolumeClaim> = world.namespace.api();
    let secrets: Api<Secret> = world.namespace.api();
    for (policy, is_kept) in [("Retain", true), ("Delete", false)] {
        let spec = json!({"version": "1.0.0", "deletionPolicy": policy});
        world.platform("acme", &spec).await?;
        world.wait_for("acme", "Ready", "True").await?;
        world
            .wait_for_object("StatefulSet/acme-db", |set| {
                set["metadata"]["ownerReferences"].is_null() == is_kept
            })
            .await?;
        ensure!(claims.list(&ListParams::default()).await?.items.len() == 1);
        delete_platform(&world).await?;
        until("the pods go", async || {
            Ok(world.get("apps/v1", "Deployment", "acme-all").await?.is_none())
        })
        .await?;
        if is_kept {
            // As long as the garbage collector takes for what is not.
            tokio::time::sleep(Duration::from_secs(2)).await;
            ensure!(
                world.get("apps/v1", "StatefulSet", "acme-db").await?.is_some(),
                "the database is gone"
            );
            ensure!(
                secrets.get_opt("acme-db").await?.is_some(),
                "the key to the data is gone"
            );
            ensure!(
                claims.list(&ListParams::default()).await?.items.len() == 1,
                "the data is gone"
            );
        } else {
            until("the data goes", async || {
                let claims = claims.list(&ListParams::default()).await?.items;
                Ok(claims.is_empty() && world.children("acme").await?.is_empty())
            })
            .await?;
        }
    }
    Ok(())
}
