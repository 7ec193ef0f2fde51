//! Schedules that are resources of a cluster: the real operator brings them to a real platform, and back comes what
//! became of them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use todo_e2e::client::Client;
use todo_e2e::process::{Process, todo_program};
use todo_e2e::scene::{Scene, free_port};
use todo_e2e::{database, wait_for};
use todo_test_cluster::{Cluster, FakeKubelet, Namespace, Options};

use crate::processes::{SECRET, start};

const PATIENCE: Duration = Duration::from_mins(1);

/// A platform's resource, its operator, and its processes, which a cluster with nodes would run as pods.
pub(crate) struct World {
    pub(crate) scene: Scene,
    cluster: &'static Cluster,
    namespace: Namespace,
    client: kube::Client,
    _kubelet: FakeKubelet,
    port: u16,
    settings: PathBuf,
    platform: Option<Process>,
    operator: Option<Process>,
}

impl World {
    async fn new() -> Result<Self> {
        Self::on(Cluster::shared_with(Options::NONE).await?).await
    }

    pub(crate) async fn on(cluster: &'static Cluster) -> Result<Self> {
        let namespace = cluster.namespace("schedules").await?;
        let client = cluster.client().await?;
        let scene = Scene::new()?;
        let port = free_port()?;
        let url = database::fresh().await?;
        scene.run_well(["migrate", "--database-url", &url]).await?;
        let mut world = Self {
            _kubelet: FakeKubelet::start(client.clone(), namespace.name()),
            settings: scene.path("todo.env"),
            scene,
            cluster,
            namespace,
            client,
            port,
            platform: None,
            operator: None,
        };
        world.begin_operator()?;
        world
            .apply("v1", "Secret", "acme-db", &json!({"stringData": {"url": url}}))
            .await?;
        let spec = json!({"version": "0.1.0", "database": {"urlSecretRef": {"name": "acme-db", "key": "url"}}});
        world.todo("TodoPlatform", "acme", &spec).await?;
        let key = wait_for("the internal key", PATIENCE, || world.internal_key()).await?;
        let key = world.scene.write("internal-key", &key)?;
        let settings = format!(
            "DATABASE_URL={url}\nTODO_TOKEN_SECRET={SECRET}\nTODO_LISTEN=127.0.0.1:{port}\nTODO_INTERNAL_KEY_FILE={}\n",
            key.display()
        );
        world.scene.write("todo.env", &settings)?;
        world.begin_platform().await?;
        Ok(world)
    }

    fn begin_operator(&mut self) -> Result<()> {
        let kubeconfig = self.cluster.kubeconfig().display().to_string();
        let api = format!("http://127.0.0.1:{}", self.port);
        let args = [
            "operator",
            "--listen",
            "127.0.0.1:0",
            "--watch-namespaces",
            self.namespace.name(),
            "--internal-api-url",
            &api,
        ];
        self.operator = Some(start(&self.scene, "operator", &args, &[("KUBECONFIG", &kubeconfig)])?);
        Ok(())
    }

    async fn begin_platform(&mut self) -> Result<()> {
        let settings = self.settings.display().to_string();
        let mut process = start(&self.scene, "platform", &["serve"], &[("TODO_SETTINGS", &settings)])?;
        process.line_with("is ready", PATIENCE).await?;
        self.platform = Some(process);
        Ok(())
    }

