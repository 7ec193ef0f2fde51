//! The operator with the rights that the chart gives it, and no other: nothing that it asks for is refused, and every
//! right is asked for by something.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::rbac::v1::Role;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::client::ClientBuilder;
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use todo_crds::TodoPlatform;
use todo_operator::lease::{self, Election};
use todo_operator::live::{Live, Scope};
use todo_operator::pace::Pace;
use todo_operator::run::Operator;
use todo_operator::schedule::internal_api::Route;
use todo_operator::settings::Settings;
use todo_test_cluster::{Cluster, FakeKubelet, Namespace, StandInKafka, StandInTopicOperator, StandInUserOperator};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(90);

/// What nothing here asks for, and why.
const IDLE_HERE: [(&str, &str); 3] = [
    ("httproutes", "the Gateway API's types are not in this cluster"),
    (
        "recurringschedules/status",
        "no platform answers here, so nothing is known of a schedule",
    ),
    (
        "todoplatforms/finalizers",
        "it counts where OwnerReferencesPermissionEnforcement is on",
    ),
];

/// What the chart makes for a release in `own` that watches `watched` and uses a Kafka in `kafka`.
async fn install(cluster: &Cluster, own: &str, watched: &str, kafka: &str) -> Result<()> {
    let helm = tokio::task::spawn_blocking(todo_test_tools::helm).await??;
    let rendered = Command::new(helm)
        .args(["template", "todo-operator", "charts/todo-operator", "--namespace", own])
        .args([
            "--set",
            &format!("watchNamespaces={{{watched}}},kafkaNamespaces={{{kafka}}},replicas=0"),
        ])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()?;
    ensure!(
        rendered.status.success(),
        "{}",
        String::from_utf8_lossy(&rendered.stderr)
    );
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rendered.yaml");
    std::fs::write(&file, rendered.stdout)?;
    let applied = cluster
        .kubectl()
        .args(["apply", "--server-side", "-f"])
        .arg(&file)
        .output()?;
    ensure!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    Ok(())
}

async fn apply(cluster: &Cluster, namespace: &Namespace, object: &Value) -> Result<()> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("/apiVersion").split_once('/').unwrap_or(("", "v1"));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("/kind")));
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client().await?, namespace.name(), &resource);
    let parameters = PatchParams::apply("a-person").force();
    api.patch(text("/metadata/name"), &parameters, &Patch::Apply(object))
        .await?;
    if !object["status"].is_null() {
        let status = json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "status": object["status"]});
        api.patch_status(text("/metadata/name"), &parameters, &Patch::Apply(&status))
            .await?;
    }
    Ok(())
}

fn strimzi() -> Value {
    json!({
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "Kafka",
        "metadata": {"name": "events"},
        "spec": {"kafka": {
            "listeners": [{
                "name": "tls", "port": 9093, "type": "internal", "tls": true,
                "authentication": {"type": "scram-sha-512"},
            }],
            "authorization": {"type": "simple"},
        }},
        "status": {"listeners": [{
            "name": "tls", "bootstrapServers": "events-kafka-bootstrap.kafka.svc:9093", "certificates": ["PEM"],
        }]},
    })
}

