//! The PostgreSQL that is measured on: a private one as `todo up` has it, so with fsync on, and PostgreSQL's own tools.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::process::output;

/// Functions for the scripts that make data, in the schema `bench` of each database.
const FUNCTIONS: &str = include_str!("functions.sql");

/// A running server. Dropping it stops it; its data stays.
pub(crate) struct Server {
    todo: PathBuf,
    url: String,
    process: Child,
    /// From the start of the process until it took connections.
    pub(crate) started_in: Duration,
}

impl Server {
    /// Starts a server on the data in `data_dir`; makes it when there is none.
    pub(crate) fn start(todo: &Path, data_dir: &Path) -> Result<Self> {
        let begun = Instant::now();
        let mut process = Command::new(todo)
            .arg("postgres")
            .arg("--data-dir")
            .arg(data_dir)
            .arg("--stop-with-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", todo.display()))?;
        let output = process.stdout.take().context("its output is piped")?;
        let mut url = String::new();
        BufReader::new(output).read_line(&mut url)?;
        let started_in = begun.elapsed();
        let url = url.trim().to_owned();
        if url.is_empty() {
            let status = process.wait()?;
            bail!("PostgreSQL does not start ({status}); `todo postgres` says why");
        }
        Ok(Self {
            todo: todo.to_owned(),
            url,
            process,
            started_in,
        })
    }

    /// The platform's own database, migrated.
    pub(crate) fn platforms_database(&self) -> Result<Database> {
        let database = Database { url: self.url.clone() };
        self.migrate(&database)?;
        Ok(database)
    }

    /// A new database, migrated.
    pub(crate) fn database(&self, name: &str) -> Result<Database> {
        let database = self.create(name, "")?;
        self.migrate(&database)?;
        Ok(database)
    }

    /// A new database with what is in `original`.
    pub(crate) fn copy(&self, original: &str, name: &str) -> Result<Database> {
        self.create(name, &format!(" TEMPLATE {original} STRATEGY file_copy"))
    }

    fn create(&self, name: &str, how: &str) -> Result<Database> {
        let server = Database { url: self.url.clone() };
        server.run(&format!("CREATE DATABASE {name}{how}"))?;
        let (address, _) = self.url.rsplit_once('/').context("a URL ends in a database")?;
        Ok(Database {
            url: format!("{address}/{name}"),
        })
    }

    fn migrate(&self, database: &Database) -> Result<()> {
        output(
            Command::new(&self.todo)
                .args(["migrate", "--database-url"])
                .arg(&database.url),
        )?;
        database.run(FUNCTIONS)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        if let Err(error) = self.process.wait() {
            eprintln!("warning: PostgreSQL may be left behind: {error}");
        }
    }
}

/// A database of the server.
pub(crate) struct Database {
    pub(crate) url: String,
}

impl Database {
    /// Runs statements, each a transaction of its own.
    pub(crate) fn run(&self, sql: &str) -> Result<()> {
        self.ask(sql).map(drop)
    }

