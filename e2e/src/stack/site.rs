//! Where a stack lives, and the exact command line of each of its parts.
//!
//! A site is a data folder, as `todo up` has one, and the folder `stack` in it:
//!
//! ```text
//! DATA/token-secret      what tokens are signed with, as `todo up` makes it
//! DATA/postgres/         the database, as `todo up` makes it
//! DATA/stack/logs/       one log for each part
//! DATA/stack/kafka/      the broker's data
//! DATA/stack/scheduler/  the scheduler's data
//! DATA/stack/secrets.json, kafka.properties, postgres.url
//! ```
//!
//! So whatever ran there as one process runs there as a stack, and the other way round, with nothing lost.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::Uid;
use rand::distr::{Alphanumeric, SampleString as _};
use serde_json::json;
use todo_test_tools::{self as tools, Ports};

use super::launch::{Launch, Probe, own_file, url_in};
use super::part::{Part, Role};
use super::{Options, kafka};

/// As long as `todo up` makes it.
const SECRET_CHARACTERS: usize = 64;
/// How long a sidecar goes on to serve what it has begun when it is told to stop.
const SIDECAR_GRACE_SECONDS: u32 = 5;
const SCHEDULER_ID: &str = "dapr-scheduler-server-0";
const DATABASE_URL_FILE: &str = "postgres.url";

/// The programs that the parts are.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) todo: PathBuf,
    pub(super) dapr: tools::Dapr,
    pub(super) kafka: tools::Kafka,
    pub(super) redis: Option<PathBuf>,
}

impl Programs {
    /// Finds or makes them: minutes, the first time on a machine.
    pub(super) fn ready(todo: &Path, options: &Options) -> Result<Self> {
        Ok(Self {
            todo: todo.to_owned(),
            dapr: tools::dapr()?,
            kafka: tools::kafka()?,
            redis: options.redis.then(tools::redis_server).transpose()?,
        })
    }
}

/// A place with everything decided: which parts, on which ports, with which tokens.
#[derive(Clone, Debug)]
pub(super) struct Site {
    data: PathBuf,
    programs: Programs,
    pub(super) options: Options,
    ports: BTreeMap<String, u16>,
    /// What a sidecar and its app show each other, by app id.
    tokens: BTreeMap<String, String>,
}

impl Site {
    /// Makes the folders and what is missing in them, and takes ports. `ports` and `tokens` are those of an earlier
    /// run, to be used again.
    pub(super) fn new(
        data: &Path,
        programs: Programs,
        options: Options,
        mut ports: Ports,
        mut tokens: BTreeMap<String, String>,
    ) -> Result<Self> {
        // Root's folder must let the database's account pass through.
        make_folder(data, if Uid::effective().is_root() { 0o711 } else { 0o700 })?;
        for part in options.parts() {
            for purpose in purposes(part) {
                ports.take(&format!("{part}.{purpose}"))?;
            }
        }
        for role in Role::ALL {
            tokens
                .entry(role.app_id().to_owned())
                .or_insert_with(|| Alphanumeric.sample_string(&mut rand::rng(), 32));
        }
        let site = Self {
            data: data.canonicalize()?,
            programs,
            options,
            ports: ports.0,
            tokens,
        };
        for folder in [site.folder(), site.logs(), site.path("kafka"), site.path("scheduler")] {
            make_folder(&folder, 0o700)?;
        }
        site.make_token_secret()?;
        let secret = fs::read_to_string(site.token_secret())?;
        let secrets = json!({"tokens": {"secret": secret.trim()}}).to_string();
        own_file(&site.path("secrets.json"))?.write_all(secrets.as_bytes())?;
        let properties = kafka::properties(
            &site.path("kafka"),
            "127.0.0.1",
            site.port(Part::Kafka, "broker"),
            site.port(Part::Kafka, "controller"),
        );
        fs::write(site.path("kafka.properties"), properties)?;
        Ok(site)
    }

    /// `DATA/stack`.
    pub(super) fn folder(&self) -> PathBuf {
        self.data.join("stack")
    }

