//! The server's log file: readable when a start fails, and never large.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

/// Past this size, in bytes, the log moves to `postgres.log.old`. So the two take at most about twice this.
const LIMIT: u64 = 8 << 20;

const CHECK_EVERY: Duration = Duration::from_secs(20);

/// What is read back of a log to find the reason of a failure, in bytes.
const TAIL: u64 = 8 << 10;

/// Keeps the log small while it lives.
#[derive(Debug)]
pub(super) struct LogKeeper {
    path: PathBuf,
    keeper: JoinHandle<()>,
}

impl LogKeeper {
    /// Watches over the log at `path`.
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        shorten(&path).with_context(|| format!("cannot shorten {}", path.display()))?;
        let watched = path.clone();
        let keeper = tokio::spawn(async move {
            loop {
                tokio::time::sleep(CHECK_EVERY).await;
                if let Err(error) = shorten(&watched) {
                    tracing::warn!(path = %watched.display(), %error, "cannot shorten the log of PostgreSQL");
                }
            }
        });
        Ok(Self { path, keeper })
    }

    /// Opens the log for a server to append to.
    pub(super) fn append(&self) -> Result<File> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)
            .with_context(|| format!("cannot write to {}", self.path.display()))
    }

    /// Its size now, in bytes.
    pub(super) fn len(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// What was written after the first `offset` bytes, without more than the end of it.
    pub(super) fn since(&self, offset: u64) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.path)?;
            let start = offset.max(file.metadata()?.len().saturating_sub(TAIL));
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    /// The last reason that the log gives, and where the log is.
    pub(super) fn last_words(&self) -> String {
        reason(&self.since(0), &self.path)
    }

    /// The last reason after the first `offset` bytes.
    pub(super) fn reason_since(&self, offset: u64) -> String {
        reason(&self.since(offset), &self.path)
    }
}

impl Drop for LogKeeper {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Copies a log that is too long aside and empties it. It is not renamed, because the server keeps its file open.
fn shorten(path: &Path) -> std::io::Result<()> {
    let long = fs::metadata(path).is_ok_and(|metadata| metadata.len() > LIMIT);
    if long {
        fs::copy(path, path.with_extension("log.old"))?;
        OpenOptions::new().write(true).open(path)?.set_len(0)?;
    }
    Ok(())
}

/// The line that says why: the last one of the gravest kind.
fn reason(log: &str, path: &Path) -> String {
    let line = ["PANIC: ", "FATAL: ", "ERROR: ", ""].iter().find_map(|kind| {
        let lines = log.lines().filter(|line| !line.trim().is_empty());
        let (_, text) = lines.rev().find_map(|line| line.split_once(kind))?;
        Some(text.trim())
    });
    match line {
        Some(line) => format!("{line} (log: {})", path.display()),
        None => format!("it wrote no reason (log: {})", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_line_is_the_reason() {
        let log = "2026-11-21 10:00:00 UTC [7] LOG:  starting PostgreSQL 15.18\n\
                   2026-11-21 10:00:00 UTC [7] FATAL:  could not open file \"x\": Permission denied\n\
                   2026-11-21 10:00:00 UTC [7] LOG:  database system is shut down\n\n";
        assert_eq!(
            reason(log, Path::new("/d/postgres.log")),
            "could not open file \"x\": Permission denied (log: /d/postgres.log)"
        );
        assert_eq!(
            reason("postgres: no such thing\n", Path::new("l")),
            "postgres: no such thing (log: l)"
        );
        assert_eq!(reason("\n", Path::new("l")), "it wrote no reason (log: l)");
    }

    #[test]
    fn a_long_log_is_set_aside_and_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postgres.log");
        File::create(&path).unwrap().set_len(LIMIT).unwrap();
        shorten(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), LIMIT, "not yet too long");
        File::create(&path).unwrap().set_len(LIMIT + 1).unwrap();
        shorten(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        let aside = folder.path().join("postgres.log.old");
        assert_eq!(fs::metadata(aside).unwrap().len(), LIMIT + 1);
    }
}