fn platform(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "todoplatform.dev/v1alpha1",
        "kind": "TodoPlatform",
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// With a child of as many kinds as one platform can have.
fn everything(kafka: &str) -> Value {
    json!({
        "version": "1.0.0",
        "deletionPolicy": "Delete",
        "database": {"urlSecretRef": {"name": "acme-db", "key": "url"}},
        "kafka": {"strimzi": {"cluster": {"name": "events", "namespace": kafka}}},
        "dapr": {"stateStore": {"postgresql": {}}},
        "api": {
            "autoscaling": {"min": 2, "max": 5, "targetCPU": 70},
            "ingress": {"host": "todo.example.com"},
        },
        "workers": {"audit": {"autoscaling": {"min": 1, "max": 5, "targetLag": 500}}},
        "observability": {"podMonitor": true, "alerts": true, "dashboards": true},
        "networkPolicy": true,
    })
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so().await? {
        ensure!(began.elapsed() < PATIENCE, "{what} in vain");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_charts_rights_are_enough_and_none_is_idle() -> Result<()> {
    let cluster = Cluster::shared().await?;
    let (own, watched) = (
        cluster.namespace("rights-operator").await?,
        cluster.namespace("rights").await?,
    );
    let kafka = cluster.namespace("rights-kafka").await?;
    install(cluster, own.name(), watched.name(), kafka.name()).await?;
    let audit = cluster.audit_log().await?;
    let _kubelet = FakeKubelet::start(cluster.client().await?, watched.name());
    let _topics = StandInTopicOperator::start(cluster.client().await?, kafka.name(), StandInKafka::new());
    let _users = StandInUserOperator::start(cluster.client().await?, kafka.name())?;
    apply(cluster, &kafka, &strimzi()).await?;

    let config = cluster.config_for_service_account(own.name(), "todo-operator").await?;
    let plain = ClientBuilder::try_from(config.clone())?.build();
    let settings = lease::Settings::new(own.name(), "todo-operator", lease::identity("operator-0"));
    let election = Election::new(plain, settings);
    let leadership = election.leadership();
    let operator = Operator {
        client: ClientBuilder::try_from(config)?.with_layer(&leadership.fence()).build(),
        leadership,
        settings: Settings {
            image_repository: "registry.example.com/todo".to_owned(),
            evaluation_postgres_image: "postgres:17".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            namespace: own.name().to_owned(),
        },
        scope: Scope {
            namespaces: Some([watched.name().to_owned()].into()),
            kafka_namespaces: [kafka.name().to_owned()].into(),
        },
        route: Route::Cluster {
            domain: "cluster.local".to_owned(),
            sidecar: None,
        },
        concurrency: 2,
        pace: Pace::default(),
        instance: "operator-0".to_owned(),
        live: Live::default(),
    };
    let stop = CancellationToken::new();
    let electing = tokio::spawn(election.run(stop.clone()));
    let working = tokio::spawn(operator.run(stop.clone()));

    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "acme-db"},
        "stringData": {"url": "postgres://todo:secret@db/todo"},
    });
    apply(cluster, &watched, &secret).await?;
    apply(cluster, &watched, &platform("home", &json!({"version": "1.0.0"}))).await?;
    apply(cluster, &watched, &platform("acme", &everything(kafka.name()))).await?;
    let deployments: Api<Deployment> = watched.api();
    until("waited for the pods of every component", async || {
        Ok(deployments.get_opt("acme-api").await?.is_some() && deployments.get_opt("acme-audit").await?.is_some())
    })
    .await?;

    // What is no longer asked for goes, and so does a platform with what it has elsewhere.
    let bare = json!({"version": "1.0.0", "database": {"urlSecretRef": {"name": "acme-db", "key": "url"}}});
    apply(cluster, &watched, &platform("acme", &bare)).await?;
    until("waited for one kind of pods", async || {
        Ok(deployments.get_opt("acme-all").await?.is_some() && deployments.get_opt("acme-audit").await?.is_none())
    })
    .await?;
    let platforms: Api<TodoPlatform> = watched.api();
    platforms.delete("acme", &DeleteParams::default()).await?;
    platforms.delete("home", &DeleteParams::default()).await?;
    until("waited for the platforms to go", async || {
        Ok(platforms.get_opt("acme").await?.is_none())
    })
    .await?;
    stop.cancel();
    working.await??;
    electing.await?;

    let account = format!("system:serviceaccount:{}:todo-operator", own.name());
    let asked = audit.entries_of(&account).await?;
    let denied: BTreeSet<String> = asked
        .iter()
        .filter(|entry| !entry.allowed)
        .map(|entry| {
            format!(
                "{} {}/{} in {:?}",
                entry.verb, entry.resource, entry.subresource, entry.namespace
            )
        })
        .collect();
    ensure!(denied.is_empty(), "denied: {denied:#?}");
    let used: BTreeSet<(String, String)> = asked
        .iter()
        .map(|entry| match entry.subresource.as_str() {
            "" => (entry.group.clone(), entry.resource.clone()),
            part => (entry.group.clone(), format!("{}/{part}", entry.resource)),
        })
        .collect();
    let roles = Api::<Role>::namespaced(cluster.client().await?, watched.name());
    let role = roles.get(&format!("{}-todo-operator", own.name())).await?;
    let mut idle = BTreeSet::new();
    for rule in role.rules.context("a role has rules")? {
        for group in rule.api_groups.iter().flatten() {
            let resources = rule.resources.iter().flatten();
            idle.extend(
                resources
                    .filter(|name| !used.contains(&(group.clone(), (*name).clone())))
                    .cloned(),
            );
        }
    }
    let expected: BTreeSet<String> = IDLE_HERE.iter().map(|(resource, _)| (*resource).to_owned()).collect();
    ensure!(idle == expected, "nothing asks for {idle:?}");
    Ok(())
}