    /// A path in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.path("logs")
    }

    pub(super) fn log(&self, part: Part) -> PathBuf {
        self.logs().join(format!("{part}.log"))
    }

    pub(super) fn token_secret(&self) -> PathBuf {
        self.data.join("token-secret")
    }

    pub(super) fn programs(&self) -> &Programs {
        &self.programs
    }

    pub(super) fn ports(&self) -> &BTreeMap<String, u16> {
        &self.ports
    }

    pub(super) fn tokens(&self) -> &BTreeMap<String, String> {
        &self.tokens
    }

    /// The port of a part for one of its [`purposes`].
    pub(super) fn port(&self, part: Part, purpose: &str) -> u16 {
        let taken = self.ports.get(&format!("{part}.{purpose}"));
        *taken.expect("a site has taken a port for each purpose of each of its parts")
    }

    /// The port by which others know the part.
    pub(super) fn main_port(&self, part: Part) -> u16 {
        self.port(part, purposes(part)[0])
    }

    pub(super) fn token(&self, role: Role) -> &str {
        &self.tokens[role.app_id()]
    }

    pub(super) fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port(Part::Kafka, "broker"))
    }

    /// Where the database is, once it has served.
    pub(super) fn database_url(&self) -> Result<String> {
        url_in(&self.path(DATABASE_URL_FILE))
    }

    fn make_token_secret(&self) -> Result<()> {
        let path = self.token_secret();
        if path.exists() {
            return Ok(());
        }
        let secret = Alphanumeric.sample_string(&mut rand::rng(), SECRET_CHARACTERS);
        // Whole or not at all, whenever this process ends.
        let draft = self.data.join(format!("token-secret.{}", std::process::id()));
        let mut file = own_file(&draft)?;
        file.write_all(secret.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        Ok(())
    }

    /// How to start a part. The database must have served before anything that connects to it is asked for.
    pub(super) fn launch(&self, part: Part) -> Result<Launch> {
        let launch = match part {
            Part::Database => self.database(),
            Part::Kafka => self.kafka(),
            Part::Scheduler => self.scheduler(),
            Part::Redis => self.redis()?,
            Part::Service(role, copy) => self.service(role, copy)?,
            Part::Sidecar(role, copy) => self.sidecar(role, copy)?,
        };
        Ok(launch)
    }

    fn plain(&self, part: Part, program: &Path) -> Launch {
        let probe = probe(part, &self.ports, &self.folder());
        Launch {
            program: program.to_owned(),
            arguments: vec![],
            environment: vec![],
            folder: self.folder(),
            log: self.log(part),
            output: None,
            probe: probe.expect("a site has taken a port for each of its parts"),
        }
    }

    fn database(&self) -> Launch {
        let port = self.port(Part::Database, "sql").to_string();
        let mut arguments = words(["postgres", "--port", &port, "--data-dir"]);
        arguments.push(self.data.clone().into());
        if !self.options.detached {
            arguments.push("--stop-with-stdin".into());
        }
        Launch {
            arguments,
            output: Some(self.path(DATABASE_URL_FILE)),
            ..self.plain(Part::Database, &self.programs.todo)
        }
    }

    fn kafka(&self) -> Launch {
        let mut arguments = kafka::java_options(&self.programs.kafka, self.options.kafka_heap_megabytes);
        arguments.push("kafka.Kafka".into());
        arguments.push(self.path("kafka.properties").into());
        Launch {
            arguments,
            ..self.plain(Part::Kafka, &self.programs.kafka.java)
        }
    }

    fn scheduler(&self) -> Launch {
        let port = |purpose| self.port(Part::Scheduler, purpose);
        let data = self.path("scheduler");
        let arguments = [
            format!("--id={SCHEDULER_ID}"),
            "--mode=standalone".to_owned(),
            "--listen-address=127.0.0.1".to_owned(),
            format!("--port={}", port("grpc")),
            "--healthz-listen-address=127.0.0.1".to_owned(),
            format!("--healthz-port={}", port("health")),
            "--metrics-listen-address=127.0.0.1".to_owned(),
            format!("--metrics-port={}", port("metrics")),
            "--etcd-embed=true".to_owned(),
            format!("--etcd-data-dir={}", data.join("etcd").display()),
            format!("--etcd-client-port={}", port("etcd")),
            format!(
                "--etcd-initial-cluster={SCHEDULER_ID}=http://127.0.0.1:{}",
                port("peer")
            ),
            format!("--identity-directory-write={}", data.join("identity").display()),
        ];
        Launch {
            arguments: words(arguments),
            environment: vec![("NAMESPACE", "default".into())],
            ..self.plain(Part::Scheduler, &self.programs.dapr.scheduler)
        }
    }

    fn redis(&self) -> Result<Launch> {
        let program = self.programs.redis.as_ref().context("the stack has no redis")?;
        let port = self.port(Part::Redis, "redis");
        // Nothing is kept on disk: what is in it may be lost.
        let arguments = [
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
        ];
        Ok(Launch {
            arguments: words(arguments),
            ..self.plain(Part::Redis, program)
        })
    }

    fn service(&self, role: Role, copy: usize) -> Result<Launch> {
        let part = Part::Service(role, copy);
        let own = self.port(part, "http");
        let sidecar = self.port(Part::Sidecar(role, copy), "http");
        let token = self.token(role);
        let mut environment: Vec<(&str, OsString)> = vec![
            ("DATABASE_URL", self.database_url()?.into()),
            ("TODO_LISTEN", format!("127.0.0.1:{own}").into()),
            ("TODO_BUS", "dapr".into()),
            ("TODO_ALARMS", self.options.alarms.to_string().into()),
            ("TODO_LOG_FORMAT", "json".into()),
            ("DAPR_HTTP_PORT", sidecar.to_string().into()),
            ("DAPR_API_TOKEN", token.into()),
            ("APP_API_TOKEN", token.into()),
        ];
        let arguments = if role == Role::Api {
            environment.push(("TODO_TOKEN_SECRET_FILE", self.token_secret().into()));
            words(["api"])
        } else {
            words(["worker", role.name()])
        };
        for setting in &self.options.settings {
            if setting.role.is_none_or(|only| only == role) {
                environment.retain(|(name, _)| secret(name) != secret(setting.name));
                environment.push((setting.name, setting.value.clone().into()));
            }
        }
        Ok(Launch {
            arguments,
            environment,
            ..self.plain(part, &self.programs.todo)
        })
    }

    fn sidecar(&self, role: Role, copy: usize) -> Result<Launch> {
        let part = Part::Sidecar(role, copy);
        let own = |purpose| self.port(part, purpose);
        let resources = manifests();
        let mut arguments = vec![
            "--mode=standalone".to_owned(),
            format!("--app-id={}", role.app_id()),
            format!("--app-port={}", self.port(Part::Service(role, copy), "http")),
            "--app-protocol=http".to_owned(),
            "--app-channel-address=127.0.0.1".to_owned(),
            "--dapr-listen-addresses=127.0.0.1".to_owned(),
            format!("--dapr-http-port={}", own("http")),
            format!("--dapr-grpc-port={}", own("grpc")),
            format!("--dapr-internal-grpc-port={}", own("internal")),
            "--dapr-internal-grpc-listen-address=127.0.0.1".to_owned(),
            format!("--metrics-port={}", own("metrics")),
            "--metrics-listen-address=127.0.0.1".to_owned(),
            format!("--resources-path={}", resources.join("local").display()),
            format!("--config={}", resources.join("local/configuration.yaml").display()),
            "--enable-mtls=false".to_owned(),
            format!("--dapr-graceful-shutdown-seconds={SIDECAR_GRACE_SECONDS}"),
            "--log-level=info".to_owned(),
        ];
        let token = self.token(role);
        let mut environment: Vec<(&str, OsString)> = vec![
            ("NAMESPACE", "default".into()),
            ("DAPR_API_TOKEN", token.into()),
            ("APP_API_TOKEN", token.into()),
            ("TODO_SECRETS_FILE", self.path("secrets.json").into()),
        ];
        if role == Role::Api {
            environment.push(("TODO_STATE_CONNECTION", self.database_url()?.into()));
            if self.options.redis {
                let redis = self.port(Part::Redis, "redis");
                environment.push(("TODO_REDIS_HOST", format!("127.0.0.1:{redis}").into()));
                arguments.push(format!("--resources-path={}", resources.join("local-redis").display()));
            }
        }
        if role.needs_kafka() {
            environment.push(("TODO_KAFKA_BROKERS", self.brokers().into()));
        }
        // Jobs belong to the app that set them, and only this role sets any.
        if role == Role::Reminders && self.options.alarms {
            let scheduler = self.port(Part::Scheduler, "grpc");
            arguments.push(format!("--scheduler-host-address=127.0.0.1:{scheduler}"));
        }
        Ok(Launch {
            arguments: words(arguments),
            environment,
            ..self.plain(part, &self.programs.dapr.daprd)
        })
    }
}

