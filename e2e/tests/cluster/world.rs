//! The cluster of the test, and what a user does with it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use todo_e2e::client::Client;
use todo_e2e::cluster::{Cluster, NODE_ADDRESS, POSTGRES_PORT, image_of};
use todo_e2e::{process, wait_for};

/// The tag of the image under test, so that nobody takes it for a released one.
pub(crate) const TAG: &str = "0.1.0";
/// What kubectl calls the binary by `kubectl todo`.
const PLUGIN: &str = "kubectl-todo";
const REPOSITORY: &str = "localhost/todo-platform/todo";
/// For a platform to become Ready, or to go: pods start, sidecars too, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(5);
const PAUSE: Duration = Duration::from_secs(1);
/// From a commit to the audit log, at the most: the first delivery of a new subscription waits for its group.
pub(crate) const EVENT_PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct World {
    cluster: Cluster,
    began: Instant,
}

impl World {
    /// A cluster with the image of the platform in it.
    pub(crate) async fn start() -> Result<Self> {
        let began = Instant::now();
        let todo = process::todo_program();
        let cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_cluster")), &todo).await?;
        let image = std::env::var_os("TODO_IMAGE").map_or(todo, PathBuf::from);
        cluster.load(&image_of(&format!("{REPOSITORY}:{TAG}"), &image)?)?;
        let world = Self { cluster, began };
        std::os::unix::fs::symlink(process::todo_program(), world.folder().join(PLUGIN))?;
        world.stage("the cluster is ready");
        Ok(world)
    }

