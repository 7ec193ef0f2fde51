//! The Java of this machine.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::program::program;

/// A Java runtime that is new enough for `tool`.
pub(crate) fn java(tool: &str, oldest: u32) -> Result<PathBuf> {
    let java = program("java", "default-jre-headless")?;
    let output = Command::new(&java)
        .arg("-version")
        .output()
        .context("cannot run java")?;
    let said = String::from_utf8_lossy(&output.stderr);
    match java_version(&said) {
        Some(version) if version >= oldest => Ok(java),
        Some(version) => bail!("{tool} needs Java {oldest} or newer, this is {version}: install a newer one"),
        None => bail!("this is no Java that {tool} could run on: {}", said.trim()),
    }
}

/// Reads `openjdk version "17.0.15" 2025-04-15`; Java 8 called itself 1.8.
fn java_version(said: &str) -> Option<u32> {
    let (_, version) = said.split_once("version \"")?;
    let first = version.split(['.', '"', '-']).next()?;
    first.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_java_writes_them() {
        assert_eq!(
            java_version("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK"),
            Some(17)
        );
        assert_eq!(java_version("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(java_version("java version \"1.8.0_442\""), Some(1));
        assert_eq!(java_version("no such thing"), None);
    }
}
