//! The secret that tokens of a platform on one machine are signed with: made once, kept in its data folder.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rand::distr::{Alphanumeric, SampleString as _};

const FILE: &str = "token-secret";
/// Some 380 bits.
const CHARACTERS: usize = 64;

/// The secret of the platform in `data_dir`; made when there is none.
pub(crate) fn load_or_create(data_dir: &Path) -> Result<Vec<u8>> {
    if let Some(secret) = load(data_dir)? {
        return Ok(secret);
    }
    let secret = Alphanumeric.sample_string(&mut rand::rng(), CHARACTERS);
    fs::create_dir_all(data_dir).with_context(|| format!("cannot make the folder {}", data_dir.display()))?;
    // Written aside and renamed: a crash half-way leaves no half a secret.
    let draft = data_dir.join(format!("{FILE}.{}", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(secret.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, data_dir.join(FILE))?;
    Ok(secret.into_bytes())
}

/// The secret of the platform in `data_dir`, if it has one.
pub(crate) fn load(data_dir: &Path) -> Result<Option<Vec<u8>>> {
    let path = data_dir.join(FILE);
    match fs::read(&path) {
        Ok(secret) => {
            ensure!(
                secret.len() >= CHARACTERS,
                "{} is damaged: delete it to have a new secret made",
                path.display()
            );
            Ok(Some(secret))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