/// The setting that a name is a way to give: X, also for `X_FILE` and `X_REF`, of which a process takes only one.
fn secret(name: &str) -> &str {
    let of_file = name.strip_suffix("_FILE");
    of_file.or_else(|| name.strip_suffix("_REF")).unwrap_or(name)
}

/// What a part needs ports for; the first is the one that others speak to.
fn purposes(part: Part) -> &'static [&'static str] {
    match part {
        Part::Database => &["sql"],
        Part::Kafka => &["broker", "controller"],
        Part::Scheduler => &["grpc", "health", "metrics", "etcd", "peer"],
        Part::Redis => &["redis"],
        Part::Service(..) => &["http"],
        Part::Sidecar(..) => &["http", "grpc", "internal", "metrics"],
    }
}

/// The port of a part by which others know it, if it has been given one.
pub(super) fn main_port(part: Part, ports: &BTreeMap<String, u16>) -> Option<u16> {
    ports.get(&format!("{part}.{}", purposes(part)[0])).copied()
}

/// How to see that a part of the stack in this folder serves.
pub(super) fn probe(part: Part, ports: &BTreeMap<String, u16>, folder: &Path) -> Option<Probe> {
    let main = main_port(part, ports)?;
    Some(match part {
        Part::Database => Probe::Postgres(folder.join(DATABASE_URL_FILE)),
        Part::Kafka => Probe::Port(main),
        Part::Scheduler => {
            let health = ports.get(&format!("{part}.health"))?;
            Probe::Http(format!("http://127.0.0.1:{health}/healthz"))
        }
        Part::Redis => Probe::Redis(main),
        Part::Service(..) => Probe::Http(format!("http://127.0.0.1:{main}/readyz")),
        Part::Sidecar(..) => Probe::Http(format!("http://127.0.0.1:{main}/v1.0/healthz")),
    })
}

/// `dapr/components/`.
fn manifests() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("e2e/ is a folder of the workspace").join("dapr/components")
}

fn words<S: Into<OsString>>(words: impl IntoIterator<Item = S>) -> Vec<OsString> {
    words.into_iter().map(Into::into).collect()
}

fn make_folder(path: &Path, mode: u32) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let folder = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    folder
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .with_context(|| format!("cannot make the folder {}", path.display()))
}
