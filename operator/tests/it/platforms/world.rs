//! A namespace on a real API server with an operator of its own, and what stands in for its nodes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::client::ClientBuilder;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, TypeMeta};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use todo_crds::TodoPlatform;
use todo_crds::platform::TodoPlatformStatus;
use todo_operator::child::Kind;
use todo_operator::connection::Patience;
use todo_operator::lease::Leadership;
use todo_operator::live::{Live, Scope};
use todo_operator::pace::Pace;
use todo_operator::run::Operator;
use todo_operator::schedule::internal_api::Route;
use todo_operator::settings::Settings;
use todo_test_cluster::{Cluster, FakeKubelet, Namespace};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::tap::Tap;

/// How long a cluster may take for anything.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
/// Who applies manifests in tests.
const PERSON: &str = "a-person";

/// What operators are told here.
pub(crate) fn settings() -> Settings {
    Settings {
        image_repository: "registry.example.com/todo".to_owned(),
        evaluation_postgres_image: "postgres:17".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        namespace: "todo-system".to_owned(),
    }
}

/// One namespace, its operator, and its pretended nodes.
pub(crate) struct World {
    pub(crate) cluster: &'static Cluster,
    pub(crate) namespace: Namespace,
    /// What a person's requests go through.
    pub(crate) client: Client,
    pub(crate) kubelet: FakeKubelet,
    /// What the operator sends passes here.
    pub(crate) tap: Tap,
    /// How soon its operators look when nobody tells them to.
    pace: Pace,
    /// How long its operators wait for an answer.
    patience: Duration,
    operator: Option<Running>,
}

/// An operator in a runtime of its own, so that all of it can end at once, as a process does.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<todo_operator::error::Result<()>>,
    runtime: Runtime,
}

impl World {
    /// With an operator at work.
    pub(crate) async fn new(cluster: &'static Cluster, hint: &str) -> Result<Self> {
        Self::at_pace(cluster, hint, Pace::default(), todo_operator::connection::PATIENCE).await
    }

    /// With an operator that waits no longer than this.
    pub(crate) async fn at_pace(cluster: &'static Cluster, hint: &str, pace: Pace, patience: Duration) -> Result<Self> {
        let namespace = cluster.namespace(hint).await?;
        let client = cluster.client().await?;
        let kubelet = FakeKubelet::start(client.clone(), namespace.name());
        let mut world = Self {
            cluster,
            namespace,
            client,
            kubelet,
            tap: Tap::default(),
            pace,
            patience,
            operator: None,
        };
        world.start_operator().await?;
        Ok(world)
    }

    /// Starts an operator for this namespace only.
    pub(crate) async fn start_operator(&mut self) -> Result<()> {
        let leadership = Leadership::undisputed();
        let config = self.cluster.config().await?;
        let client = ClientBuilder::try_from(config)?
            .with_layer(&leadership.fence())
            .with_layer(&self.tap)
            .with_layer(&Patience(self.patience))
            .build();
        let operator = Operator {
            client,
            leadership,
            settings: settings(),
            scope: Scope {
                namespaces: Some([self.namespace.name().to_owned()].into()),
                kafka_namespaces: [format!("{}-kafka", self.namespace.name())].into(),
            },
            route: Route::Cluster {
                domain: "cluster.local".to_owned(),
                sidecar: None,
            },
            concurrency: 4,
            pace: self.pace,
            instance: "operator-0".to_owned(),
            live: Live::default(),
        };
        let stop = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let task = runtime.spawn(operator.run(stop.clone()));
        self.operator = Some(Running { stop, task, runtime });
        Ok(())
    }

    /// Stops the operator as a SIGTERM does.
    pub(crate) async fn stop_operator(&mut self) -> Result<()> {
        let running = self.operator.take().context("no operator runs")?;
        running.stop.cancel();
        running.task.await??;
        running.runtime.shutdown_background();
        Ok(())
    }

    /// Ends the operator as a SIGKILL does.
    pub(crate) fn kill_operator(&mut self) {
        if let Some(running) = self.operator.take() {
            running.runtime.shutdown_background();
        }
    }

