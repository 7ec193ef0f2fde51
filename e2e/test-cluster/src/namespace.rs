//! A place of its own for each test.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace as Object, ServiceAccount};
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Resource};
use rand::distr::{Alphanumeric, SampleString as _};
use tokio::time::timeout;

/// How long the controllers may take, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);
/// A name has room for this, and for what tells it from others.
const LONGEST_HINT: usize = 50;

/// A namespace that no other test uses. It stays when it is dropped, and goes with its cluster.
#[derive(Clone)]
pub struct Namespace {
    name: String,
    client: Client,
}

impl Namespace {
    /// Made with `hint` in its name: lower case letters, digits and hyphens.
    pub(crate) async fn new(client: Client, hint: &str) -> Result<Self> {
        let hint: String = hint.chars().take(LONGEST_HINT).collect();
        let suffix = Alphanumeric.sample_string(&mut rand::rng(), 6).to_lowercase();
        let namespace = Self {
            name: format!("{hint}-{suffix}"),
            client,
        };
        let object = Object {
            metadata: ObjectMeta {
                name: Some(namespace.name.clone()),
                ..ObjectMeta::default()
            },
            ..Object::default()
        };
        Api::all(namespace.client.clone())
            .create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("cannot make the namespace {}", namespace.name))?;
        // Pods are refused before it is there.
        let there = |account: Option<&ServiceAccount>| account.is_some();
        timeout(PATIENCE, await_condition(namespace.api(), "default", there))
            .await
            .context("the controller manager makes no service account")??;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The administrator's view of one kind in it.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Deletes it and all that is in it, and waits until it is gone. Finalizers hold it as on any cluster.
    pub async fn delete(&self) -> Result<()> {
        let api: Api<Object> = Api::all(self.client.clone());
        let object = api.get(&self.name).await?;
        let uid = object.metadata.uid.context("a namespace has a uid")?;
        api.delete(&self.name, &DeleteParams::default()).await?;
        timeout(PATIENCE, await_condition(api, &self.name, conditions::is_deleted(&uid)))
            .await
            .with_context(|| format!("the namespace {} does not go within {PATIENCE:?}", self.name))??;
        Ok(())
    }
}
