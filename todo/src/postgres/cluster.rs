//! PostgreSQL's own data folder: made once by `initdb`, and the password of its only role.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rand::distr::{Alphanumeric, SampleString};
use tokio::process::Command;

use super::account::Account;
use super::binaries::Binaries;
use super::folder::DataFolder;
use super::{Options, Progress};

/// The superuser, and the database that the platform lives in.
pub(super) const ROLE: &str = "todo";

/// What `initdb` works in before it is renamed to its final name, followed by the process id.
const UNFINISHED: &str = "data.new.";

/// From this version on PostgreSQL brings its own locales.
const FIRST_WITH_BUILTIN_LOCALES: u32 = 17;

/// The data folder and its password file.
#[derive(Debug)]
pub(super) struct Cluster {
    home: PathBuf,
    data: PathBuf,
}

impl Cluster {
    pub(super) fn new(folder: &DataFolder) -> Self {
        let home = folder.server_folder();
        Self {
            data: home.join("data"),
            home,
        }
    }

    /// Where PostgreSQL keeps its files.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// The folder around it, which the server's account owns.
    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    /// The major version that made the data. None when there is no data yet.
    pub(super) fn major_version(&self) -> Result<Option<u32>> {
        let path = self.data.join("PG_VERSION");
        if !self.data.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let major = text
            .trim()
            .parse()
            .with_context(|| format!("{} holds no version", path.display()))?;
        Ok(Some(major))
    }

    /// The password of [`ROLE`].
    pub(super) fn password(&self) -> Result<String> {
        let path = self.password_file();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// Makes the data when there is none. It appears under its final name only when it is whole, so a crash in the
    /// middle leaves nothing but an unfinished folder, which the next start removes.
    pub(super) async fn initialise_if_missing(
        &self,
        binaries: &Binaries,
        account: &Account,
        options: &Options,
        progress: Progress<'_>,
    ) -> Result<()> {
        self.remove_unfinished();
        if self.data.exists() {
            return Ok(());
        }
        progress(&format!("making a new database with PostgreSQL {}", binaries.version));
        let started = Instant::now();
        self.write_new_password(account)?;
        let unfinished = self.home.join(format!("{UNFINISHED}{}", std::process::id()));
        self.initdb(binaries, account, &unfinished, options.fast_unsafe).await?;
        fs::rename(&unfinished, &self.data)?;
        fs::File::open(&self.home)?.sync_all()?;
        tracing::debug!(elapsed = ?started.elapsed(), "data folder made");
        Ok(())
    }

    /// Runs `initdb` with the first locale that this machine has.
    async fn initdb(&self, binaries: &Binaries, account: &Account, target: &Path, fast_unsafe: bool) -> Result<()> {
        let mut problem = String::new();
        for locale in locales(binaries.major) {
            let mut command = program(binaries, account, "initdb", &self.home);
            command
                .arg("--pgdata")
                .arg(target)
                .arg("--username")
                .arg(ROLE)
                .arg("--pwfile")
                .arg(self.password_file())
                .args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
                .args(*locale)
                .args(fast_unsafe.then_some("--no-sync"))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true);
            let output = command.output().await.context("cannot run PostgreSQL's initdb")?;
            if output.status.success() {
                return Ok(());
            }
            String::from_utf8_lossy(&output.stderr).trim().clone_into(&mut problem);
            if !problem.contains("invalid locale name") {
                break;
            }
        }
        bail!("PostgreSQL's initdb failed: {problem}");
    }

    fn password_file(&self) -> PathBuf {
        self.home.join("password")
    }

    fn write_new_password(&self, account: &Account) -> Result<()> {
        let path = self.password_file();
        let password = Alphanumeric.sample_string(&mut rand::rng(), 32);
        // A file left by a crash may have another owner: begin anew.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(file, "{password}")?;
        file.sync_all()?;
        account.own(&path)
    }

    /// Best effort: an `initdb` that outlives a killed start for a moment may still be writing. It writes to a name of
    /// its own, so what stays is only rubbish, and the next start tries again.
    fn remove_unfinished(&self) {
        for entry in fs::read_dir(&self.home).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Bytewise order and English messages everywhere; upper and lower case of all of Unicode where it can be had.
fn locales(major: u32) -> &'static [&'static [&'static str]] {
    if major >= FIRST_WITH_BUILTIN_LOCALES {
        &[&["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]]
    } else {
        &[&["--lc-ctype=C.UTF-8"], &[]]
    }
}

/// A command for one of PostgreSQL's programs. Its environment is empty but for the essentials: the secrets in that of
/// this process are none of the server's business, and `PG…` variables or a locale must not change what it does.
pub(super) fn program(binaries: &Binaries, account: &Account, name: &str, working_folder: &Path) -> Command {
    let mut command = Command::new(binaries.program(name));
    command
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir(working_folder)
        .stdin(Stdio::null());
    account.apply(&mut command);
    command
}
