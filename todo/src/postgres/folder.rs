//! The data folder: making it, locking it, and handing the server's part of it to the server's account.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::failure::Refused;
use nix::unistd::Uid;

use super::account::Account;

/// A data folder that this process holds the lock of.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
    /// The kernel lets go of the lock when the process ends, however it ends.
    _lock: File,
}

impl DataFolder {
    /// Makes the folder when it is missing and locks it. Fails at once when another process holds it.
    pub(super) fn lock(path: &Path) -> Result<Self> {
        // Root's folder must let the server's account pass through.
        let mode = if Uid::effective().is_root() { 0o711 } else { 0o700 };
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .with_context(|| format!("cannot make the data folder {}", path.display()))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot read the data folder {}", path.display()))?;

        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .with_context(|| format!("cannot write to {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                lock.read_to_string(&mut holder)?;
                return Err(Refused::because(format_args!(
                    "{} is in use by process {}: stop that one, or choose another folder with --data-dir",
                    path.display(),
                    holder.trim()
                )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", lock_path.display()));
            }
        }
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self { path, _lock: lock })
    }

    /// The part that belongs to the server's account.
    pub(super) fn server_folder(&self) -> PathBuf {
        self.path.join("postgres")
    }

    /// The server's log. Outside the server's part: this process writes to it, perhaps as root, and must not follow a
    /// link that the server's account put there.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("postgres.log")
    }

    /// Makes the server's part of the folder, gives it to `account`, and sees that `account` can walk to it.
    pub(super) fn hand_over(&self, account: &Account) -> Result<()> {
        let server_folder = self.server_folder();
        match DirBuilder::new().mode(0o700).create(&server_folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot make {}", server_folder.display()));
            }
            _ => account.own(&server_folder)?,
        }
        if matches!(account, Account::Other { .. }) {
            // Passing through is all that others get, and only here: a parent folder is the user's to open.
            let mode = fs::metadata(&self.path)?.mode();
            fs::set_permissions(&self.path, fs::Permissions::from_mode(mode | 0o011))?;
        }
        account.require_reach(&server_folder, "choose another folder with --data-dir")
    }
}
