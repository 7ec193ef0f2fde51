//! A PostgreSQL for as long as a command needs one: `todo postgres`, so that there is one way of getting one.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// A running server. Dropping it stops it and removes its data.
pub(crate) struct Postgres {
    url: String,
    process: Child,
}

impl Postgres {
    /// Starts a server for tests: fast, and without any durability. With `migrations`, its database has that schema.
    ///
    /// It stops when its standard input ends: also when this process is killed.
    pub(crate) fn start(todo: &Path, migrations: Option<&Path>) -> Result<Self> {
        let mut command = Command::new(todo);
        command.args(["postgres", "--fast-unsafe", "--stop-with-stdin"]);
        if let Some(folder) = migrations {
            command.arg("--migrations").arg(folder);
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", todo.display()))?;
        let output = process.stdout.take().context("its output is piped")?;
        let mut url = String::new();
        BufReader::new(output).read_line(&mut url)?;
        let url = url.trim().to_owned();
        if url.is_empty() {
            let status = process.wait()?;
            bail!("PostgreSQL does not start ({status})");
        }
        Ok(Self { url, process })
    }

    /// The URL of its superuser.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        if let Err(error) = self.process.wait() {
            eprintln!("warning: the test's PostgreSQL: {error}");
        }
    }
}
