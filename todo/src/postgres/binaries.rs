//! Finds the programs `postgres` and `initdb`: the machine's own first, so that a machine that has PostgreSQL never
//! downloads another, else the ones that [`fetch`](super::fetch) gets.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use super::{OLDEST_MAJOR, Progress, fetch};

/// Where packages put versions side by side: parent folder, what the version's folder begins with, and the rest.
const VERSIONED_FOLDERS: [(&str, &str, &str); 6] = [
    ("/usr/lib/postgresql", "", "bin"),          // Debian, Ubuntu
    ("/usr", "pgsql-", "bin"),                   // PostgreSQL's own RPMs
    ("/usr/libexec", "postgresql", ""),          // Alpine
    ("/opt/homebrew/opt", "postgresql@", "bin"), // Homebrew on Apple silicon
    ("/usr/local/opt", "postgresql@", "bin"),    // Homebrew on Intel
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// Where the binaries come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Source {
    /// This machine's, else fetched.
    #[default]
    Auto,
    /// This machine's only.
    System,
    /// Fetched ones only.
    Embedded,
    /// The folder that holds `postgres` and `initdb`.
    Folder(PathBuf),
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => Self::Auto,
            "system" => Self::System,
            "embedded" => Self::Embedded,
            folder => Self::Folder(PathBuf::from(folder)),
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::System => formatter.write_str("system"),
            Self::Embedded => formatter.write_str("embedded"),
            Self::Folder(folder) => folder.display().fmt(formatter),
        }
    }
}

/// PostgreSQL programs that were found to run on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    /// Holds `postgres` and `initdb`.
    pub(super) folder: PathBuf,
    /// Data folders of one major version are readable by that version only.
    pub(super) major: u32,
    /// Such as `17.2`.
    pub(super) version: String,
}

impl Binaries {
    /// The path of one of the programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Asks the programs in `folder` for their version. None when they are missing or do not run.
    pub(super) fn in_folder(folder: &Path) -> Option<Self> {
        // Links are followed because `initdb` looks for `postgres` beside itself.
        let postgres = folder.join("postgres").canonicalize().ok()?;
        let folder = postgres.parent()?.to_path_buf();
        if !folder.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(&postgres).arg("--version").output().ok()?;
        let version = parse_version(&String::from_utf8_lossy(&output.stdout))?;
        let major = version.split('.').next()?.parse().ok()?;
        Some(Self { folder, major, version })
    }
}

/// Finds binaries that can open data of the major version `data_major`, or any supported ones for new data.
pub(super) async fn locate(source: &Source, data_major: Option<u32>, progress: Progress<'_>) -> Result<Binaries> {
    match source {
        Source::Folder(folder) => {
            let found = Binaries::in_folder(folder)
                .with_context(|| format!("TODO_POSTGRES: no working postgres and initdb in {}", folder.display()))?;
            choose(vec![found], data_major)
        }
        Source::System => choose(on_this_machine(), data_major),
        Source::Embedded => fetch::get(data_major, progress).await,
        Source::Auto => match choose(on_this_machine(), data_major) {
            Ok(binaries) => Ok(binaries),
            Err(unsuitable) => fetch::get(data_major, progress)
                .await
                .with_context(|| unsuitable.to_string()),
        },
    }
}

/// The first candidate that fits.
fn choose(candidates: Vec<Binaries>, data_major: Option<u32>) -> Result<Binaries> {
    let found = candidates
        .iter()
        .map(|binaries| binaries.version.clone())
        .collect::<Vec<_>>();
    let fits = |binaries: &Binaries| match data_major {
        Some(major) => binaries.major == major,
        None => binaries.major >= OLDEST_MAJOR,
    };
    if let Some(binaries) = candidates.into_iter().find(fits) {
        return Ok(binaries);
    }
    let wanted = data_major.map_or_else(
        || format!("PostgreSQL {OLDEST_MAJOR} or newer is needed"),
        |major| format!("the data was made by PostgreSQL {major} and only that version can open it"),
    );
    if found.is_empty() {
        bail!("{wanted}, and no PostgreSQL was found on this machine");
    }
    bail!("{wanted}, and this machine has {}", found.join(", "))
}

/// All PostgreSQL installations of this machine: the one on `PATH`, then side-by-side ones from the newest, then the
/// one that `pg_config` speaks of.
fn on_this_machine() -> Vec<Binaries> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path)
        .filter_map(|folder| Binaries::in_folder(&folder))
        .collect::<Vec<_>>();

    let mut side_by_side = VERSIONED_FOLDERS
        .iter()
        .flat_map(|(parent, prefix, rest)| versions_under(Path::new(parent), prefix, rest))
        .filter_map(|folder| Binaries::in_folder(&folder))
        .collect::<Vec<_>>();
    side_by_side.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
    found.append(&mut side_by_side);

    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        found.extend(Binaries::in_folder(Path::new(&folder)));
    }

    let mut seen = std::collections::HashSet::new();
    found.retain(|binaries| seen.insert(binaries.folder.clone()));
    found
}

/// Folders `parent/PREFIX<digit>…/rest`.
fn versions_under(parent: &Path, prefix: &str, rest: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .and_then(|name| name.strip_prefix(prefix))
                .is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
        })
        .map(|entry| entry.path().join(rest))
        .collect()
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` → `15.18`. Development versions end in `devel`, `beta1` or
/// `rc1`; what is before that is enough.
fn parse_version(line: &str) -> Option<String> {
    let after = line.split_once("(PostgreSQL) ")?.1;
    let version = after
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .next()?
        .trim_end_matches('.');
    (!version.is_empty()).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: &str) -> Binaries {
        Binaries {
            folder: PathBuf::from("/bin").join(version),
            major: version.split('.').next().unwrap().parse().unwrap(),
            version: version.to_owned(),
        }
    }

    #[test]
    fn versions_are_read_whatever_a_packager_appends() {
        let read = |line| parse_version(line);
        assert_eq!(
            read("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").as_deref(),
            Some("15.18")
        );
        assert_eq!(read("postgres (PostgreSQL) 18beta1").as_deref(), Some("18"));
        assert_eq!(read("postgres (PostgreSQL) 9.6.24").as_deref(), Some("9.6.24"));
        assert_eq!(read("postgres: command not found"), None);
        assert_eq!(read("postgres (PostgreSQL) devel"), None);
    }

    #[test]
    fn new_data_takes_the_first_supported_version() {
        let found = vec![version("13.9"), version("15.2"), version("17.1")];
        assert_eq!(choose(found, None).unwrap().version, "15.2");
    }

    #[test]
    fn data_is_only_opened_by_the_major_version_that_made_it() {
        let found = vec![version("15.2"), version("17.1")];
        assert_eq!(choose(found.clone(), Some(17)).unwrap().version, "17.1");
        assert_eq!(
            choose(found, Some(16)).unwrap_err().to_string(),
            "the data was made by PostgreSQL 16 and only that version can open it, and this machine has 15.2, 17.1"
        );
    }

    #[test]
    fn any_other_word_than_the_three_is_a_folder() {
        assert_eq!("embedded".parse(), Ok(Source::Embedded));
        assert_eq!("/opt/pg/bin".parse(), Ok(Source::Folder("/opt/pg/bin".into())));
        assert_eq!(Source::default().to_string().parse(), Ok(Source::Auto));
    }
}