    /// Says how far the test is.
    pub(crate) fn stage(&self, what: &str) {
        eprintln!("{:6.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    pub(crate) fn process(&self) -> Result<i32> {
        self.cluster.process()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.cluster.folder()
    }

    /// A file or folder of the repository.
    pub(crate) fn path(relative: &str) -> String {
        format!("{}/../{relative}", env!("CARGO_MANIFEST_DIR"))
    }

    pub(crate) fn helm(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.cluster.helm(arguments)?)
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.kubectl_command(arguments)?)
    }

    /// It finds the binary under test as its plugin.
    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.cluster.kubectl(arguments)?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [self.folder().to_owned()].into_iter();
        let path = std::env::join_paths(folders.chain(std::env::split_paths(&path)))?;
        command.env("PATH", path);
        Ok(command)
    }

    /// Writes a file into the cluster's folder; its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<String> {
        let file = self.folder().join(name);
        std::fs::write(&file, text)?;
        Ok(file.display().to_string())
    }

    /// Applies a manifest.
    pub(crate) fn apply(&self, manifest: &str) -> Result<()> {
        let file = self.write("manifest.yaml", manifest)?;
        self.kubectl(&["apply", "--filename", &file])?;
        Ok(())
    }

    /// A Secret's value, as text.
    pub(crate) fn secret(&self, namespace: &str, name: &str, key: &str) -> Result<String> {
        let template = format!("--output=go-template={{{{index .data \"{key}\" | base64decode}}}}");
        self.kubectl(&["--namespace", namespace, "get", "secret", name, &template])
    }

    /// A Secret's value, as resources show it.
    pub(crate) fn encoded(&self, namespace: &str, name: &str, key: &str) -> Result<String> {
        let template = format!("--output=go-template={{{{index .data \"{key}\"}}}}");
        self.kubectl(&["--namespace", namespace, "get", "secret", name, &template])
    }

    /// What kubectl gets, as JSON.
    pub(crate) fn get(&self, arguments: &[&str]) -> Result<Value> {
        let all = [&["get", "--output=json"], arguments].concat();
        Ok(serde_json::from_str(&self.kubectl(&all)?)?)
    }

    /// Waits for a condition of a resource, as it is asked for now.
    pub(crate) fn has_condition(&self, namespace: &str, resource: &str, condition: &str) -> Result<()> {
        let condition = format!("--for=condition={condition}");
        let patience = format!("--timeout={}s", PATIENCE.as_secs());
        self.kubectl(&["--namespace", namespace, "wait", resource, &condition, &patience])?;
        Ok(())
    }

    /// A namespace with a database for a platform of this name, which the Secret `NAME-db` leads to.
    pub(crate) async fn namespace_with_database(&self, namespace: &str, platform: &str) -> Result<()> {
        let admin = reqwest::Url::parse(&self.cluster.postgres_url()?)?;
        let outside = self.leading_to(&format!("{NODE_ADDRESS}:{POSTGRES_PORT}"))?;
        let mut there = admin.clone();
        there.set_port(Some(outside.port())).ok().context("it has a host")?;
        let mut connection = PgConnection::connect(there.as_str()).await?;
        let create = format!("CREATE DATABASE {platform}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(create))
            .execute(&mut connection)
            .await?;

        // By the name of the Service, so that the cluster's names are tried, too.
        let mut url = admin;
        url.set_host(Some("postgres.database.svc.cluster.local"))?;
        url.set_port(Some(POSTGRES_PORT)).ok().context("it has a host")?;
        url.set_path(platform);
        self.kubectl(&["create", "namespace", namespace])?;
        self.kubectl(&[
            "--namespace",
            namespace,
            "create",
            "secret",
            "generic",
            &format!("{platform}-db"),
            &format!("--from-literal=url={url}"),
        ])?;
        Ok(())
    }

    /// A user of a platform's API, who comes in by its Service.
    pub(crate) fn user(&self, namespace: &str, platform: &str, user: &str) -> Result<Client> {
        let service = self.get(&["--namespace", namespace, &format!("service/{platform}-api")])?;
        let address = service.pointer("/spec/clusterIP").and_then(Value::as_str);
        let address = address.context("the Service has an address")?;
        let base = format!("http://{}", self.leading_to(&format!("{address}:80"))?);
        let secret = self.secret(namespace, &format!("{platform}-token"), "secret")?;
        let file = self.write("token-secret", &secret)?;
        let mut token = process::todo(["token", "--user", user, "--secret-file"]);
        Client::new(&base, output(token.arg(&file))?.trim())
    }

    /// The topics of a platform on the broker itself.
    pub(crate) fn topics_of(&self, platform: &str) -> Result<Vec<String>> {
        let mut topics = self.cluster.kafka_topics()?;
        topics.retain(|topic| topic.starts_with(&format!("{platform}-")));
        Ok(topics)
    }

    /// An address of loopback that leads to one within the cluster.
    pub(crate) fn leading_to(&self, inner: &str) -> Result<SocketAddr> {
        self.cluster.leading_to(inner.parse()?)
    }

    /// What a reader of a failed test wants to see.
    pub(crate) fn tell(&self) {
        for arguments in [
            &["get", "pods", "--all-namespaces", "--output=wide"][..],
            &[
                "get",
                "todoplatforms,recurringschedules",
                "--all-namespaces",
                "--output=yaml",
            ],
            &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"],
            &[
                "--namespace",
                "todo-system",
                "logs",
                "--selector=app.kubernetes.io/name=todo-operator",
                "--tail=40",
            ],
        ] {
            match self.kubectl(arguments) {
                Ok(said) => eprintln!("kubectl {}:\n{said}", arguments.join(" ")),
                Err(error) => eprintln!("{error:#}"),
            }
        }
    }
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!(
            "{} {:?}: {}",
            command.get_program().display(),
            command.get_args().collect::<Vec<_>>(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.len() < 16 * 1024 * 1024, "too much was said");
    Ok(text)
}

/// Asks the cluster each second until `ask` has an answer: kubectl costs the cores that the pods wait for.
pub(crate) async fn until<T, F>(what: &str, ask: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    wait_for(what, PATIENCE, || async {
        let answer = ask().await?;
        if answer.is_none() {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(answer)
    })
    .await
}

pub(crate) fn items(list: &Value) -> Result<&Vec<Value>> {
    list["items"].as_array().context("a list has items")
}

pub(crate) fn ready_containers(pod: &Value) -> usize {
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    statuses
        .into_iter()
        .flatten()
        .filter(|status| status["ready"] == true)
        .count()
}
