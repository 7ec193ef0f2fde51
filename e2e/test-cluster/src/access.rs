//! Who speaks to the cluster, and how: clients, and the kubeconfig files for programs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;

use crate::certificates::{Authority, Identity};
use crate::control_plane::write_private;

/// How long a token of a service account holds: longer than any test.
const TOKEN_SECONDS: i64 = 6 * 3600;

/// The way to the API server.
#[derive(Clone)]
pub(crate) struct Access {
    url: String,
    authority_pem: String,
    admin: Identity,
    admin_file: PathBuf,
}

impl Access {
    /// Writes a kubeconfig for the administrator into `folder`.
    pub(crate) fn new(url: String, authority: &Authority, folder: &Path) -> Result<Self> {
        let admin = authority.user("test-administrator", Some("system:masters"))?;
        let access = Self {
            url,
            authority_pem: authority.pem().to_owned(),
            admin,
            admin_file: folder.join("admin.kubeconfig"),
        };
        write_private(&access.admin_file, &access.with_certificate(&access.admin)?)?;
        Ok(access)
    }

    pub(crate) fn admin_file(&self) -> &Path {
        &self.admin_file
    }

    /// The text of a kubeconfig, as JSON, which every reader of YAML takes.
    pub(crate) fn with_certificate(&self, identity: &Identity) -> Result<String> {
        self.kubeconfig(&json!({
            "client-certificate-data": BASE64_STANDARD.encode(&identity.certificate),
            "client-key-data": BASE64_STANDARD.encode(&identity.key),
        }))
    }

    /// The same for the holder of a token.
    pub(crate) fn with_token(&self, token: &str) -> Result<String> {
        self.kubeconfig(&json!({ "token": token }))
    }

    fn kubeconfig(&self, user: &serde_json::Value) -> Result<String> {
        let file = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": {
                "server": self.url,
                "certificate-authority-data": BASE64_STANDARD.encode(&self.authority_pem),
            } }],
            "users": [{ "name": "test", "user": user }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "current-context": "test",
        });
        Ok(serde_json::to_string_pretty(&file)?)
    }

    /// The administrator's settings for a client, to be changed as a test likes.
    pub(crate) async fn admin_config(&self) -> Result<Config> {
        config(&self.with_certificate(&self.admin)?).await
    }

    pub(crate) async fn config_with_token(&self, token: &str) -> Result<Config> {
        config(&self.with_token(token)?).await
    }
}

/// A token of a service account, as a pod of it would have.
pub(crate) async fn token(client: Client, namespace: &str, name: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request(name, &PostParams::default(), &request)
        .await
        .with_context(|| format!("no token for the service account {namespace}/{name}"))?;
    let token = answer.status.and_then(|status| status.token);
    token.context("the answer to a token request has no token")
}

async fn config(kubeconfig: &str) -> Result<Config> {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig)?;
    Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}
