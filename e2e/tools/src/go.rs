//! Tools that are built from their Go modules, each pinned by a go.mod and a go.sum in a folder beside this crate's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{cache_folder, cached};
use crate::program::{find, output_of, run};

/// The first Go that gets the version which a go.mod asks for by itself.
const GO_THAT_FETCHES: (u32, u32) = (1, 21);

/// Programs of one module, built together.
pub(crate) struct GoPrograms<'a> {
    /// What is made, and how the folder in the cache is called.
    pub(crate) name: &'a str,
    /// The folder of the go.mod.
    pub(crate) module: &'a Path,
    /// The packages of the programs.
    pub(crate) packages: &'a [&'a str],
    /// Build tags, with commas between them.
    pub(crate) tags: &'a str,
    /// `-X` flags for the linker.
    pub(crate) stamp: &'a str,
}

impl GoPrograms<'_> {
    /// The folder of the programs, each under its package's name. Built when it is not there yet; `finish` is then
    /// told of the folder where they are.
    pub(crate) fn built(&self, finish: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let recipe = self.flags().join(" ");
        let pins = [self.module.join("go.mod"), self.module.join("go.sum")];
        cached(&cache_folder()?, self.name, &pins, &recipe, |draft| {
            eprintln!("{}: building it from source, once; this takes minutes", self.name);
            let mut build = go(self.name, self.module)?;
            build
                .args(["build", "-v"])
                .args(self.flags())
                .arg("-o")
                .arg(draft)
                .args(self.packages)
                // Linked without a C library, so that it runs in any image; and without a C compiler.
                .env("CGO_ENABLED", "0");
            run(self.name, "packages", &mut build)?;
            finish(draft)
        })
    }

    fn flags(&self) -> Vec<String> {
        let mut flags = vec!["-mod=readonly".to_owned(), "-trimpath".to_owned()];
        if !self.tags.is_empty() {
            flags.extend(["-tags".to_owned(), self.tags.to_owned()]);
        }
        flags.extend(["-ldflags".to_owned(), format!("-s -w {}", self.stamp).trim().to_owned()]);
        flags
    }
}

/// The folder that holds the source of a module which `module` requires. Got when it is not there yet.
pub(crate) fn source(name: &str, module: &Path, path: &str) -> Result<PathBuf> {
    output_of(go(name, module)?.args(["mod", "download", path]))?;
    let folder = output_of(go(name, module)?.args(["list", "-m", "-f", "{{.Dir}}", path]))?;
    Ok(PathBuf::from(folder.trim()))
}

/// The command `go`, to be run in the folder of a go.mod: new enough, or one that gets one that is.
pub(crate) fn go(name: &str, module: &Path) -> Result<Command> {
    let needed = fs::read_to_string(module.join("go.mod"))?;
    let needed = needed
        .lines()
        .find_map(|line| line.strip_prefix("go "))
        .with_context(|| format!("tools/{name}/go.mod names no Go"))?
        .trim()
        .to_owned();
    let advice = format!(
        "install Go {needed} or newer from your system or from its makers (Debian 12's own is too old), or name built \
         programs by the variables in e2e/tools/src/lib.rs"
    );
    let Some(program) = find("go").or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|go| go.is_file()))
    else {
        bail!("{name} is built with Go, which is not here: {advice}");
    };
    let version = output_of(
        Command::new(&program)
            .args(["env", "GOVERSION"])
            .env("GOTOOLCHAIN", "local"),
    )?;
    let numbers = version.trim().trim_start_matches("go");
    match two_numbers(numbers) {
        Some(found) if found >= GO_THAT_FETCHES => {
            let mut command = Command::new(program);
            command.current_dir(module).env("GOTOOLCHAIN", "auto");
            Ok(command)
        }
        _ => bail!("{name} needs a newer Go than {version:?}: {advice}"),
    }
}

/// The version of a module that a go.mod requires, without its `v`.
pub(crate) fn required_version(module: &Path, path: &str) -> Result<String> {
    let go_mod = module.join("go.mod");
    requirement(&fs::read_to_string(&go_mod)?, path).with_context(|| format!("{} requires no {path}", go_mod.display()))
}

fn requirement(go_mod: &str, module: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        let version = (words.next()? == module).then(|| words.next())??;
        Some(version.trim_start_matches('v').to_owned())
    })
}

fn two_numbers(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(|number| {
        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    });
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pinned;

    #[test]
    fn versions_are_read_as_go_writes_them() {
        assert_eq!(two_numbers("1.26.8"), Some((1, 26)));
        assert_eq!(two_numbers("1.19rc1"), Some((1, 19)));
        assert_eq!(two_numbers(""), None);
    }

    #[test]
    fn the_pinned_versions_are_those_in_the_go_mods() -> Result<()> {
        let dapr = required_version(&pinned("dapr"), "github.com/dapr/dapr")?;
        assert!(two_numbers(&dapr).is_some_and(|version| version >= (1, 16)), "{dapr}");
        let kubernetes = required_version(&pinned("kubernetes"), "k8s.io/kubernetes")?;
        assert!(
            two_numbers(&kubernetes).is_some_and(|version| version >= (1, 34)),
            "{kubernetes}"
        );
        assert_eq!(
            requirement("require example.com/a v1.2.3", "example.com/a").as_deref(),
            Some("1.2.3")
        );
        assert_eq!(requirement("\texample.com/ab v1.2.3", "example.com/a"), None);
        Ok(())
    }
}
