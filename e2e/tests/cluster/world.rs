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
const REPOSITORY: &str = "localhost/todo-platform/todo";
/// For a platform to become Ready, or to go: pods start, sidecars too, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(5);

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
        output(&mut self.cluster.kubectl(arguments)?)
    }

    /// Applies a manifest.
    pub(crate) fn apply(&self, manifest: &str) -> Result<()> {
        let file = self.cluster.folder().join("manifest.yaml");
        std::fs::write(&file, manifest)?;
        self.kubectl(&["apply", "--filename", &file.display().to_string()])?;
        Ok(())
    }

    /// What kubectl gets, as JSON.
    pub(crate) fn get(&self, arguments: &[&str]) -> Result<Value> {
        let all = [&["get", "--output=json"], arguments].concat();
        Ok(serde_json::from_str(&self.kubectl(&all)?)?)
    }

    /// Waits for a condition of a resource.
    pub(crate) async fn has_condition(&self, namespace: &str, resource: &str, condition: &str) -> Result<()> {
        let what = format!("{resource} in {namespace} to be {condition}");
        wait_for(&what, PATIENCE, || async {
            let live = self.get(&["--namespace", namespace, resource])?;
            let conditions = live.pointer("/status/conditions").and_then(Value::as_array);
            let holds = conditions.into_iter().flatten().any(|one| {
                one["type"] == condition
                    && one["status"] == "True"
                    && one["observedGeneration"] == live["metadata"]["generation"]
            });
            Ok(holds.then_some(()))
        })
        .await
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
        let file = self.cluster.folder().join("token-secret");
        let secret = ["--namespace", namespace, "get", "secret", &format!("{platform}-token")]
            .map(str::to_owned)
            .into_iter()
            .chain(["--output=go-template={{.data.secret | base64decode}}".to_owned()]);
        let secret: Vec<String> = secret.collect();
        let secret: Vec<&str> = secret.iter().map(String::as_str).collect();
        std::fs::write(&file, self.kubectl(&secret)?)?;
        let mut token = process::todo(["token", "--user", user, "--secret-file"]);
        Client::new(&base, output(token.arg(&file))?.trim())
    }

    /// The topics of a platform on the broker itself.
    pub(crate) fn topics_of(&self, platform: &str) -> Result<Vec<String>> {
        let mut topics = self.cluster.kafka_topics()?;
        topics.retain(|topic| topic.starts_with(&format!("{platform}-")));
        Ok(topics)
    }

    fn leading_to(&self, inner: &str) -> Result<SocketAddr> {
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
