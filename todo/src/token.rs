//! `todo token`: a token to call the API with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use todo_recurrence::span::Span;
use todo_tasks::UserId;

use crate::failure::Refused;
use crate::settings::SettingsArgs;
use crate::{postgres, secret, secrets};

/// Print a token with which a user may call the API
#[derive(Args, Debug)]
pub(crate) struct TokenCommand {
    #[command(flatten)]
    _settings: SettingsArgs,

    /// The user: the token's subject
    #[arg(long, value_name = "NAME")]
    user: String,

    /// How long it is valid, such as 12h or 30d
    #[arg(long, value_name = "DURATION", default_value = "12h")]
    ttl: Span,

    /// The secret that the API checks tokens with, at least 32 bytes [default: that of the platform in --data-dir]
    #[arg(long, env = "TODO_TOKEN_SECRET", hide_env_values = true)]
    secret: Option<String>,

    /// A file that the secret is in
    #[arg(
        long,
        env = "TODO_TOKEN_SECRET_FILE",
        value_name = "FILE",
        hide_env_values = true,
        conflicts_with = "secret"
    )]
    secret_file: Option<PathBuf>,

    /// The data folder of `todo up` [default: that of the platform `home`]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Prints the token.
pub(crate) fn run(command: &TokenCommand) -> Result<()> {
    let user = UserId::parse(command.user.as_str()).map_err(|invalid| Refused::because(format_args!("--{invalid}")))?;
    let secret = match (&command.secret, &command.secret_file, &command.data_dir) {
        (Some(secret), ..) => secret.clone().into_bytes(),
        (None, Some(file), _) => secrets::read_now(file)
            .map_err(|error| Refused::because(format_args!("TODO_TOKEN_SECRET_FILE: {error}")))?
            .expose()
            .as_bytes()
            .to_vec(),
        (None, None, Some(data_dir)) => kept(data_dir)?,
        (None, None, None) => kept(&postgres::default_data_dir("home")?)?,
    };
    let ttl = Duration::from_secs(command.ttl.seconds());
    println!(
        "{}",
        todo_api::token::sign(&secret, &user, ttl).map_err(Refused::because)?
    );
    Ok(())
}

/// The secret of the platform in `data_dir`.
fn kept(data_dir: &Path) -> Result<Vec<u8>> {
    secret::load(data_dir)?.with_context(|| {
        format!(
            "no platform has run in {}; start `todo up`, or name its --data-dir",
            data_dir.display()
        )
    })
}