    pub(crate) fn api(&self, api_version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.client.clone(), self.namespace.name(), &resource)
    }

    async fn apply(&self, api_version: &str, kind: &str, name: &str, rest: &Value) -> Result<()> {
        let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}});
        for (field, value) in rest.as_object().context("fields")? {
            object[field] = value.clone();
        }
        let parameters = PatchParams::apply("a-person").force();
        self.api(api_version, kind)
            .patch(name, &parameters, &Patch::Apply(&object))
            .await?;
        Ok(())
    }

    pub(crate) async fn todo(&self, kind: &str, name: &str, spec: &Value) -> Result<()> {
        self.apply("todoplatform.dev/v1alpha1", kind, name, &json!({"spec": spec}))
            .await
    }

    pub(crate) fn schedules(&self) -> Api<DynamicObject> {
        self.api("todoplatform.dev/v1alpha1", "RecurringSchedule")
    }

    pub(crate) async fn internal_key(&self) -> Result<Option<String>> {
        let secret = self.api("v1", "Secret").get_opt("acme-internal-key").await?;
        let Some(secret) = secret else {
            return Ok(None);
        };
        let secret: k8s_openapi::api::core::v1::Secret = secret.try_parse()?;
        let key = secret.data.as_ref().and_then(|data| data.get("key"));
        Ok(Some(String::from_utf8(key.context("no key")?.0.clone())?))
    }

    pub(crate) async fn status(&self, name: &str) -> Result<Value> {
        Ok(self.schedules().get(name).await?.data["status"].clone())
    }

    /// Waits until the schedule's condition begins so, and returns its status then.
    pub(crate) async fn wait_for(&self, name: &str, kind: &str, beginning: &str) -> Result<Value> {
        let mut said = String::new();
        let waited = wait_for(beginning, PATIENCE, || async {
            let object = self.schedules().get(name).await?;
            let status = object.data["status"].clone();
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let condition = conditions.iter().find(|condition| condition["type"] == kind);
            let text = |field: &str| condition.map_or("", |condition| condition[field].as_str().unwrap_or_default());
            let now = format!("{} {}: {}", text("status"), text("reason"), text("message"));
            let is_current = status["observedGeneration"].as_i64() == object.metadata.generation;
            Ok((is_current && now.starts_with(beginning)).then_some(status))
        })
        .await;
        if waited.is_err() {
            said = self.status(name).await?.to_string();
        }
        let operator = || self.operator.as_ref().map(Process::stderr).unwrap_or_default();
        waited.with_context(|| format!("{kind} of {name}: {said}; the operator says: {}", operator()))
    }

    pub(crate) async fn ada(&self) -> Result<Client> {
        let token = self
            .scene
            .run_well(["token", "--user", "ada", "--secret", SECRET])
            .await?;
        Client::new(&format!("http://127.0.0.1:{}", self.port), token.trim())
    }

    /// Runs the binary as kubectl runs its plugins, in this namespace. What it says, and whether it was a success.
    async fn kubectl_todo(&self, args: &[&str]) -> Result<(String, bool)> {
        let program = self.scene.path("kubectl-todo");
        if !program.exists() {
            std::os::unix::fs::symlink(todo_program(), &program)?;
        }
        let output = tokio::process::Command::new(program)
            .args(args)
            .args(["--namespace", self.namespace.name()])
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .current_dir(self.scene.path(""))
            .output()
            .await?;
        let said = [output.stdout, output.stderr].concat();
        Ok((String::from_utf8(said)?, output.status.success()))
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.schedules().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    pub(crate) async fn wait_until_gone(&self, name: &str) -> Result<()> {
        wait_for("the resource to go", PATIENCE, || async {
            Ok(self.schedules().get_opt(name).await?.is_none().then_some(()))
        })
        .await
    }
}

/// A task for each second.
pub(crate) fn every_second(title: &str) -> Value {
    json!({
        "platformRef": {"name": "acme"},
        "user": "ada",
        "schedule": {"cron": "* * * * * *"},
        "template": {"title": title},
    })
}

