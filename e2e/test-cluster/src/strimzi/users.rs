//! The double of the user operator: `KafkaUser` to a Secret with a password or a certificate. It sets no ACLs: there is
//! nobody to hold them against.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DynamicObject, ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt as _};
use rand::distr::{Alphanumeric, SampleString as _};
use serde_json::json;
use tokio::task::JoinHandle;

use super::{Broker, CLUSTER_LABEL, Condition, follow, is_paused, resource, say};
use crate::certificates::Authority;

const PASSWORD_LENGTH: usize = 32;

/// Looks after the `KafkaUser`s of a namespace until it is dropped.
pub struct StandInUserOperator {
    task: JoinHandle<()>,
}

impl StandInUserOperator {
    /// Begins, without a Kafka.
    pub fn start(client: Client, namespace: &str) -> Result<Self> {
        Self::begin(client, namespace, None)
    }

    /// Begins, over a real Kafka: users with a password can log in there.
    pub fn over(client: Client, namespace: &str, broker: impl Broker + 'static) -> Result<Self> {
        Self::begin(client, namespace, Some(Arc::new(broker)))
    }

    fn begin(client: Client, namespace: &str, broker: Option<Arc<dyn Broker>>) -> Result<Self> {
        let api = Api::namespaced_with(client.clone(), namespace, &resource("KafkaUser"));
        let secrets: Api<Secret> = Api::namespaced(client, namespace);
        let authority = Authority::new()?;
        let task = tokio::spawn(async move {
            let broker = broker.as_deref();
            follow(api.clone(), |user| reconcile(&api, &secrets, &authority, broker, user)).await;
        });
        Ok(Self { task })
    }
}

impl Drop for StandInUserOperator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn reconcile(
    api: &Api<DynamicObject>,
    secrets: &Api<Secret>,
    authority: &Authority,
    broker: Option<&dyn Broker>,
    user: DynamicObject,
) -> Result<()> {
    if user.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    if is_paused(&user) {
        return say(api, &user, Condition::holds("ReconciliationPaused"), json!({})).await;
    }
    let name = user.name_any();
    let username = match user.data["spec"]["authentication"]["type"].as_str() {
        Some("scram-sha-512") => {
            let password = Alphanumeric.sample_string(&mut rand::rng(), PASSWORD_LENGTH);
            let login = format!(
                "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"{name}\" \
                 password=\"{password}\";"
            );
            keep(secrets, &user, [("password", password), ("sasl.jaas.config", login)]).await?;
            if let Some(broker) = broker {
                broker.admit(&name, &password_of(secrets, &name).await?)?;
            }
            name.clone()
        }
        Some("tls") => {
            let identity = authority.user(&name, None)?;
            let data = [
                ("ca.crt", authority.pem().to_owned()),
                ("user.crt", identity.certificate),
                ("user.key", identity.key),
            ];
            keep(secrets, &user, data).await?;
            format!("CN={name}")
        }
        other => bail!("this stand-in makes no user with the authentication {other:?}"),
    };
    let there = json!({ "username": username, "secret": name });
    say(api, &user, Condition::holds("Ready"), there).await
}

/// The password that is in the user's Secret: that of an earlier pass, when there was one.
async fn password_of(secrets: &Api<Secret>, name: &str) -> Result<String> {
    let data = secrets.get(name).await?.data.unwrap_or_default();
    let password = data.get("password").context("the Secret has a password")?;
    Ok(String::from_utf8(password.0.clone())?)
}

/// Makes the user's Secret, unless it is there: a password does not change by itself.
async fn keep<const N: usize>(secrets: &Api<Secret>, user: &DynamicObject, data: [(&str, String); N]) -> Result<()> {
    let types = user.types.clone().unwrap_or_default();
    let cluster = user.labels().get(CLUSTER_LABEL).cloned().unwrap_or_default();
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(user.name_any()),
            labels: Some(BTreeMap::from([
                (CLUSTER_LABEL.to_owned(), cluster),
                ("strimzi.io/kind".to_owned(), "KafkaUser".to_owned()),
            ])),
            owner_references: Some(vec![OwnerReference {
                api_version: types.api_version,
                kind: types.kind,
                name: user.name_any(),
                uid: user.uid().unwrap_or_default(),
                controller: Some(false),
                block_owner_deletion: Some(false),
            }]),
            ..ObjectMeta::default()
        },
        string_data: Some(data.map(|(key, value)| (key.to_owned(), value)).into()),
        ..Secret::default()
    };
    match secrets.create(&PostParams::default(), &secret).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
