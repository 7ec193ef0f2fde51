//! Kafka: its jars come from Maven Central, and a Java of this machine runs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cache::{cache_folder, cached};
use crate::java::java;
use crate::pinned;
use crate::program::{named, program, run};

/// The variable that names a folder of Kafka's jars.
pub const KAFKA_LIBS: &str = "TODO_KAFKA_LIBS";

/// What Kafka 4's broker runs on.
const OLDEST_JAVA: u32 = 17;

/// What runs Kafka.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// A Java runtime.
    pub java: PathBuf,
    /// The folder of the jars: all of them are the class path.
    pub libs: PathBuf,
}

/// Kafka, with the Java that runs it.
pub fn kafka() -> Result<Kafka> {
    let java = java("kafka", OLDEST_JAVA)?;
    if let Some(libs) = named(KAFKA_LIBS)? {
        return Ok(Kafka { java, libs });
    }
    let project = pinned("kafka");
    let pins = [project.join("pom.xml")];
    let folder = cached(&cache_folder()?, "kafka", &pins, "", |draft| {
        eprintln!("kafka: fetching its jars, once");
        fetch_jars("kafka", &project.join("pom.xml"), &draft.join("libs"))
    })?;
    Ok(Kafka {
        java,
        libs: folder.join("libs"),
    })
}

/// Puts the jars that a pom.xml depends on into a folder.
pub(crate) fn fetch_jars(tool: &str, pom: &Path, libs: &Path) -> Result<()> {
    let mut fetch = Command::new(program("mvn", "maven")?);
    fetch
        .args(["--batch-mode", "dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg("-f")
        .arg(pom)
        .arg(format!("-DoutputDirectory={}", libs.display()));
    run(tool, "lines of maven", &mut fetch)
}
