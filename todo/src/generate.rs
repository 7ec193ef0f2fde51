//! Generated files that are checked in: `todo generate` writes them, and a test of each crate fails when one is stale.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

/// Write the CRDs, the events' JSON schemas and the OpenAPI document into a checkout
#[derive(Args, Debug)]
pub(crate) struct GenerateCommand {
    /// The checkout's root
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,
}

/// Writes what has changed, and says what.
pub(crate) fn run(command: &GenerateCommand) -> Result<()> {
    for (path, text) in files() {
        let path = command.root.join(path);
        if fs::read_to_string(&path).is_ok_and(|there| there == text) {
            continue;
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

/// Every generated file: its path relative to the root, and its text.
fn files() -> Vec<(String, String)> {
    let under = |folder: &'static str, files: Vec<(String, String)>| {
        files
            .into_iter()
            .map(move |(name, text)| (format!("{folder}/{name}"), text))
    };
    under("config/crd", todo_crds::crd_yaml())
        .chain(under("events/schemas", todo_events::schemas()))
        .chain([("api/openapi.json".to_owned(), todo_api::openapi_json())])
        .collect()
}
