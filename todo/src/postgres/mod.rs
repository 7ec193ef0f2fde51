//! A private PostgreSQL for one machine: what `todo up` stores data in when no `DATABASE_URL` is given.
//!
//! Lives here: finding or fetching the binaries, making the data folder, starting, watching and stopping the server,
//! and putting right what a crash left. Does not live here: the schema, pools, and every query of the platform; from
//! here on they see a URL like that of any other PostgreSQL.
//!
//! How a start walks through: [`folder`] locks the data folder → [`account`] says who may run the server (PostgreSQL
//! refuses root) → [`binaries`] finds the programs, or [`fetch`] gets them → [`leftovers`] stops the server of a killed
//! run → [`cluster`] makes the data on the first start → [`server`] starts it and waits until it answers.
//!
//! ```text
//! DATA_DIR/lock               held while in use; holds the process id of the holder
//! DATA_DIR/postgres.log       the server's log, kept small by [`log`]
//! DATA_DIR/postgres/          owned by the account that runs the server
//!   password                  of the role `todo`
//!   data/                     PostgreSQL's own data folder
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::unistd::Uid;

mod account;
mod binaries;
mod cluster;
pub(crate) mod command;
mod fetch;
mod folder;
mod leftovers;
mod log;
mod server;
#[cfg(test)]
mod tests;

use account::Account;
pub(crate) use binaries::Source;
use cluster::Cluster;
use folder::DataFolder;
use log::LogKeeper;
use server::Server;

/// The oldest PostgreSQL that the platform's SQL runs on.
const OLDEST_MAJOR: u32 = 15;

/// Tells the user, line by line, about steps that take noticeable time.
pub(crate) type Progress<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// How to run the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Where the binaries come from.
    pub(crate) source: Source,
    /// The TCP port on 127.0.0.1; a free one when none is given.
    pub(crate) port: Option<u16>,
    /// Give up durability for speed. Only for data that a test throws away.
    pub(crate) fast_unsafe: bool,
}

/// A running PostgreSQL that belongs to this process.
///
/// Call [`stop`](Self::stop) when done with it. Dropped without it, the server is told to stop but not waited for.
#[derive(Debug)]
pub(crate) struct PrivatePostgres {
    url: String,
    version: String,
    server: Server,
    log: LogKeeper,
    /// Last, so that the lock is the last thing to go.
    _folder: DataFolder,
}

impl PrivatePostgres {
    /// Starts the server over `data_dir`, which is made when it is missing, and returns when it answers queries.
    ///
    /// # Errors
    /// Each is one line that says what to do: the folder is in use or out of reach, no binaries, a failed start.
    pub(crate) async fn start(data_dir: &Path, options: &Options, progress: Progress<'_>) -> Result<Self> {
        let folder = DataFolder::lock(data_dir)?;
        let account = Account::for_folder(&folder.server_folder())?;
        folder.hand_over(&account)?;

        let cluster = Cluster::new(&folder);
        let binaries = binaries::locate(&options.source, cluster.major_version()?, progress).await?;
        account.require_reach(&binaries.folder, "install PostgreSQL for all users")?;

        leftovers::stop(cluster.data(), progress).await?;
        cluster
            .initialise_if_missing(&binaries, &account, options, progress)
            .await?;

        let log = LogKeeper::open(folder.log())?;
        let server = Server::start(&binaries, &account, &cluster, &log, options, progress).await?;
        Ok(Self {
            url: server.url(),
            version: binaries.version,
            server,
            log,
            _folder: folder,
        })
    }

    /// Where to connect: role and database `todo`, with the password in it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The server's version, such as `17.2`.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Completes only when the server ends without having been asked to, and says why.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        let status = self.server.wait().await;
        anyhow!("PostgreSQL ended unexpectedly ({status}): {}", self.log.last_words())
    }

    /// Stops the server: open transactions are rolled back, what was committed is written out.
    pub(crate) async fn stop(self) -> Result<()> {
        self.server.stop().await
    }
}

/// The data folder of the platform `name` when the user names none: under `/var/lib` for root, since PostgreSQL's
/// account must reach it, otherwise under the user's own data folder (XDG Base Directory Specification).
pub(crate) fn default_data_dir(name: &str) -> Result<PathBuf> {
    let parent = if Uid::effective().is_root() {
        PathBuf::from("/var/lib")
    } else {
        user_folder("XDG_DATA_HOME", ".local/share")
            .context("neither HOME nor XDG_DATA_HOME is set: name a folder with --data-dir")?
    };
    Ok(parent.join("todo-platform").join(name))
}

/// A folder by the XDG Base Directory Specification: `variable` when it holds an absolute path, else below `HOME`.
fn user_folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)))
}
