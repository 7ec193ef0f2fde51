//! What callers of the API show: users their tokens, the platform's own parts the internal key.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use todo_api::AuthConfig;
use todo_dapr::Secret;
use tokio_util::sync::CancellationToken;

use crate::failure::Refused;
use crate::secrets::{SecretRef, Source};
use crate::sidecar::SidecarArgs;

/// Who may call.
#[derive(Args, Debug)]
pub(crate) struct AuthArgs {
    /// The secret of HS256 tokens, at least 32 bytes
    #[arg(long, env = "TODO_TOKEN_SECRET", value_name = "SECRET", hide_env_values = true)]
    token_secret: Option<String>,

    /// A file that the secret is in. Of one that changes there, tokens are taken at once, and for an hour those of the
    /// former
    #[arg(long, env = "TODO_TOKEN_SECRET_FILE", value_name = "FILE", hide_env_values = true)]
    token_secret_file: Option<PathBuf>,

    /// Where a Dapr secret store has the secret; one that changes is taken like that of a file
    #[arg(
        long,
        env = "TODO_TOKEN_SECRET_REF",
        value_name = "STORE/NAME/KEY",
        hide_env_values = true
    )]
    token_secret_ref: Option<SecretRef>,

    /// The OpenID Connect issuer of tokens, instead of a secret
    #[arg(long, env = "TODO_OIDC_ISSUER", value_name = "URL")]
    oidc_issuer: Option<String>,

    /// What the tokens' audience must contain
    #[arg(long, env = "TODO_OIDC_AUDIENCE", value_name = "NAME")]
    oidc_audience: Option<String>,
}

/// Who makes the tokens, by settings that are there.
pub(crate) enum Authority {
    Secret(Source),
    Issuer { issuer: String, audience: String },
}

/// Who makes the tokens, with the secret as it is now.
pub(crate) struct KnownAuthority {
    /// The setting that names it.
    pub(crate) setting: &'static str,
    /// For the API.
    pub(crate) config: AuthConfig,
    /// Where the secret comes from and which it is; `None` when an issuer makes tokens.
    pub(crate) secret: Option<(Source, Secret)>,
}

impl AuthArgs {
    /// Who makes the tokens: a secret or an issuer, and one of the two.
    pub(crate) fn authority(&self, sidecar: &SidecarArgs) -> Result<Authority> {
        let source = Source::one_of(
            "TODO_TOKEN_SECRET",
            self.token_secret.as_deref(),
            self.token_secret_file.as_deref(),
            self.token_secret_ref.as_ref(),
            || sidecar.client(),
        )?;
        match (source, &self.oidc_issuer, &self.oidc_audience) {
            (Some(source), None, None) => Ok(Authority::Secret(source)),
            (None, Some(issuer), Some(audience)) => Ok(Authority::Issuer {
                issuer: issuer.clone(),
                audience: audience.clone(),
            }),
            (Some(_), ..) => Err(Refused::because(
                "TODO_TOKEN_SECRET and TODO_OIDC_ISSUER are both given: keep the one that makes the tokens",
            )),
            (None, None, None) => Err(Refused::because(
                "TODO_TOKEN_SECRET is not set: give --token-secret (or TODO_TOKEN_SECRET_FILE or \
                 TODO_TOKEN_SECRET_REF), or --oidc-issuer and --oidc-audience",
            )),
            (None, Some(_), None) => Err(Refused::because(
                "TODO_OIDC_AUDIENCE is not set: TODO_OIDC_ISSUER needs --oidc-audience",
            )),
            (None, None, Some(_)) => Err(Refused::because(
                "TODO_OIDC_ISSUER is not set: TODO_OIDC_AUDIENCE needs --oidc-issuer",
            )),
        }
    }
}

impl Authority {
    /// With its secret as it is now, as [`Source::first`].
    pub(crate) async fn first(
        self,
        shutdown: &CancellationToken,
        waiting: impl Fn(&str),
    ) -> Result<Option<KnownAuthority>> {
        let source = match self {
            Self::Issuer { issuer, audience } => {
                return Ok(Some(KnownAuthority {
                    setting: "TODO_OIDC_ISSUER",
                    config: AuthConfig::Oidc { issuer, audience },
                    secret: None,
                }));
            }
            Self::Secret(source) => source,
        };
        let Some(secret) = source.first(shutdown, waiting).await? else {
            return Ok(None);
        };
        Ok(Some(KnownAuthority {
            setting: "TODO_TOKEN_SECRET",
            config: AuthConfig::Hs256 {
                secret: secret.expose().as_bytes().to_vec(),
            },
            secret: Some((source, secret)),
        }))
    }
}

/// The key of the platform's own parts, for the routes that are theirs.
#[derive(Args, Debug)]
pub(crate) struct InternalKeyArgs {
    /// The key that opens the internal routes, at least 32 bytes; without one there are none
    #[arg(
        long = "internal-key",
        env = "TODO_INTERNAL_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    given: Option<String>,

    /// A file that the internal key is in. One that changes there is taken at once, and the former for an hour
    #[arg(
        long = "internal-key-file",
        env = "TODO_INTERNAL_KEY_FILE",
        value_name = "FILE",
        hide_env_values = true
    )]
    file: Option<PathBuf>,

    /// Where a Dapr secret store has the internal key; one that changes is taken like that of a file
    #[arg(
        long = "internal-key-ref",
        env = "TODO_INTERNAL_KEY_REF",
        value_name = "STORE/NAME/KEY",
        hide_env_values = true
    )]
    reference: Option<SecretRef>,
}

impl InternalKeyArgs {
    /// Where the key comes from; `None` when there is none.
    pub(crate) fn source(&self, sidecar: &SidecarArgs) -> Result<Option<Source>> {
        Source::one_of(
            "TODO_INTERNAL_KEY",
            self.given.as_deref(),
            self.file.as_deref(),
            self.reference.as_ref(),
            || sidecar.client(),
        )
    }
}
