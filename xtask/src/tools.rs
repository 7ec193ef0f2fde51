//! Cargo's subcommands that are not cargo's own: in pinned versions, in a folder of the workspace.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::workspace;

/// A pinned tool.
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
}

/// Licences, bans, sources and advisories of dependencies.
pub(crate) const DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
};

/// Dependencies that nothing uses.
pub(crate) const MACHETE: Tool = Tool {
    name: "cargo-machete",
    version: "0.9.2",
};

impl Tool {
    /// A command for the tool at the workspace's root. Builds it when it is missing: minutes, once.
    pub(crate) fn command(&self) -> Result<Command> {
        let tools = workspace::root().join(".cache/tools");
        // The version is in the folder's name, so a new pin is a new build.
        let folder = tools.join(format!("{}-{}", self.name, self.version));
        let program: PathBuf = folder.join("bin").join(self.name);
        if !program.is_file() {
            eprintln!("building {} {}: once, and it takes minutes", self.name, self.version);
            let installed = workspace::status(
                workspace::cargo()
                    .args(["install", self.name, "--locked", "--version", self.version])
                    .args(["--no-track", "--root"])
                    .arg(&folder),
            )?;
            if !installed.success() {
                bail!("{} {} does not build", self.name, self.version);
            }
        }
        let mut command = Command::new(program);
        command.current_dir(workspace::root());
        Ok(command)
    }
}
