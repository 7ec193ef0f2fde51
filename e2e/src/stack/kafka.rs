//! Kafka on one machine: one node that is broker and controller (`KRaft`), and its command line tools.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use todo_test_tools as tools;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Partitions of each topic: more than copies of any consumer, and few for two cores. A sidecar delivers the events of
/// each partition by themselves, one delivery after the other.
const PARTITIONS: u32 = 3;
const TOOL_PATIENCE: Duration = Duration::from_mins(1);
/// A cluster has an id, 16 bytes in base64. Nothing ever compares that of a stack with another.
const CLUSTER_ID: &str = "dG9kby1wbGF0Zm9ybQAAAA";

/// The broker's settings. `host` is the address where it listens, which its clients use.
pub(crate) fn properties(data: &Path, host: &str, broker: u16, controller: u16) -> String {
    let (broker, controller) = (format!("{host}:{broker}"), format!("{host}:{controller}"));
    let settings = [
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", "1".to_owned()),
        ("controller.quorum.bootstrap.servers", controller.clone()),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("listeners", format!("PLAINTEXT://{broker},CONTROLLER://{controller}")),
        ("advertised.listeners", format!("PLAINTEXT://{broker}")),
        ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
        (
            "listener.security.protocol.map",
            "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned(),
        ),
        ("log.dirs", data.join("data").display().to_string()),
        ("num.partitions", PARTITIONS.to_string()),
        ("auto.create.topics.enable", "true".to_owned()),
        // There is one node to keep a copy of anything.
        ("offsets.topic.replication.factor", "1".to_owned()),
        ("offsets.topic.num.partitions", "4".to_owned()),
        ("transaction.state.log.replication.factor", "1".to_owned()),
        ("transaction.state.log.min.isr", "1".to_owned()),
        ("share.coordinator.state.topic.replication.factor", "1".to_owned()),
        ("share.coordinator.state.topic.min.isr", "1".to_owned()),
        // Nobody else will join.
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        // A broker that was killed may come back as soon as the controller has given up the one before.
        ("broker.heartbeat.interval.ms", "500".to_owned()),
        ("broker.session.timeout.ms", "3000".to_owned()),
    ];
    let lines = settings.map(|(name, value)| format!("{name}={value}\n"));
    lines.concat()
}

/// What comes before the name of a program of Kafka's.
pub(crate) fn java_options(kafka: &tools::Kafka, heap_megabytes: u32) -> Vec<OsString> {
    let mut class_path = kafka.libs.clone().into_os_string();
    class_path.push("/*");
    vec![
        format!("-Xmx{heap_megabytes}m").into(),
        "-XX:+UseSerialGC".into(),
        "-Djava.awt.headless=true".into(),
        // Information is hundreds of lines at each start.
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".into(),
        "-Dorg.slf4j.simpleLogger.showDateTime=true".into(),
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSX".into(),
        "-cp".into(),
        class_path,
    ]
}

/// Prepares the folder for the broker's first start; one that is prepared is left alone.
pub(crate) async fn format(kafka: &tools::Kafka, data: &Path, properties: &Path) -> Result<()> {
    if data.join("data/meta.properties").exists() {
        return Ok(());
    }
    let properties = properties.display().to_string();
    let arguments = ["format", "--standalone", "-t", CLUSTER_ID, "-c", &properties];
    tool(kafka, "kafka.tools.StorageTool", &arguments, "").await?;
    Ok(())
}

/// Runs a program of Kafka's to its end, and returns what it wrote to standard output.
pub(crate) async fn tool(kafka: &tools::Kafka, main: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(&kafka.java);
    command
        // It lives for a second: quick code is not worth compiling.
        .arg("-XX:TieredStopAtLevel=1")
        .args(java_options(kafka, 256))
        .arg(main)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let run = async {
        let mut process = command.spawn().context("cannot run java")?;
        let mut pipe = process.stdin.take().context("its input is piped")?;
        // A program that does not read its input may be gone before it is written.
        let _may_be_gone = pipe.write_all(input.as_bytes()).await;
        drop(pipe);
        Ok::<_, anyhow::Error>(process.wait_with_output().await?)
    };
    let output = tokio::time::timeout(TOOL_PATIENCE, run)
        .await
        .with_context(|| format!("{main} does not end"))??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{main} failed ({}): {said}{errors}",
        output.status
    );
    Ok(said)
}
