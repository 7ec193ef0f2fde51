//! Settings by one file: the names of the environment, one `NAME=value` a line.
//!
//! What is given on the command line comes before the environment, that before the file, and that before the defaults.
//! The file's values become clap's defaults for this run, so each is read by the same parser and refused by the same
//! words, wherever it came from. One file may serve every role: a name that this command does not have but another
//! does is left alone, and one that none has is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Args, Command, CommandFactory, FromArgMatches};

use crate::failure::Refused;

/// The largest settings file, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// The variable that names the file; not a name in it.
const FILE_VARIABLE: &str = "TODO_SETTINGS";

/// The settings file. Read before anything else is, see [`parse`].
#[derive(Args, Debug)]
pub(crate) struct SettingsArgs {
    /// A file of settings, one NAME=value a line, with the names of the environment; flags and the environment come
    /// before it
    #[arg(id = "settings", long = "settings", env = FILE_VARIABLE, value_name = "FILE")]
    _settings: Option<PathBuf>,
}

/// Reads the command line with the settings file that it, or the environment, names. Ends the process for `--help` and
/// for what clap refuses in its own words.
pub(crate) fn parse<C: CommandFactory + FromArgMatches>() -> Result<C> {
    let args: Vec<OsString> = std::env::args_os().collect();
    match parse_from(C::command(), &args) {
        Ok(matches) => C::from_arg_matches(&matches).map_err(|error| error.exit()),
        Err(Failure::Refused(refused)) => Err(refused.into()),
        Err(Failure::Clap(error)) => error.exit(),
    }
}

enum Failure {
    Refused(Refused),
    Clap(clap::Error),
}

fn parse_from(command: Command, args: &[OsString]) -> Result<ArgMatches, Failure> {
    let file = match named_file(&command, args) {
        Some(path) => File::read(&path, &names(&command)).map_err(Failure::Refused)?,
        None => File::default(),
    };
    let mut command = with_defaults(command, &file);
    command
        .try_get_matches_from_mut(args)
        .map_err(|error| in_our_words(error, meant(&command, args), &file))
}

/// The file that the command line or the environment names. Whatever else is wrong is found later.
fn named_file(command: &Command, args: &[OsString]) -> Option<PathBuf> {
    let matches = command.clone().ignore_errors(true).try_get_matches_from(args).ok()?;
    let mut matches = &matches;
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    matches.try_get_one::<PathBuf>("settings").ok().flatten().cloned()
}

/// The names of all settings, of every command.
fn names(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(name);
    let below = command.get_subcommands().flat_map(names);
    own.chain(below).filter(|name| name != FILE_VARIABLE).collect()
}

fn name(arg: &Arg) -> Option<String> {
    arg.get_env().and_then(|name| name.to_str()).map(str::to_owned)
}

fn with_defaults(command: Command, file: &File) -> Command {
    command
        .mut_args(|arg| match name(&arg).and_then(|name| file.settings.get(&name)) {
            Some(setting) => {
                let is_secret = arg.is_hide_env_values_set();
                arg.default_value(setting.value.clone()).hide_default_value(is_secret)
            }
            None => arg,
        })
        .mut_subcommands(|subcommand| with_defaults(subcommand, file))
}

/// A wrong value by its setting's name, and without the value where it is a secret.
fn in_our_words(error: clap::Error, command: &Command, file: &File) -> Failure {
    if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        return Failure::Clap(error);
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (Some(shown), Some(value)) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue)) else {
        return Failure::Clap(error);
    };
    // `--listen <ADDR>`
    let flag = shown.split_whitespace().next().unwrap_or(shown);
    let mut args = command.get_arguments();
    let Some(arg) = args.find(|arg| arg.get_long() == Some(flag.trim_start_matches("--"))) else {
        return Failure::Clap(error);
    };
    let Some(name) = name(arg) else {
        return Failure::Clap(error);
    };
    let place = match file.settings.get(&name) {
        Some(setting) if setting.value == value => format!("{}:{}: ", file.path.display(), setting.line),
        _ => String::new(),
    };
    let reason = match (std::error::Error::source(&error), error.get(ContextKind::ValidValue)) {
        (_, Some(ContextValue::Strings(valid))) => format!("write one of {}", valid.join(", ")),
        (Some(reason), _) => reason.to_string(),
        (None, _) => "it cannot be read".to_owned(),
    };
    let value = if arg.is_hide_env_values_set() {
        "the value".to_owned()
    } else {
        format!("{value:?}")
    };
    Failure::Refused(Refused(vec![format!(
        "{place}{name} ({flag}): {value} is not valid: {reason}"
    )]))
}

