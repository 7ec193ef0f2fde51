//! The workspace that this program was built from, and running cargo in it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// The workspace's root folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask/ is a folder of the workspace")
}

/// A cargo command at the root. SQL is checked against `.sqlx`: a `DATABASE_URL` in the environment is for running
/// the platform, and must not decide how it compiles.
pub(crate) fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root()).env("SQLX_OFFLINE", "true");
    command
}

/// Runs a command to its end.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))
}

/// How the binary `todo` is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// Quickly, for tests.
    Dev,
    /// As people run it.
    Release,
    /// For an image: small, and linked with nothing outside of it.
    Image,
}

/// Builds the binary `todo` and returns its path.
pub(crate) fn build_todo(build: Build) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--package", "todo", "--bin", "todo"]);
    command.arg("--message-format=json-render-diagnostics");
    match build {
        Build::Dev => {}
        Build::Release => {
            command.arg("--release");
        }
        Build::Image => {
            // A target that is named keeps the flag from macros, which cannot be static.
            command.args(["--profile", "image", "--target", &host()?]);
            command.env("RUSTFLAGS", "-C target-feature=+crt-static");
        }
    }
    let mut build = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let messages = build.stdout.take().context("cargo's output is piped")?;
    let mut binary = None;
    for message in BufReader::new(messages).lines() {
        binary = executable(&message?).or(binary);
    }
    if !build.wait()?.success() {
        bail!("todo does not build (after a change of a query run `cargo xtask generate`)");
    }
    binary.context("cargo built todo and named no executable")
}

/// What programs of this machine are built for, as rustc calls it.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("-vV").output().context("cannot run rustc")?;
    let said = String::from_utf8(said.stdout)?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

/// The path in one of cargo's messages, when it is about an executable (the Cargo Book, "External tools").
fn executable(message: &str) -> Option<PathBuf> {
    let (_, after) = message.split_once(r#""executable":""#)?;
    let (path, _) = after.split_once('"')?;
    Some(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_read_from_cargos_messages() {
        let artifact = r#"{"reason":"compiler-artifact","filenames":["/t/todo"],"executable":"/t/todo","fresh":true}"#;
        assert_eq!(executable(artifact), Some(PathBuf::from("/t/todo")));
        assert_eq!(
            executable(r#"{"reason":"compiler-artifact","executable":null,"fresh":true}"#),
            None
        );
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
    }

    #[test]
    fn the_root_holds_the_workspaces_manifest() {
        assert!(root().join("Cargo.toml").is_file());
    }
}
