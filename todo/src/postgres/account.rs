//! Which account runs the server. PostgreSQL refuses to run as root, so root lends it to an unprivileged account.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::unistd::{Uid, User};
use tokio::process::Command;

/// Tried in this order when root starts a new data folder.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// Who runs the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// The one that runs this process.
    Own,
    /// Another one, because this process is root.
    Other { name: String, uid: u32, gid: u32 },
}

impl Account {
    /// The account for the server's folder. Data that exists stays with its owner: that never needs a recursive
    /// change of owner, and another choice could not read it.
    pub(super) fn for_folder(folder: &Path) -> Result<Self> {
        if !Uid::effective().is_root() {
            return Ok(Self::Own);
        }
        if let Ok(metadata) = fs::metadata(folder)
            && metadata.uid() != 0
        {
            let owner = User::from_uid(Uid::from_raw(metadata.uid()))?;
            return Ok(Self::Other {
                name: owner.map_or_else(|| metadata.uid().to_string(), |user| user.name),
                uid: metadata.uid(),
                gid: metadata.gid(),
            });
        }
        for name in UNPRIVILEGED {
            if let Some(user) = User::from_name(name)?
                && !user.uid.is_root()
            {
                return Ok(Self::Other {
                    name: user.name,
                    uid: user.uid.as_raw(),
                    gid: user.gid.as_raw(),
                });
            }
        }
        bail!(
            "PostgreSQL refuses to run as root and there is no user {} to run it: add one, or start as another user",
            UNPRIVILEGED.join(" or ")
        )
    }

    /// Makes `command` run as this account. The supplementary groups of root are dropped with it.
    pub(super) fn apply(&self, command: &mut Command) {
        if let Self::Other { uid, gid, .. } = self {
            command.uid(*uid).gid(*gid);
        }
    }

    /// Gives `path` to this account.
    pub(super) fn own(&self, path: &Path) -> Result<()> {
        if let Self::Other { name, uid, gid } = self {
            chown(path, Some(*uid), Some(*gid))
                .with_context(|| format!("cannot give {} to user {name}", path.display()))?;
        }
        Ok(())
    }

    /// Fails, naming the folder in the way, when this account cannot walk to `path`. `otherwise` is what the user can
    /// do instead of opening that folder.
    pub(super) fn require_reach(&self, path: &Path, otherwise: &str) -> Result<()> {
        let Self::Other { name, uid, gid } = self else {
            return Ok(());
        };
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot read {}", path.display()))?;
        let from_root_down = path.ancestors().collect::<Vec<_>>().into_iter().rev();
        for folder in from_root_down {
            let metadata = fs::metadata(folder)?;
            if !may_enter(*uid, *gid, metadata.uid(), metadata.gid(), metadata.mode()) {
                bail!(
                    "PostgreSQL runs as user {name}, who cannot enter {0}: run `chmod o+x {0}`, or {otherwise}",
                    folder.display()
                );
            }
        }
        Ok(())
    }
}

/// Whether an account may pass through a folder: the first of owner, group and others that fits it decides (POSIX
/// file access permissions).
fn may_enter(uid: u32, gid: u32, owner: u32, group: u32, mode: u32) -> bool {
    let bit = if uid == owner {
        0o100
    } else if gid == group {
        0o010
    } else {
        0o001
    };
    mode & bit != 0
}

#[cfg(test)]
mod tests {
    use super::may_enter;

    #[test]
    fn the_first_class_that_fits_decides_who_may_enter() {
        assert!(may_enter(7, 7, 7, 0, 0o700));
        assert!(!may_enter(7, 7, 0, 0, 0o700));
        assert!(may_enter(7, 7, 0, 0, 0o711));
        assert!(may_enter(7, 7, 0, 7, 0o710));
        assert!(!may_enter(7, 7, 7, 7, 0o011), "an owner does not count among others");
    }
}