/// The command that is meant, as far as its name goes.
fn meant<'a>(command: &'a Command, args: &[OsString]) -> &'a Command {
    args.iter().skip(1).fold(command, |command, arg| {
        let subcommand = arg.to_str().and_then(|arg| command.find_subcommand(arg));
        subcommand.unwrap_or(command)
    })
}

/// What a settings file says.
#[derive(Debug, Default)]
struct File {
    path: PathBuf,
    settings: BTreeMap<String, Setting>,
}

#[derive(Debug)]
struct Setting {
    value: String,
    line: usize,
}

impl File {
    fn read(path: &Path, known: &BTreeSet<String>) -> Result<Self, Refused> {
        let text = read_bounded(path).map_err(|error| Refused(vec![format!("{}: {error}", path.display())]))?;
        Self::parse(path, &text, known)
    }

    /// Every mistake is a line of its own. None shows a value: it may be a secret.
    fn parse(path: &Path, text: &str, known: &BTreeSet<String>) -> Result<Self, Refused> {
        let mut settings = BTreeMap::new();
        let mut mistakes = vec![];
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let mut refuse = |mistake: String| mistakes.push(format!("{}:{line}: {mistake}", path.display()));
            let Some((name, value)) = text.split_once('=').map(|(name, value)| (name.trim(), value.trim())) else {
                refuse("is not NAME=value; a comment begins with #".to_owned());
                continue;
            };
            if name.is_empty()
                || !name
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
            {
                refuse("does not begin with the name of a setting, in capitals, and =".to_owned());
            } else if !known.contains(name) {
                let names: Vec<&str> = known.iter().map(String::as_str).collect();
                let hint = match todo_crds::nearest(name, &names) {
                    Some(near) => format!("; did you mean {near}?"),
                    None => String::new(),
                };
                refuse(format!("unknown setting {name}{hint}"));
            } else if value.len() > 1
                && ['"', '\'']
                    .iter()
                    .any(|&quote| value.starts_with(quote) && value.ends_with(quote))
            {
                refuse(format!("{name} is in quotes; write its value as it is"));
            } else if settings.contains_key(name) {
                refuse(format!("{name} is set twice"));
            } else if !value.is_empty() {
                let value = value.to_owned();
                settings.insert(name.to_owned(), Setting { value, line });
            }
        }
        if mistakes.is_empty() {
            Ok(Self {
                path: path.to_owned(),
                settings,
            })
        } else {
            Err(Refused(mistakes))
        }
    }
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("is longer than {MAX_BYTES} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<File, Vec<String>> {
        let known = ["TODO_LISTEN", "TODO_BUS", "DATABASE_URL"].map(str::to_owned).into();
        File::parse(Path::new("todo.env"), text, &known).map_err(|refused| refused.0)
    }

    #[test]
    fn a_file_has_comments_and_values_as_they_are() {
        let file =
            parsed("# ours\n\nTODO_LISTEN = 127.0.0.1:0\nDATABASE_URL=postgres://a:b=c@h/d#e\nTODO_BUS=\n").unwrap();
        let value = |name: &str| {
            file.settings
                .get(name)
                .map(|setting| (setting.value.as_str(), setting.line))
        };
        assert_eq!(value("TODO_LISTEN"), Some(("127.0.0.1:0", 3)));
        assert_eq!(value("DATABASE_URL"), Some(("postgres://a:b=c@h/d#e", 4)));
        assert_eq!(value("TODO_BUS"), None, "an empty one is not set");
    }

    #[test]
    fn every_mistake_is_told_with_its_line_and_no_value_is_shown() {
        let mistakes = parsed(
            "TODO_LISTN=hunter2\nhunter2\nexport TODO_BUS=hunter2\nTODO_BUS='hunter2'\nTODO_LISTEN=1\nTODO_LISTEN=hunter2\n",
        )
        .unwrap_err();
        let expected = [
            "todo.env:1: unknown setting TODO_LISTN; did you mean TODO_LISTEN?",
            "todo.env:2: is not NAME=value; a comment begins with #",
            "todo.env:3: does not begin with the name of a setting, in capitals, and =",
            "todo.env:4: TODO_BUS is in quotes; write its value as it is",
            "todo.env:6: TODO_LISTEN is set twice",
        ];
        assert_eq!(mistakes, expected);
    }
}
