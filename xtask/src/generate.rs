//! `cargo xtask generate`: the files that are made from the code and checked in.
//!
//! Two kinds: what `todo generate` writes (CRDs, JSON schemas, the OpenAPI document), and `.sqlx`, which holds what
//! PostgreSQL says about each query, so that the workspace compiles without one. `.sqlx` is written by sqlx's macros
//! while the workspace is checked against a live database that has the schema of `migrations/`.
//!
//! That database comes from `todo postgres`, and `todo` compiles only when `.sqlx` knows its queries. So after a query
//! was changed the `todo` of an earlier build serves once more: it reads the migrations from the files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::postgres::Postgres;
use crate::workspace::{self, Build};

/// Write the generated files: CRDs, JSON schemas, the OpenAPI document, and .sqlx
///
/// When a changed query keeps `todo` from compiling, the `todo` of an earlier build gives the database: the one in
/// `target/`, or the one that `TODO_BIN` names. `DATABASE_URL`, if set then, names a
/// database with the current schema.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; list what is stale, and fail if anything is
    #[arg(long)]
    check: bool,
}

/// The contents of files, by path relative to the workspace's root.
type Files = BTreeMap<PathBuf, Vec<u8>>;

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.check {
        let fresh = check(&workspace::build_todo(Build::Dev)?)?;
        return Ok(if fresh { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let queries = match workspace::build_todo(Build::Dev) {
        Ok(todo) => queries_with_server_of(&todo)?,
        Err(_) => queries_without_build()?,
    };
    replace_queries(&queries)?;
    let todo = workspace::build_todo(Build::Dev)?;
    write_documents(&todo, workspace::root())?;
    println!("generated files are written, {} queries in .sqlx", queries.len());
    Ok(ExitCode::SUCCESS)
}

/// Whether all generated files are what `todo` and the code would make now. Lists those that are not.
pub(crate) fn check(todo: &Path) -> Result<bool> {
    let aside = scratch("documents")?;
    write_documents(todo, &aside)?;
    let mut expected = Files::new();
    read_files(&aside, &aside, &mut expected)?;
    let mut present = Files::new();
    for path in expected.keys() {
        if let Ok(content) = fs::read(workspace::root().join(path)) {
            present.insert(path.clone(), content);
        }
    }

    expected.append(&mut queries_with_server_of(todo)?);
    present.append(&mut checked_in_queries()?);

    let stale = differences(&expected, &present);
    for line in &stale {
        println!("stale: {line}");
    }
    if stale.is_empty() {
        println!("{} generated files are fresh", expected.len());
    } else {
        println!("run `cargo xtask generate` and commit what it writes");
    }
    Ok(stale.is_empty())
}

fn write_documents(todo: &Path, root: &Path) -> Result<()> {
    let status = workspace::status(Command::new(todo).args(["generate", "--root"]).arg(root))?;
    if !status.success() {
        bail!("todo generate failed ({status})");
    }
    Ok(())
}

fn queries_with_server_of(todo: &Path) -> Result<Files> {
    let migrations = workspace::root().join("migrations");
    let postgres = Postgres::start(todo, Some(&migrations))?;
    queries(postgres.url())
}

fn queries_without_build() -> Result<Files> {
    if let Ok(url) = std::env::var("DATABASE_URL") {
        println!("todo does not compile yet: the queries are checked on DATABASE_URL");
        return queries(&url);
    }
    let built = ["target/debug/todo", "target/release/todo"].map(|path| workspace::root().join(path));
    let named = std::env::var_os("TODO_BIN").map(PathBuf::from);
    let Some(earlier) = named.into_iter().chain(built).find(|path| path.is_file()) else {
        bail!(
            "todo does not compile (see above) and there is none of an earlier build to get PostgreSQL from: set \
             TODO_BIN to one, or DATABASE_URL to a database with the schema of migrations/"
        );
    };
    println!("todo does not compile yet: its earlier build gives the database");
    queries_with_server_of(&earlier)
}

/// Asks the database at `url` about every query of the workspace.
fn queries(url: &str) -> Result<Files> {
    // A target folder of its own: the macros must run again in each crate of the workspace, which means removing what
    // was built of it, while the dependencies stay.
    let target = workspace::root().join("target/sqlx");
    let mut clean = workspace::cargo();
    clean
        .args(["clean", "--quiet", "--workspace", "--target-dir"])
        .arg(&target);
    if target.exists() && !workspace::status(&mut clean)?.success() {
        bail!("cargo clean failed");
    }

    let answers = scratch("queries")?;
    let mut check = workspace::cargo();
    check
        .args([
            "check",
            "--workspace",
            "--exclude",
            "xtask",
            "--all-targets",
            "--target-dir",
        ])
        .arg(&target);
    check
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", &answers)
        .env("DATABASE_URL", url);
    if !workspace::status(&mut check)?.success() {
        bail!("the workspace does not compile against its own schema");
    }

    let mut answered = Files::new();
    read_files(&answers, &answers, &mut answered)?;
    if answered.is_empty() {
        bail!("the macros of sqlx wrote nothing");
    }
    Ok(answered
        .into_iter()
        .map(|(name, content)| (Path::new(".sqlx").join(name), content))
        .collect())
}

fn checked_in_queries() -> Result<Files> {
    let root = workspace::root();
    let mut files = Files::new();
    read_files(&root.join(".sqlx"), root, &mut files)?;
    Ok(files)
}

/// Makes `.sqlx` hold exactly these.
fn replace_queries(queries: &Files) -> Result<()> {
    let root = workspace::root();
    fs::create_dir_all(root.join(".sqlx"))?;
    let present = checked_in_queries()?;
    for path in present.keys().filter(|path| !queries.contains_key(*path)) {
        fs::remove_file(root.join(path))?;
    }
    for (path, content) in queries {
        // What is the same stays untouched, so that cargo does not build again.
        if present.get(path) != Some(content) {
            fs::write(root.join(path), content).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// An empty folder in `target/`.
fn scratch(name: &str) -> Result<PathBuf> {
    let folder = workspace::root().join("target/generate").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Reads all files below `folder`, named relative to `base`. A folder that is missing has none.
fn read_files(folder: &Path, base: &Path, files: &mut Files) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            read_files(&path, base, files)?;
        } else {
            files.insert(path.strip_prefix(base)?.to_path_buf(), fs::read(&path)?);
        }
    }
    Ok(())
}

/// One line for each file that is not as expected.
fn differences(expected: &Files, present: &Files) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, content) in expected {
        match present.get(path) {
            None => lines.push(format!("{} is missing", path.display())),
            Some(other) if other != content => lines.push(format!("{} differs", path.display())),
            Some(_) => {}
        }
    }
    for path in present.keys().filter(|path| !expected.contains_key(*path)) {
        lines.push(format!("{} is not used any more", path.display()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(of: &[(&str, &str)]) -> Files {
        of.iter()
            .map(|(path, content)| (PathBuf::from(path), content.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn each_stale_file_is_named_with_what_is_wrong() {
        let expected = files(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let present = files(&[("a", "1"), ("b", "other"), ("d", "4")]);
        assert_eq!(differences(&expected, &expected), Vec::<String>::new());
        assert_eq!(
            differences(&expected, &present),
            ["b differs", "c is missing", "d is not used any more"]
        );
    }
}
