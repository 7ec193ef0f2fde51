//! A cluster with the operator's roles in it, and the operator's process on it.
//!
//! The controller manager is stopped: what it does for a platform is many times the operator's own work, and would hide
//! it. All optional APIs are there, so that the operator watches all that it ever does.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Client, Config};
use serde_json::{Value, json};
use todo_e2e::process::{Process, todo};
use todo_e2e::scene::Scene;
use todo_e2e::wait_for;
use todo_test_cluster::{Cluster, Namespace, Options, Program};

use crate::controllers::Controllers;
use crate::process;

/// How many platforms are worked on at once: the operator's default, and the bare client's too.
pub(crate) const CONCURRENCY: usize = 8;
/// How many manifests are written at once.
const AT_ONCE: usize = 16;
const NAMESPACE: &str = "todo-system";
const ACCOUNT: &str = "todo-operator";
/// Who applies manifests.
const PERSON: &str = "a-person";
const PATIENCE: Duration = Duration::from_mins(2);

/// A cluster, and what stands in for its controllers.
pub(crate) struct Ground {
    cluster: Cluster,
    scene: Scene,
    /// The administrator's.
    pub(crate) client: Client,
    kubeconfig: String,
    _controllers: Controllers,
}

/// What the operator is told beside what it is installed with.
#[derive(Clone, Copy, Default)]
pub(crate) struct Told<'a> {
    /// Where the platforms' internal API is.
    pub(crate) internal_api: Option<&'a str>,
    /// The only namespace to look into.
    pub(crate) namespace: Option<&'a str>,
}

/// How often the API server was asked.
#[derive(Clone, Copy, Default)]
pub(crate) struct Requests {
    /// For a change.
    pub(crate) writes: usize,
    /// For anything else.
    pub(crate) reads: usize,
}

impl Requests {
    pub(crate) fn add(&mut self, other: Self) {
        self.writes += other.writes;
        self.reads += other.reads;
    }
}

impl Ground {
    /// A cluster of this caller's own, with these namespaces in it.
    pub(crate) async fn new<const N: usize>(hints: &[&str; N]) -> Result<(Self, [Namespace; N])> {
        eprintln!("starting an API server");
        let cluster = Cluster::start(Options::ALL).await?;
        let client = cluster.client().await?;
        let mut namespaces = vec![];
        for hint in hints {
            namespaces.push(cluster.namespace(hint).await?);
        }
        kubectl(&cluster, &["apply", "-f", "config/default/namespace.yaml"]).await?;
        kubectl(&cluster, &["apply", "-k", "config/rbac"]).await?;
        cluster.stop_program(Program::ControllerManager).await?;
        let kubeconfig = cluster.kubeconfig_for_service_account(NAMESPACE, ACCOUNT).await?;
        let ground = Self {
            _controllers: Controllers::start(&client),
            kubeconfig: kubeconfig.display().to_string(),
            scene: Scene::new()?,
            cluster,
            client,
        };
        let namespaces = <[Namespace; N]>::try_from(namespaces);
        Ok((ground, namespaces.ok().context("a namespace for each hint")?))
    }

    /// Starts an operator as it is installed, and waits until it leads.
    pub(crate) async fn operator(&self, told: Told<'_>) -> Result<Operator> {
        let operator = self.begin(told)?;
        wait_for("the operator to lead", PATIENCE, || async {
            let leases = api(&self.client, NAMESPACE, "coordination.k8s.io/v1", "Lease");
            let lease = leases.get_opt("todo-operator").await?;
            let holder = lease.map(|lease| lease.data["spec"]["holderIdentity"].clone());
            let is_held = holder.is_some_and(|holder| holder.as_str().is_some_and(|holder| !holder.is_empty()));
            Ok(is_held.then_some(()))
        })
        .await
        .with_context(|| operator.said())?;
        Ok(operator)
    }

    /// Starts an operator as it is installed.
    pub(crate) fn begin(&self, told: Told<'_>) -> Result<Operator> {
        let concurrency = format!("--concurrency={CONCURRENCY}");
        let mut command = todo([
            "operator",
            "--listen=127.0.0.1:0",
            "--leader-election",
            "--lease-namespace=todo-system",
            "--log-format=json",
            &concurrency,
        ]);
        command.env("KUBECONFIG", &self.kubeconfig);
        if let Some(url) = told.internal_api {
            command.args(["--internal-api-url", url]);
        }
        if let Some(namespace) = told.namespace {
            command.args(["--watch-namespaces", namespace]);
        }
        let process = Process::start(command, &self.scene.path(""), "operator")?;
        Ok(Operator { process })
    }

