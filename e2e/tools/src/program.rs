//! Programs of this machine: found, or installed where that is possible; and builds, run to their end.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Uid;

use crate::cache::{cache_folder, lock};

/// How often a long build says that it lives.
const REPORT_EVERY: Duration = Duration::from_secs(15);
/// How much of a failed build's output is shown.
const LAST_LINES: usize = 30;

/// What a variable names, when it is set.
pub(crate) fn named(variable: &str) -> Result<Option<PathBuf>> {
    let Some(given) = std::env::var_os(variable).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let path = PathBuf::from(given);
    ensure!(path.exists(), "{variable} names {}, which is not there", path.display());
    Ok(Some(path))
}

/// A program of this machine. One that is missing is installed, or the error says how.
pub(crate) fn program(name: &str, package: &str) -> Result<PathBuf> {
    found_or_installed(name, package, || find(name))
}

/// What `find` finds, after the package was installed if that is needed.
pub(crate) fn found_or_installed(name: &str, package: &str, find_it: impl Fn() -> Option<PathBuf>) -> Result<PathBuf> {
    if let Some(found) = find_it() {
        return Ok(found);
    }
    let Some(apt) = find("apt-get").filter(|_| Uid::effective().is_root()) else {
        bail!("{name} is not here: install it (Debian's package is {package})");
    };
    let cache = cache_folder()?;
    fs::create_dir_all(&cache)?;
    let _lock = lock(&cache.join("apt.lock"), name)?;
    if let Some(found) = find_it() {
        return Ok(found);
    }
    eprintln!("{name}: installing the package {package}");
    let install = |arguments: &[&OsStr]| {
        let mut command = Command::new(&apt);
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        run(name, "lines of apt-get", &mut command)
    };
    let install_package: Vec<&OsStr> = ["install", "--yes", "--no-install-recommends", package]
        .map(OsStr::new)
        .into();
    if install(&install_package).is_err() {
        // On a fresh machine apt knows of no package at all.
        install(&[OsStr::new("update")])?;
        install(&install_package)?;
    }
    find_it().with_context(|| format!("{name} is still not here after its package {package} was installed"))
}

/// A program on the search path; an account's own path may lack the system's folders.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path: OsString = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/bin", "/usr/bin", "/usr/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Runs a build to its end and says now and then how far it is. Its last words are in the error.
pub(crate) fn run(name: &str, what: &str, command: &mut Command) -> Result<()> {
    let began = Instant::now();
    let mut reported = began;
    // One pipe for both: the order of the lines tells what went wrong.
    let (output, input) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
    let mut process = command
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    // The command holds the pipe's other end, and reading would never end.
    *command = Command::new(command.get_program());
    let mut last = VecDeque::new();
    let mut count: u64 = 0;
    for line in BufReader::new(output).lines() {
        last.push_back(line?);
        if last.len() > LAST_LINES {
            last.pop_front();
        }
        count += 1;
        if reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            eprintln!("{name}: {count} {what} after {} s", began.elapsed().as_secs());
        }
    }
    let status = process.wait()?;
    if !status.success() {
        let last: Vec<String> = last.into();
        bail!("{name}: it cannot be made ready ({status}):\n{}", last.join("\n"));
    }
    Ok(())
}

/// What a quick command wrote to standard output. Its standard error is in the error.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{} failed ({}): {}",
            command.get_program().display(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Copies the files of `from`, and of folders in it, into `to`, which is made. Copies are writable, also where their
/// originals are not.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::write(target, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_build_said_last_is_in_the_error() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let error = run("tool", "lines", &mut command).expect_err("it fails").to_string();
        assert!(error.contains("tool") && error.contains("out\nerr"), "{error}");
    }
}
