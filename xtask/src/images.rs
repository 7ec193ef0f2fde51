//! `cargo xtask images`: the container image of all roles, made without a container engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::{self, Build};

/// The repository of images that are made here: no registry is asked for it.
const REPOSITORY: &str = "localhost/todo-platform/todo";
/// The folder that archives are written to, unless told otherwise.
pub(crate) const OUTPUT: &str = "target/images";
/// The most that the image may take, in bytes.
const LIMIT: u64 = 40_000_000;

/// Make the container image of all roles: statically linked, and nothing else in it
///
/// The archive can be loaded with `docker load`, `podman load`, `ctr images import` and `kind load image-archive`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder that the archive is written to
    #[arg(long, value_name = "DIR", default_value = OUTPUT)]
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    make(&args.output)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds the image into a folder; the path of its archive.
pub(crate) fn make(output: &Path) -> Result<PathBuf> {
    let program = workspace::build_todo(Build::Image)?;
    let size = fs::metadata(&program)?.len();
    ensure!(
        size <= LIMIT,
        "{} has {size} bytes; the image may have {LIMIT}",
        program.display()
    );
    let output = workspace::root().join(output);
    fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    let version = env!("CARGO_PKG_VERSION");
    let archive = output.join(format!("todo-{version}.tar"));
    let mut pack = workspace::cargo();
    pack.args([
        "run",
        "--quiet",
        "--locked",
        "--package",
        "todo-e2e",
        "--bin",
        "image",
        "--",
    ])
    .arg(&program)
    .args([
        "--name",
        &format!("{REPOSITORY}:{version}"),
        "--version",
        version,
        "--output",
    ])
    .arg(&archive);
    if !workspace::status(&mut pack)?.success() {
        bail!("the image was not written");
    }
    Ok(archive)
}