    /// How the operator's account reaches the API server.
    pub(crate) async fn account(&self) -> Result<Config> {
        self.cluster.config_for_service_account(NAMESPACE, ACCOUNT).await
    }

    /// What the operator's account has asked for while `work` was done, but for its lease.
    pub(crate) async fn counting<T>(&self, work: impl Future<Output = Result<T>>) -> Result<(T, Requests)> {
        let log = self.cluster.audit_log().await?;
        let done = work.await?;
        let account = format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}");
        let entries = log.entries_of(&account).await?;
        let mut requests = Requests::default();
        let mut by_kind: BTreeMap<String, usize> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.resource != "leases") {
            let what = format!("{} {}/{} {}", entry.verb, entry.resource, entry.subresource, entry.code);
            *by_kind.entry(what).or_default() += 1;
            *(if entry.is_write() {
                &mut requests.writes
            } else {
                &mut requests.reads
            }) += 1;
        }
        eprintln!("requests: {by_kind:#?}");
        Ok((done, requests))
    }

    /// Applies a platform whose database runs elsewhere.
    pub(crate) async fn platform(&self, namespace: &str, name: &str) -> Result<DynamicObject> {
        let spec = json!({
            "version": "0.1.0",
            "database": {"urlSecretRef": {"name": "db", "key": "url"}},
            "networkPolicy": true,
        });
        apply(
            &platforms(&self.client, namespace),
            "TodoPlatform",
            name,
            &json!({"spec": spec}),
        )
        .await
    }

    /// The Secret that those platforms name.
    pub(crate) async fn database(&self, namespace: &str) -> Result<()> {
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "db"},
            "stringData": {"url": "postgres://todo:secret@db/todo"},
        });
        let parameters = PatchParams::apply(PERSON).force();
        api(&self.client, namespace, "v1", "Secret")
            .patch("db", &parameters, &Patch::Apply(&secret))
            .await?;
        Ok(())
    }
}

/// The API of a kind.
pub(crate) fn api(client: &Client, namespace: &str, api_version: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

pub(crate) fn platforms(client: &Client, namespace: &str) -> Api<DynamicObject> {
    api(client, namespace, "todoplatform.dev/v1alpha1", "TodoPlatform")
}

pub(crate) fn schedules(client: &Client, namespace: &str) -> Api<DynamicObject> {
    api(client, namespace, "todoplatform.dev/v1alpha1", "RecurringSchedule")
}

/// Applies one of our resources, as `kubectl apply --server-side` does.
pub(crate) async fn apply(api: &Api<DynamicObject>, kind: &str, name: &str, rest: &Value) -> Result<DynamicObject> {
    let mut object = json!({
        "apiVersion": "todoplatform.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
    });
    for (field, value) in rest.as_object().context("no fields")? {
        object[field] = value.clone();
    }
    let parameters = PatchParams::apply(PERSON).force();
    Ok(api.patch(name, &parameters, &Patch::Apply(&object)).await?)
}

async fn kubectl(cluster: &Cluster, args: &[&str]) -> Result<()> {
    let mut command = cluster.kubectl();
    command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .args(args);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(
        output.status.success(),
        "kubectl: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Does `work` for each number below `count`, several at once.
pub(crate) async fn at_once<F>(count: usize, work: impl Fn(usize) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    stream::iter(0..count)
        .map(|number| anyhow::Ok(work(number)))
        .try_buffer_unordered(AT_ONCE)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await
}

/// A running operator.
pub(crate) struct Operator {
    process: Process,
}

impl Operator {
    /// What it has complained of.
    pub(crate) fn said(&self) -> String {
        self.process.stderr()
    }

    /// What `work` comes to, unless the operator ends before: on a machine that is too busy it loses its lease.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let ends = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if let Some(status) = self.process.ended()? {
                    bail!("the operator ended with {status}: {}", self.process.stderr());
                }
            }
        };
        tokio::select! {
            done = work => done,
            ended = ends => ended,
        }
    }

    /// Seconds of processor that it has used so far.
    pub(crate) fn processor_time(&self) -> Result<f64> {
        process::processor_time(self.process.id())
    }

    /// Memory, once it has nothing left to do.
    pub(crate) async fn memory_at_rest(&self) -> Result<process::Memory> {
        process::rest(self.process.id()).await?;
        process::memory(self.process.id())
    }

    /// Ends it as a rollout does.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let status = self.process.stop().await?;
        ensure!(
            status.success(),
            "the operator ended with {status}: {}",
            self.process.stderr()
        );
        Ok(())
    }
}
