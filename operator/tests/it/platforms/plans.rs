//! A plan says what a pass then does.

use anyhow::{Result, ensure};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use todo_crds::TodoPlatform;
use todo_operator::plan::{Plan, Step, against, from_nothing};
use todo_test_cluster::{Cluster, Options};

use super::world::{World, settings};

fn spec() -> Value {
    json!({
        "version": "1.0.0",
        "database": {"urlSecretRef": {"name": "acme-db", "key": "url"}},
        "api": {"autoscaling": {"min": 1, "max": 3, "targetCPU": 70}},
    })
}

/// `STEP KIND/NAME` of each change.
fn steps(plan: &Plan) -> Vec<String> {
    let steps = plan.changes.iter().map(|change| {
        let step = match change.step {
            Step::Create => "create",
            Step::Change => "change",
            Step::Delete => "delete",
        };
        format!("{step} {}/{}", change.key.kind, change.key.name)
    });
    steps.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_settled_needs_nothing_and_a_change_shows_what_it_does() -> Result<()> {
    let world = World::new(Cluster::shared_with(Options::NONE).await?, "plan").await?;
    let platform = |spec: &Value| -> Result<TodoPlatform> {
        Ok(serde_json::from_value(json!({
            "apiVersion": "todoplatform.dev/v1alpha1",
            "kind": "TodoPlatform",
            "metadata": {"name": "acme", "namespace": world.namespace.name()},
            "spec": spec,
        }))?)
    };
    world
        .secret("acme-db", &json!({"url": "postgres://todo:hunter2@db/todo"}))
        .await?;
    let first = against(&world.client, &settings(), platform(&spec())?).await?;
    ensure!(first.counts().keys().eq([&Step::Create]), "{:?}", steps(&first));

    world.platform("acme", &spec()).await?;
    world.wait_for("acme", "Progressing", "False Settled").await?;
    world.until_quiet().await?;
    let made: Vec<String> = world.children("acme").await?.into_keys().collect();
    let mut planned: Vec<String> = steps(&first).iter().map(|step| step.replace("create ", "")).collect();
    planned.sort();
    ensure!(planned == made, "planned {planned:?}, made {made:?}");
    let settled = against(&world.client, &settings(), platform(&spec())?).await?;
    ensure!(settled.changes.is_empty(), "{:#?}", settled.changes);

    let mut other = spec();
    other["api"] = json!({"replicas": 2, "limits": {"maxPageSize": 50}});
    other["networkPolicy"] = json!(true);
    let versions = world.objects().await?;
    let plan = against(&world.client, &settings(), platform(&other)?).await?;
    ensure!(world.objects().await? == versions, "a plan changes something");
    let said = steps(&plan);
    for expected in [
        "change ConfigMap/acme-settings",
        "change Deployment/acme-all",
        "delete HorizontalPodAutoscaler/acme-all",
    ] {
        ensure!(said.contains(&expected.to_owned()), "{said:?}");
    }
    ensure!(
        said.iter().any(|step| step.starts_with("create NetworkPolicy/")),
        "{said:?}"
    );
    let shown: String = plan.changes.iter().map(ToString::to_string).collect();
    ensure!(shown.contains("+    TODO_MAX_PAGE_SIZE=50"), "{shown}");
    ensure!(!shown.contains("hunter2"), "a secret is shown");
    Ok(())
}

#[test]
fn from_nothing_everything_is_made_and_no_secret_is_shown() {
    let manifest = include_str!("../../../../config/samples/production.yaml");
    let manifest = todo_crds::manifest::load(&[("production.yaml", manifest)]).unwrap();
    let plan = from_nothing(&settings(), manifest.platform.clone());
    assert!(plan.counts().keys().eq([&Step::Create]), "{:?}", steps(&plan));
    let said = steps(&plan);
    let name = manifest.platform.name_any();
    for expected in [
        format!("create Deployment/{name}-api"),
        format!("create Deployment/{name}-relay"),
        format!("create KafkaTopic/{name}-task-events"),
        format!("create Component/{name}-pubsub"),
    ] {
        assert!(said.contains(&expected), "{expected} is not in {said:?}");
    }
    let blocked: Vec<_> = plan
        .problems
        .iter()
        .filter(|problem| problem.severity == todo_operator::platform::Severity::Blocking)
        .collect();
    assert!(blocked.is_empty(), "{blocked:?}");
    let shown: String = plan.changes.iter().map(ToString::to_string).collect();
    assert!(shown.contains("(secret, "), "no secret is among them");
}
