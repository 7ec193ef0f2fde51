//! CRDs, from files to types that the API server serves.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, PostParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

/// Makes every CRD in a folder of YAML files, and waits until all of them are served.
pub(crate) async fn install(client: &Client, folder: &Path) -> Result<()> {
    let mut crds = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            crds.push(read(&path)?);
        }
    }
    try_join_all(crds.into_iter().map(|crd| create(client, crd))).await?;
    Ok(())
}

fn read(path: &Path) -> Result<DynamicObject> {
    let wrong = || format!("{} is no CRD", path.display());
    let mut crd: Value = serde_saphyr::from_str(&fs::read_to_string(path)?).with_context(wrong)?;
    // Dapr's subscriptions are converted by a webhook of its operator, which does not run here; only the version that
    // is stored works without it.
    if let Some(spec) = crd.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("conversion");
    }
    serde_json::from_value(crd).with_context(wrong)
}

async fn create(client: &Client, crd: DynamicObject) -> Result<()> {
    let name = crd.name_any();
    // The type that the client knows would lose what it does not know.
    let kind = kube::api::ApiResource::erase::<CustomResourceDefinition>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    match api.create(&PostParams::default(), &crd).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => bail!("the API server refuses the CRD {name}: {error}"),
    }
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    await_condition(api, &name, is_crd_established()).await?;
    Ok(())
}
