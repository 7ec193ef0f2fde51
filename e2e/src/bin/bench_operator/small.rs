//! An operator that has one platform and nothing to do, and what other people's Secrets add to its memory.

use anyhow::Result;
use kube::api::{Api, DynamicObject, PostParams};
use serde_json::json;

use crate::ground::{Ground, Told, api, at_once, platforms};
use crate::watch::{Watch, is_settled};
use crate::{figure, number};

const SECRETS: usize = 5_000;
/// The size of a foreign Secret's data: a certificate with its key.
const SECRET_BYTES: usize = 4_096;

pub(crate) async fn measure() -> Result<()> {
    let (ground, namespaces) = Ground::new(&["one", "foreign"]).await?;
    let (own, foreign) = (namespaces[0].name(), namespaces[1].name());
    ground.database(own).await?;
    let mut homes = Watch::start(platforms(&ground.client, own));
    let mut operator = ground.operator(Told::default()).await?;
    ground.platform(own, "home").await?;
    operator.during(homes.until(is_settled)).await?;
    let made = operator.memory_at_rest().await?;
    operator.stop().await?;

    let operator = ground.operator(Told::default()).await?;
    let found = operator.memory_at_rest().await?;
    figure("idle_mib", made.now.max(found.now));
    figure("idle_heap_mib", made.heap.max(found.heap));
    figure("idle_peak_mib", made.peak.max(found.peak));

    eprintln!("{SECRETS} Secrets of other people");
    let secrets = api(&ground.client, foreign, "v1", "Secret");
    at_once(SECRETS, move |number| secret(secrets.clone(), number)).await?;
    let come = operator.memory_at_rest().await?;
    operator.stop().await?;
    let operator = ground.operator(Told::default()).await?;
    let there = operator.memory_at_rest().await?;
    operator.stop().await?;
    figure("foreign_secrets", number(SECRETS));
    figure("foreign_secrets_come_mib", come.now - found.now);
    figure("foreign_secrets_there_mib", there.now - found.now);
    figure("foreign_secrets_peak_mib", there.peak - found.peak);
    Ok(())
}

async fn secret(secrets: Api<DynamicObject>, number: usize) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": format!("secret-{number}")},
        "stringData": {"tls.crt": "x".repeat(SECRET_BYTES)},
    });
    secrets
        .create(&PostParams::default(), &serde_json::from_value(secret)?)
        .await?;
    Ok(())
}
