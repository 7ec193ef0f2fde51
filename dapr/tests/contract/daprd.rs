//! One sidecar, with the resources and the app that a test gives it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use todo_dapr::{Client, Secret, Settings};
use url::Url;

use crate::process::{Process, folder, free_ports, tool};
use crate::resources::components;

/// How a sidecar is to be.
#[derive(Debug)]
pub(crate) struct Options {
    app_id: String,
    resources: Vec<String>,
    folders: Vec<PathBuf>,
    app_port: Option<u16>,
    scheduler: Option<String>,
    api_token: Option<&'static str>,
    app_token: Option<&'static str>,
    variables: Vec<(&'static str, String)>,
}

/// A running sidecar, of an app id of its own. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Daprd {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) app_id: String,
    _process: Process,
}

impl Options {
    /// A sidecar of an app of this name; no other test's app has the same id.
    pub(crate) fn of(app: &str) -> Self {
        Self {
            app_id: format!("{app}-{}", unique()),
            resources: vec![],
            folders: vec![],
            app_port: None,
            scheduler: None,
            api_token: None,
            app_token: None,
            variables: vec![],
        }
    }

    /// A sidecar of an app of this id and no other.
    pub(crate) fn named(app_id: &str) -> Self {
        Self {
            app_id: app_id.to_owned(),
            ..Self::of("")
        }
    }

    /// With the resources of this folder.
    pub(crate) fn folder(mut self, folder: PathBuf) -> Self {
        self.folders.push(folder);
        self
    }

    /// With this resource, in YAML.
    pub(crate) fn resource(mut self, yaml: impl Into<String>) -> Self {
        self.resources.push(yaml.into());
        self
    }

    /// Delivers to an app at this port.
    pub(crate) fn app(mut self, port: u16) -> Self {
        self.app_port = Some(port);
        self
    }

    /// With jobs.
    pub(crate) fn scheduler(mut self, address: &str) -> Self {
        self.scheduler = Some(address.to_owned());
        self
    }

    /// Asks its callers for this token.
    pub(crate) fn api_token(mut self, token: &'static str) -> Self {
        self.api_token = Some(token);
        self
    }

    /// Shows this token to the app.
    pub(crate) fn app_token(mut self, token: &'static str) -> Self {
        self.app_token = Some(token);
        self
    }

    /// With this variable in its environment, for `envRef`.
    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Starts it, and waits until it takes calls.
    pub(crate) async fn start(self) -> Daprd {
        let folder = folder();
        let resources = folder.join("resources");
        std::fs::create_dir(&resources).unwrap();
        // A file each: of a resiliency policy that stands behind another resource daprd takes no notice.
        for (number, resource) in self.resources.iter().enumerate() {
            std::fs::write(resources.join(format!("{number}.yaml")), resource).unwrap();
        }

        let [http, grpc, internal, metrics] = free_ports();
        let mut command = Command::new(tool("TODO_DAPRD"));
        command
            .args([
                "--mode=standalone",
                "--enable-mtls=false",
                "--dapr-graceful-shutdown-seconds=1",
            ])
            .args([
                "--dapr-listen-addresses=127.0.0.1",
                "--dapr-internal-grpc-listen-address=127.0.0.1",
            ])
            .args(["--metrics-listen-address=127.0.0.1", "--app-channel-address=127.0.0.1"])
            .arg(format!("--app-id={}", self.app_id))
            .arg(format!("--dapr-http-port={http}"))
            .arg(format!("--dapr-grpc-port={grpc}"))
            .arg(format!("--dapr-internal-grpc-port={internal}"))
            .arg(format!("--metrics-port={metrics}"))
            .arg(format!("--resources-path={}", resources.display()))
            .arg(format!(
                "--config={}",
                components().join("local/configuration.yaml").display()
            ))
            .env("NAMESPACE", "default");
        for folder in &self.folders {
            command.arg(format!("--resources-path={}", folder.display()));
        }
        if let Some(port) = self.app_port {
            command.arg(format!("--app-port={port}"));
        }
        if let Some(scheduler) = &self.scheduler {
            command.arg(format!("--scheduler-host-address={scheduler}"));
        }
        for (name, token) in [("DAPR_API_TOKEN", self.api_token), ("APP_API_TOKEN", self.app_token)] {
            match token {
                Some(token) => command.env(name, token),
                None => command.env_remove(name),
            };
        }
        command.envs(self.variables);
        let log = folder.join("daprd.log");
        let process = Process::start(&command, &log);
        let mut settings = Settings::at(Url::parse(&format!("http://127.0.0.1:{http}")).unwrap());
        settings.token = self.api_token.map(Secret::new);
        let client = Client::new(settings.clone()).unwrap();
        process
            .until("daprd", async || {
                let said = process.said();
                if let Some(why) = said.lines().find(|line| line.contains("level=fatal")) {
                    panic!("{why}");
                }
                client.ready().await.is_ok()
            })
            .await;
        Daprd {
            client,
            settings,
            app_id: self.app_id,
            _process: process,
        }
    }
}

impl Daprd {
    /// A client that asks once and gives up sooner.
    pub(crate) fn impatient(&self, timeout: Duration) -> Client {
        let settings = Settings {
            timeout,
            attempts: 1,
            ..self.settings.clone()
        };
        Client::new(settings).unwrap()
    }
}

/// Part of a name that nobody else has.
pub(crate) fn unique() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}
