//! The Java of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::program::program;

/// A Java runtime that is new enough for `tool`.
pub(crate) fn java(tool: &str, oldest: u32) -> Result<PathBuf> {
    let java = program("java", "default-jre-headless")?;
    let said = said_version(&java)?;
    match java_version(&said) {
        Some(version) if version >= oldest => Ok(java),
        Some(version) => bail!("{tool} needs Java {oldest} or newer, this is {version}: install a newer one"),
        None => bail!("this is no Java that {tool} could run on: {}", said.trim()),
    }
}

/// Whether this program is a Java runtime that is new enough.
pub(crate) fn is_java(program: &Path, oldest: u32) -> bool {
    let version = said_version(program).ok().and_then(|said| java_version(&said));
    version.is_some_and(|version| version >= oldest)
}

fn said_version(java: &Path) -> Result<String> {
    let output = Command::new(java).arg("-version").output().context("cannot run java")?;
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
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
