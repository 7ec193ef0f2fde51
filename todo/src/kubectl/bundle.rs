//! `kubectl todo support-bundle`: what someone who helps needs to see of a platform, in one file, without its secrets.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DynamicObject, ListParams, LogParams};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use todo_crds::{RecurringSchedule, TodoPlatform};
use todo_operator::child::Kind;
use todo_operator::discovery;
use todo_operator::plan::masked;

use super::logs::pods;
use super::{Cluster, Place, said};

/// How much of each pod's log is in it, in lines and bytes.
const LINES: i64 = 2_000;
const BYTES: i64 = 1 << 20;

/// Gather a platform's resources, events and logs into a file, with secrets masked
///
/// What you may not read is left out, and listed in the file `left-out.txt` of the bundle.
#[derive(Args, Debug)]
pub(crate) struct BundleCommand {
    /// The platform
    name: String,

    /// The file to write [default: NAME-support.tar]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    #[command(flatten)]
    place: Place,
}

/// Runs the command.
pub(crate) async fn run(command: &BundleCommand) -> Result<()> {
    let cluster = Cluster::open(&command.place).await?;
    let platform = cluster
        .api::<TodoPlatform>()
        .get(&command.name)
        .await
        .map_err(|error| said(&error))?;
    let output = command
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{}-support.tar", command.name)));
    let file = File::create(&output).with_context(|| format!("cannot write {}", output.display()))?;
    let mut bundle = Bundle {
        archive: tar::Builder::new(BufWriter::new(file)),
        left_out: vec![],
        files: 0,
    };
    bundle.add("platform.yaml", &platform)?;
    bundle
        .add_list::<RecurringSchedule>("schedules.yaml", &cluster, "")
        .await?;
    bundle.add_list::<Event>("events.yaml", &cluster, "").await?;
    let labels = format!("todoplatform.dev/platform={}", command.name);
    bundle.add_list::<Pod>("pods.yaml", &cluster, &labels).await?;
    let capabilities = discovery::read(&cluster.client).await?;
    for kind in Kind::ALL {
        if let Some(resource) = kind.resource(&capabilities) {
            let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource);
            let found = api.list(&ListParams::default().labels(&labels)).await;
            bundle.add_found(&format!("children/{}.yaml", kind.plural()), found)?;
        }
    }
    for pod in pods(&cluster, &command.name, None).await? {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let containers: Vec<String> = containers.map(|container| container.name.clone()).collect();
        let pod = pod.name_any();
        for container in containers {
            let parameters = LogParams {
                container: Some(container.clone()),
                tail_lines: Some(LINES),
                limit_bytes: Some(BYTES),
                ..LogParams::default()
            };
            let name = format!("logs/{pod}/{container}.log");
            match cluster.api::<Pod>().logs(&pod, &parameters).await {
                Ok(log) => bundle.write(&name, log.as_bytes())?,
                Err(error) => bundle.left_out.push(format!("{name}: {:#}", said(&error))),
            }
        }
    }
    let files = bundle.finish()?;
    println!(
        "{}: {files} files; secrets are masked, but read it before you send it",
        output.display()
    );
    Ok(())
}

struct Bundle {
    archive: tar::Builder<BufWriter<File>>,
    left_out: Vec<String>,
    files: usize,
}

impl Bundle {
    async fn add_list<K>(&mut self, name: &str, cluster: &Cluster, labels: &str) -> Result<()>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        let found = cluster.api::<K>().list(&ListParams::default().labels(labels)).await;
        self.add_found(name, found)
    }

    fn add_found<K>(&mut self, name: &str, found: kube::Result<kube::core::ObjectList<K>>) -> Result<()>
    where
        K: Resource + Clone + Serialize,
    {
        match found {
            Ok(found) if found.items.is_empty() => Ok(()),
            Ok(mut found) => {
                for object in &mut found.items {
                    object.managed_fields_mut().clear();
                }
                self.add(name, &found.items)
            }
            Err(error) => {
                self.left_out.push(format!("{name}: {:#}", said(&error)));
                Ok(())
            }
        }
    }

    fn add(&mut self, name: &str, objects: &impl Serialize) -> Result<()> {
        let text = masked(serde_json::to_value(objects)?);
        self.write(name, text.as_bytes())
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        self.archive.append_data(&mut header, name, bytes)?;
        self.files += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<usize> {
        if !self.left_out.is_empty() {
            let left_out = self.left_out.join("\n");
            self.write("left-out.txt", left_out.as_bytes())?;
        }
        self.archive.into_inner()?.flush()?;
        Ok(self.files)
    }
}
