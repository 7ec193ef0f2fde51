//! Where what was made is kept: a folder for each content of a tool's pins and recipe.
//!
//! A folder that is there is complete: it was filled under another name and renamed, by one process at a time.

use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The folder that `make` fills when it is not there yet. The contents of `pins` and the recipe are in its name.
pub(crate) fn cached(
    cache: &Path,
    name: &str,
    pins: &[PathBuf],
    recipe: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let hash = hash_of(pins, recipe)?;
    let folder = cache.join(format!("{name}-{hash}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(cache).with_context(|| format!("cannot make the folder {}", cache.display()))?;
    let _lock = lock(&cache.join(format!("{name}.lock")), name)?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let draft = cache.join(format!("{name}-{hash}.draft"));
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    fs::create_dir(&draft)?;
    make(&draft)?;
    fs::rename(&draft, &folder)?;
    eprintln!("{name}: ready in {}", folder.display());
    Ok(folder)
}

/// By the XDG Base Directory Specification.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".cache")))
        .map(|cache| cache.join("todo-platform/tools"))
        .context("neither HOME nor XDG_CACHE_HOME is set: there is no place to keep tools in")
}

fn hash_of(pins: &[PathBuf], recipe: &str) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(recipe);
    for pin in pins {
        let text = fs::read(pin).with_context(|| format!("cannot read {}", pin.display()))?;
        // The length keeps two files from being read as two others.
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    let mut digits = String::new();
    for byte in &hash.finalize()[..6] {
        write!(digits, "{byte:02x}")?;
    }
    Ok(digits)
}

/// Held until it is dropped. Other processes, such as other tests, wait.
pub(crate) fn lock(path: &Path, name: &str) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write to {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => eprintln!("{name}: waiting for another process that makes it ready"),
        Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the cache of tools"),
    }
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use anyhow::bail;

    use super::*;

    #[test]
    fn a_tool_is_made_once_and_again_when_its_pins_change() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let pins = [folder.path().join("pin")];
        fs::write(&pins[0], "one")?;
        let cache = folder.path().join("cache");
        let made = AtomicUsize::new(0);
        let get = || {
            cached(&cache, "tool", &pins, "recipe", |draft| {
                made.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(50));
                Ok(fs::write(draft.join("program"), "")?)
            })
        };
        let folders = std::thread::scope(|scope| {
            let processes = [scope.spawn(get), scope.spawn(get)];
            processes.map(|process| process.join().expect("it does not panic"))
        });
        let [first, second] = folders.map(|folder| folder.expect("it is made"));
        assert_eq!(first, second);
        assert!(first.join("program").is_file());
        assert_eq!(made.load(Ordering::SeqCst), 1);

        fs::write(&pins[0], "two")?;
        assert_ne!(get()?, first);
        assert_eq!(made.load(Ordering::SeqCst), 2);
        Ok(())
    }

    #[test]
    fn a_tool_that_was_half_made_is_made_anew() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let fails = cached(folder.path(), "tool", &[], "", |draft| {
            fs::write(draft.join("half"), "")?;
            bail!("the network is away")
        });
        assert!(fails.is_err());
        let made = cached(folder.path(), "tool", &[], "", |draft| {
            Ok(fs::write(draft.join("whole"), "")?)
        })?;
        assert!(made.join("whole").is_file() && !made.join("half").exists());
        Ok(())
    }
}