    /// Runs statements and returns what they print, columns separated by `|`.
    pub(crate) fn ask(&self, sql: &str) -> Result<String> {
        let mut psql = psql(&self.url)?;
        // From standard input: with -c, several statements are one transaction.
        let mut process = psql
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run psql")?;
        let mut input = process.stdin.take().context("its input is piped")?;
        input.write_all(sql.as_bytes())?;
        drop(input);
        let output = process.wait_with_output()?;
        if !output.status.success() {
            bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Opens a connection that answers question after question.
    pub(crate) fn session(&self) -> Result<Session> {
        let mut process = psql(&self.url)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run psql")?;
        let input = process.stdin.take().context("its input is piped")?;
        let output = process.stdout.take().context("its output is piped")?;
        Ok(Session {
            process,
            input,
            output: BufReader::new(output),
        })
    }

    /// Runs a script with pgbench and prepared statements; returns what it says.
    pub(crate) fn pgbench(&self, script: &Path, load: Load, variables: &[(&str, u64)]) -> Result<Pgbench> {
        let mut command = Command::new(program("pgbench")?);
        command
            .args(["--no-vacuum", "--protocol=prepared", "--file"])
            .arg(script);
        match load {
            Load::Clients { clients, time } => command
                .args(["--jobs", "2", "--client", &clients.to_string()])
                .args(["--time", &time.as_secs().to_string()]),
            Load::Transactions(transactions) => command.args(["--transactions", &transactions.to_string()]),
        };
        for (name, value) in variables {
            command.arg("--define").arg(format!("{name}={value}"));
        }
        let said = output(command.arg(&self.url))?;
        Pgbench::read(&said).with_context(|| format!("pgbench says something else than it used to: {said}"))
    }

    /// Brings the statistics up to date and writes out what is in memory only, so that neither falls into a measurement.
    pub(crate) fn settle(&self) -> Result<()> {
        self.run("VACUUM ANALYZE;\nCHECKPOINT;\n")
    }
}

/// What pgbench is to run.
#[derive(Clone, Copy)]
pub(crate) enum Load {
    /// So many at once for so long.
    Clients { clients: u16, time: Duration },
    /// So many, one after the other.
    Transactions(u32),
}

/// What pgbench has measured.
pub(crate) struct Pgbench {
    pub(crate) per_second: f64,
    pub(crate) average_ms: f64,
}

impl Pgbench {
    /// Reads `latency average = 7.412 ms` and `tps = 4317.3 (without initial connection time)`.
    fn read(said: &str) -> Option<Self> {
        let value = |name: &str| -> Option<f64> {
            let rest = said.lines().find_map(|line| line.strip_prefix(name))?;
            rest.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            per_second: value("tps = ")?,
            average_ms: value("latency average = ")?,
        })
    }
}

/// An open connection.
pub(crate) struct Session {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    /// The one row that a statement returns, columns separated by `|`.
    pub(crate) fn row(&mut self, sql: &str) -> Result<String> {
        self.input.write_all(sql.as_bytes())?;
        self.input.write_all(b";\n")?;
        let mut row = String::new();
        if self.output.read_line(&mut row)? == 0 {
            bail!("psql ended ({})", self.process.wait()?);
        }
        Ok(row.trim_end().to_owned())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It is only waiting for the next statement.
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("warning: psql may be left behind: {error}");
        }
    }
}

fn psql(url: &str) -> Result<Command> {
    let mut command = Command::new(program("psql")?);
    command.args([
        "--no-psqlrc",
        "--quiet",
        "--tuples-only",
        "--no-align",
        "--set=ON_ERROR_STOP=1",
    ]);
    command.arg(url);
    Ok(command)
}

/// A program of PostgreSQL: of the newest version on this machine, else on the path.
fn program(name: &str) -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").map_or_else(
        |_| Vec::new(),
        |entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
    );
    let version = |folder: &PathBuf| -> Option<u32> { folder.file_name()?.to_str()?.parse().ok() };
    let newest = versions
        .into_iter()
        .filter(|folder| folder.join("bin").join(name).is_file())
        .max_by_key(version);
    if let Some(folder) = newest {
        return Ok(folder.join("bin").join(name));
    }
    let on_path = Command::new(name).arg("--version").output();
    if on_path.is_ok_and(|output| output.status.success()) {
        return Ok(name.into());
    }
    bail!("{name} is not on this machine: install PostgreSQL (Debian: apt-get install postgresql)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_measures_is_read() {
        let said = "number of clients: 32\nlatency average = 7.412 ms\ninitial connection time = 41.2 ms\n\
                    tps = 4317.25 (without initial connection time)\n";
        let read = Pgbench::read(said).unwrap();
        assert!((read.per_second - 4317.25).abs() < 1e-9 && (read.average_ms - 7.412).abs() < 1e-9);
        assert!(Pgbench::read("pgbench: error: no such file\n").is_none());
    }
}
