//! What a Strimzi would do here, by the doubles of `todo-test-cluster`, over the real Kafka beside the pods.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use todo_test_cluster::{Broker, StandInKafka, StandInTopicOperator, StandInUserOperator, Topic};
use todo_test_tools as tools;

use super::{KAFKA_PORT, NODE_ADDRESS, inside};
use crate::stack::kafka::java_options;

const NAMESPACE: &str = "kafka";

/// Looks after the topics and users in Kafka's namespace, until this process ends.
pub async fn run(kubeconfig: &Path) -> Result<()> {
    let access = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(access, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    let broker = || tools::kafka().map(RealKafka);
    let _topics = StandInTopicOperator::start(client.clone(), NAMESPACE, StandInKafka::over(broker()?));
    let _users = StandInUserOperator::over(client, NAMESPACE, broker()?)?;
    std::future::pending().await
}

/// The Kafka beside the pods, by its own command line.
struct RealKafka(tools::Kafka);

impl RealKafka {
    fn topics(&self, arguments: &[&str]) -> Result<()> {
        execute(topic_command(&self.0, arguments)).context("Kafka's own tool for topics")
    }
}

fn execute(words: Vec<OsString>) -> Result<()> {
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().context("a command has a program")?);
    inside::finish(command.args(words))
}

/// The program and the arguments of Kafka's own tool for topics, to be run in the cluster's network.
pub(super) fn topic_command(kafka: &tools::Kafka, arguments: &[&str]) -> Vec<OsString> {
    command(kafka, "org.apache.kafka.tools.TopicCommand", arguments)
}

/// The same of any of its tools, by its class.
fn command(kafka: &tools::Kafka, tool: &str, arguments: &[&str]) -> Vec<OsString> {
    let mut words = vec![kafka.java.clone().into_os_string()];
    // It lives for a second: quick code is not worth compiling.
    words.push("-XX:TieredStopAtLevel=1".into());
    words.extend(java_options(kafka, 256));
    let server = format!("{NODE_ADDRESS}:{KAFKA_PORT}");
    words.extend([tool, "--bootstrap-server", &server].map(OsString::from));
    words.extend(arguments.iter().map(OsString::from));
    words
}

impl Broker for RealKafka {
    fn make(&self, name: &str, topic: &Topic) -> Result<()> {
        let (partitions, replicas) = (topic.partitions.to_string(), topic.replicas.to_string());
        let mut arguments = vec!["--create", "--if-not-exists", "--topic", name];
        arguments.extend(["--partitions", &partitions, "--replication-factor", &replicas]);
        let config: Vec<String> = topic
            .config
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        arguments.extend(config.iter().flat_map(|setting| ["--config", setting]));
        self.topics(&arguments)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.topics(&["--delete", "--if-exists", "--topic", name])
    }

    fn admit(&self, user: &str, password: &str) -> Result<()> {
        let login = format!("SCRAM-SHA-512=[password={password}]");
        let arguments = [
            "--alter",
            "--entity-type",
            "users",
            "--entity-name",
            user,
            "--add-config",
            &login,
        ];
        execute(command(&self.0, "kafka.admin.ConfigCommand", &arguments)).context("Kafka's own tool for users")
    }
}