pub(crate) async fn titled(ada: &Client, beginning: &str) -> Result<Vec<String>> {
    let tasks = ada.list("/tasks").await?;
    let titles = tasks.iter().filter_map(|task| task["title"].as_str());
    Ok(titles
        .filter(|title| title.starts_with(beginning))
        .map(str::to_owned)
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_is_a_resource_makes_tasks_and_says_what_became_of_it() -> Result<()> {
    let world = World::new().await?;
    world
        .todo("RecurringSchedule", "tick", &every_second("tick {{n}}"))
        .await?;
    world.wait_for("tick", "UserKnown", "False NeverSeen").await?;
    let status = world.wait_for("tick", "Ready", "True Active").await?;
    ensure!(status["schedule"] == "* * * * * *", "{status}");
    let ada = world.ada().await?;
    wait_for("three tasks", PATIENCE, || async {
        Ok((titled(&ada, "tick").await?.len() >= 3).then_some(()))
    })
    .await?;
    wait_for("the counts", PATIENCE, || async {
        let status = world.status("tick").await?;
        let made = status["made"].as_i64().unwrap_or(0);
        Ok((made >= 3 && status["last"].is_string() && status["next"].is_string()).then_some(()))
    })
    .await?;
    world.wait_for("tick", "UserKnown", "True Known").await?;

    // An edit, with the counts kept; and what makes no sense, with the rule before going on.
    let before = world.status("tick").await?["made"].as_i64().context("no count")?;
    world
        .todo("RecurringSchedule", "tick", &every_second("tock {{n}}"))
        .await?;
    wait_for("the new title", PATIENCE, || async {
        Ok((!titled(&ada, "tock").await?.is_empty()).then_some(()))
    })
    .await?;
    let status = world.wait_for("tick", "Ready", "True Active").await?;
    ensure!(status["made"].as_i64().context("no count")? >= before, "{status}");
    let mut never = every_second("never");
    never["schedule"] = json!({"cron": "0 0 30 2 *"});
    world.todo("RecurringSchedule", "tick", &never).await?;
    let said = world.wait_for("tick", "Ready", "False Invalid").await?;
    for part in ["spec.schedule.cron", "goes by what it had before"] {
        ensure!(said["conditions"].to_string().contains(part), "{said}");
    }
    let mut suspended = every_second("tock {{n}}");
    suspended["suspend"] = json!(true);
    world.todo("RecurringSchedule", "tick", &suspended).await?;
    world.wait_for("tick", "Ready", "True Suspended").await?;

    // The same content twice is two schedules.
    for name in ["one", "two"] {
        world
            .todo("RecurringSchedule", name, &every_second("both {{n}}"))
            .await?;
    }
    for name in ["one", "two"] {
        world.wait_for(name, "Ready", "True Active").await?;
    }
    wait_for("tasks of both", PATIENCE, || async {
        let titles = titled(&ada, "both 1").await?;
        Ok((titles.iter().filter(|title| *title == "both 1").count() == 2).then_some(()))
    })
    .await?;

    for name in ["tick", "one", "two"] {
        world.delete(name).await?;
        world.wait_until_gone(name).await?;
    }
    ensure!(ada.list("/schedules").await?.is_empty(), "a schedule is left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_the_operator_nor_the_platform_is_missed_for_long() -> Result<()> {
    let mut world = World::new().await?;
    world
        .todo("RecurringSchedule", "tick", &every_second("tick {{n}}"))
        .await?;
    world.wait_for("tick", "Ready", "True Active").await?;
    let ada = world.ada().await?;

    // Without an operator tasks are made all the same, and one that comes back changes nothing.
    world.operator.as_mut().context("no operator")?.kill()?;
    let before = titled(&ada, "tick").await?.len();
    wait_for("tasks without an operator", PATIENCE, || async {
        Ok((titled(&ada, "tick").await?.len() >= before + 2).then_some(()))
    })
    .await?;
    // Someone forces a resource away meanwhile.
    world
        .todo("RecurringSchedule", "forced", &every_second("forced {{n}}"))
        .await?;
    world.begin_operator()?;
    world.wait_for("forced", "Ready", "True Active").await?;
    world.operator.as_mut().context("no operator")?.kill()?;
    let unbound = json!({"metadata": {"finalizers": null}});
    world
        .schedules()
        .patch("forced", &PatchParams::default(), &Patch::Merge(&unbound))
        .await?;
    world.delete("forced").await?;
    world.begin_operator()?;
    wait_for("what was forced away to end", PATIENCE, || async {
        Ok((ada.list("/schedules").await?.len() == 1).then_some(()))
    })
    .await?;
    let mut titles = titled(&ada, "tick").await?;
    let all = titles.len();
    titles.sort();
    titles.dedup();
    ensure!(titles.len() == all, "an occurrence has two tasks");

    // Without its platform a schedule keeps what was said of it, and a change waits.
    world.platform.as_mut().context("no platform")?.kill()?;
    world
        .todo("RecurringSchedule", "tick", &every_second("tock {{n}}"))
        .await?;
    world.wait_for("tick", "Ready", "Unknown PlatformUnreachable").await?;
    world.begin_platform().await?;
    world.wait_for("tick", "Ready", "True Active").await?;
    wait_for("the new title", PATIENCE, || async {
        Ok((!titled(&ada, "tock").await?.is_empty()).then_some(()))
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_waits_for_its_platform_and_goes_with_it() -> Result<()> {
    let world = World::new().await?;
    let mut early = every_second("early");
    early["platformRef"] = json!({"name": "later"});
    world.todo("RecurringSchedule", "early", &early).await?;
    let said = world.wait_for("early", "Ready", "False PlatformNotFound").await?;
    ensure!(
        said["conditions"].to_string().contains("spec.platformRef.name"),
        "{said}"
    );
    early["platformRef"] = json!({"name": "acme"});
    let moved = world.todo("RecurringSchedule", "early", &early).await.unwrap_err();
    ensure!(
        format!("{moved:#}").contains("platformRef cannot be changed"),
        "{moved:#}"
    );
    world.delete("early").await?;
    world.wait_until_gone("early").await?;

    world
        .todo("RecurringSchedule", "tick", &every_second("tick {{n}}"))
        .await?;
    world.wait_for("tick", "Ready", "True Active").await?;
    world
        .api("todoplatform.dev/v1alpha1", "TodoPlatform")
        .delete("acme", &DeleteParams::default())
        .await?;
    world.wait_for("tick", "Ready", "False PlatformNotFound").await?;
    world.delete("tick").await?;
    world.wait_until_gone("tick").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn people_look_after_a_platform_with_kubectl_todo() -> Result<()> {
    let world = World::new().await?;
    world
        .todo("RecurringSchedule", "tick", &every_second("tick {{n}}"))
        .await?;
    world.wait_for("tick", "Ready", "True Active").await?;
    let expect = async |args: &[&str], expected: &[&str]| -> Result<String> {
        let (said, success) = world.kubectl_todo(args).await?;
        ensure!(success, "{args:?}: {said}");
        for part in expected {
            ensure!(said.contains(part), "{args:?} says no {part:?}: {said}");
        }
        Ok(said)
    };
    expect(
        &["status", "acme"],
        &["runs", "COMPONENT", "all", "DatabaseReady", "Migrated"],
    )
    .await?;
    expect(&["schedules"], &["tick", "acme", "ada", "* * * * * *", "Active"]).await?;
    expect(&["pause", "acme"], &["acme is paused"]).await?;
    let platforms = world.api("todoplatform.dev/v1alpha1", "TodoPlatform");
    wait_for("the operator to pause", PATIENCE, || async {
        let phase = platforms.get("acme").await?.data["status"]["phase"].clone();
        Ok((phase == "Paused").then_some(()))
    })
    .await?;
    expect(&["resume", "acme"], &["acme goes on"]).await?;
    let manifest = format!(
        "apiVersion: todoplatform.dev/v1alpha1\nkind: TodoPlatform\nmetadata: {{name: acme, namespace: {}}}\n\
         spec: {{version: '0.1.0', database: {{urlSecretRef: {{name: acme-db, key: url}}}}, api: {{replicas: 2}}}}\n",
        world.namespace.name()
    );
    world.scene.write("platform.yaml", &manifest)?;
    expect(
        &["plan", "-f", "platform.yaml"],
        &[
            "~ Deployment",
            "+  replicas: 2",
            "0 to create, 1 to change, 0 to delete",
        ],
    )
    .await?;
    let said = expect(&["support-bundle", "acme"], &["acme-support.tar", "files"]).await?;
    let bundle = std::fs::read(world.scene.path("acme-support.tar"))?;
    let key = world.internal_key().await?.context("no key")?;
    let encoded = base64_of(&key);
    let holds = |text: &str| bundle.windows(text.len()).any(|window| window == text.as_bytes());
    ensure!(
        holds("kind: Deployment") || holds("home-all") || holds("acme-all"),
        "{said}"
    );
    ensure!(!holds(&key) && !holds(&encoded), "the bundle holds a secret");
    let (said, success) = world.kubectl_todo(&["status", "nobody"]).await?;
    ensure!(
        !success && said.lines().count() == 1 && said.contains("nobody"),
        "{said}"
    );
    Ok(())
}

fn base64_of(text: &str) -> String {
    let secret = k8s_openapi::ByteString(text.as_bytes().to_vec());
    serde_json::to_value(secret).map_or_else(|_| String::new(), |value| value.as_str().unwrap_or_default().to_owned())
}