    /// Applies an object, as `kubectl apply --server-side` does.
    pub(crate) async fn apply(&self, object: &Value) -> Result<DynamicObject> {
        let text = |path: &str| {
            object
                .pointer(path)
                .and_then(Value::as_str)
                .context("a field is missing")
        };
        let kind = text("/kind")?;
        let (group, version) = text("/apiVersion")?.split_once('/').unwrap_or(("", "v1"));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), self.namespace.name(), &resource);
        let parameters = PatchParams::apply(PERSON).force();
        Ok(api
            .patch(text("/metadata/name")?, &parameters, &Patch::Apply(object))
            .await?)
    }

    /// Applies a platform with this spec.
    pub(crate) async fn platform(&self, name: &str, spec: &Value) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "todoplatform.dev/v1alpha1",
            "kind": "TodoPlatform",
            "metadata": {"name": name},
            "spec": spec,
        }))
        .await?;
        Ok(())
    }

    pub(crate) async fn secret(&self, name: &str, data: &Value) -> Result<()> {
        self.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}))
            .await?;
        Ok(())
    }

    pub(crate) fn platforms(&self) -> Api<TodoPlatform> {
        self.namespace.api()
    }

    pub(crate) async fn status(&self, name: &str) -> Result<TodoPlatformStatus> {
        Ok(self.platforms().get(name).await?.status.unwrap_or_default())
    }

    /// `STATUS REASON: MESSAGE` of a condition.
    pub(crate) async fn condition(&self, name: &str, kind: &str) -> Result<String> {
        let status = self.status(name).await?;
        let found = status.conditions.iter().find(|condition| condition.type_ == kind);
        Ok(found.map_or_else(String::new, |condition| {
            format!("{} {}: {}", condition.status, condition.reason, condition.message)
        }))
    }

    /// Waits until a condition begins so, and is about the newest spec.
    pub(crate) async fn wait_for(&self, name: &str, kind: &str, beginning: &str) -> Result<String> {
        let began = Instant::now();
        loop {
            let platform = self.platforms().get(name).await?;
            let status = platform.status.clone().unwrap_or_default();
            let found = status.conditions.iter().find(|condition| condition.type_ == kind);
            let said = found.map_or_else(String::new, |condition| {
                format!("{} {}: {}", condition.status, condition.reason, condition.message)
            });
            if said.starts_with(beginning) && status.observed_generation == platform.metadata.generation {
                return Ok(said);
            }
            if began.elapsed() > PATIENCE {
                let all: Vec<String> = status
                    .conditions
                    .iter()
                    .map(|condition| {
                        format!(
                            "{}={} {}: {}",
                            condition.type_, condition.status, condition.reason, condition.message
                        )
                    })
                    .collect();
                bail!("{kind} of {name} is not {beginning:?}:\n{}", all.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// An object of any kind, as it is.
    pub(crate) async fn get(&self, api_version: &str, kind: &str, name: &str) -> Result<Option<Value>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), self.namespace.name(), &resource);
        Ok(api.get_opt(name).await?.map(serde_json::to_value).transpose()?)
    }

    /// Everything in the namespace that an operator may write, by `KIND/NAME`.
    pub(crate) async fn objects(&self) -> Result<BTreeMap<String, Value>> {
        let mut objects = BTreeMap::new();
        let own = [("todoplatform.dev", "v1alpha1", "TodoPlatform")];
        let kinds = Kind::ALL.into_iter().filter(|kind| kind.optional().is_none());
        let kinds = kinds.map(|kind| (kind.group(), kind.version(), kind.name()));
        for (group, version, kind) in kinds.chain(own) {
            for object in self.list(group, version, kind).await? {
                let name = object.name_any();
                // Every namespace has these by itself.
                if !matches!(name.as_str(), "default" | "kube-root-ca.crt") {
                    objects.insert(format!("{kind}/{name}"), serde_json::to_value(object)?);
                }
            }
        }
        Ok(objects)
    }

    /// The children of a platform, by `KIND/NAME`.
    pub(crate) async fn children(&self, platform: &str) -> Result<BTreeMap<String, Value>> {
        let mut objects = self.objects().await?;
        objects.retain(|_, object| object["metadata"]["labels"]["todoplatform.dev/platform"] == platform);
        Ok(objects)
    }

    async fn list(&self, group: &str, version: &str, kind: &str) -> Result<Vec<DynamicObject>> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), self.namespace.name(), &resource);
        let mut objects = api.list(&ListParams::default()).await?.items;
        for object in &mut objects {
            object.types = Some(TypeMeta {
                api_version: resource.api_version.clone(),
                kind: kind.to_owned(),
            });
        }
        Ok(objects)
    }

    /// The API of `KIND/NAME`, and the name.
    fn api_of<'a>(&self, name: &'a str) -> Result<(Api<DynamicObject>, &'a str)> {
        let (kind, name) = name.split_once('/').context("no KIND/NAME")?;
        let kind = Kind::ALL
            .into_iter()
            .find(|known| known.name() == kind)
            .context("no such kind")?;
        let kind = GroupVersionKind::gvk(kind.group(), kind.version(), kind.name());
        let resource = ApiResource::from_gvk(&kind);
        Ok((
            Api::namespaced_with(self.client.clone(), self.namespace.name(), &resource),
            name,
        ))
    }

    /// Deletes `KIND/NAME`, as a person does by mistake.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        let (api, name) = self.api_of(name)?;
        api.delete(name, &DeleteParams::background()).await?;
        Ok(())
    }

    /// Edits `KIND/NAME`, as a person does.
    pub(crate) async fn patch(&self, name: &str, patch: &Value) -> Result<()> {
        let (api, name) = self.api_of(name)?;
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Waits until `KIND/NAME` is there and as it should be.
    pub(crate) async fn wait_for_object(&self, name: &str, is_right: impl Fn(&Value) -> bool) -> Result<Value> {
        let (api, short) = self.api_of(name)?;
        let began = Instant::now();
        loop {
            let found = api.get_opt(short).await?.map(serde_json::to_value).transpose()?;
            if let Some(object) = found.as_ref().filter(|object| is_right(object)) {
                return Ok(object.clone());
            }
            ensure!(began.elapsed() < PATIENCE, "{name} stays {found:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the operator has written nothing for a while.
    pub(crate) async fn until_quiet(&self) -> Result<()> {
        let began = Instant::now();
        let mut before = self.tap.count();
        loop {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            let now = self.tap.count();
            if now == before {
                return Ok(());
            }
            before = now;
            ensure!(began.elapsed() < PATIENCE, "it does not come to rest");
        }
    }

    /// Takes out of an object what differs from run to run: identities, times, counters, secrets, the namespace's name.
    pub(crate) fn mask(&self, object: &mut Value) {
        if object["kind"] == "Secret"
            && let Some(values) = object["data"].as_object_mut()
        {
            values.values_mut().for_each(|value| *value = json!("(secret)"));
        }
        // What others say of a child names its pods and revisions.
        if object["kind"] != "TodoPlatform"
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
        mask(object, self.namespace.name());
    }

    /// The events about this object, `TYPE REASON: NOTE`, in the order of their times.
    pub(crate) async fn events(&self, name: &str) -> Result<Vec<String>> {
        let api: Api<Event> = self.namespace.api();
        let mut events = api.list(&ListParams::default()).await?.items;
        events.retain(|event| {
            let regarding = event.regarding.as_ref();
            regarding.is_some_and(|regarding| regarding.name.as_deref() == Some(name))
        });
        events.sort_by_key(|event| event.event_time.clone());
        let text = |text: Option<String>| text.unwrap_or_default();
        Ok(events
            .into_iter()
            .map(|event| format!("{} {}: {}", text(event.type_), text(event.reason), text(event.note)))
            .collect())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill_operator();
    }
}

const DIFFERS: [&str; 15] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "generation",
    "observedGeneration",
    "lastTransitionTime",
    "lastUpdateTime",
    "lastProbeTime",
    "lastScheduleTime",
    "startTime",
    "completionTime",
    "clusterIP",
    "clusterIPs",
    "todoplatform.dev/applied",
];

fn mask(value: &mut Value, namespace: &str) {
    match value {
        Value::Object(fields) => {
            for name in DIFFERS {
                fields.remove(name);
            }
            let labels = ["controller-uid", "batch.kubernetes.io/controller-uid"];
            fields.retain(|name, _| !labels.contains(&name.as_str()));
            fields.values_mut().for_each(|value| mask(value, namespace));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mask(item, namespace)),
        Value::String(text) if text.contains(namespace) => *text = text.replace(namespace, "NAMESPACE"),
        _ => {}
    }
}
