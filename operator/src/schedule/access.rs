//! How a platform's internal API is come at just now: the key in the platform's Secret, and whether a sidecar stands
//! before its API. Both are the platform's children.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::internal_api::Access;
use crate::child::{ChildKey, Kind};
use crate::live::Live;
use crate::names::{Component, Names};

/// The way in; `None` while there is no key.
pub(super) fn access(live: &Live, platform: &Names) -> Option<Access> {
    let child = |kind, name| {
        live.get(&ChildKey {
            kind,
            namespace: platform.namespace.clone(),
            name,
        })
    };
    let secret = child(Kind::Secret, platform.internal_key())?.value();
    let deployment = child(Kind::Deployment, platform.component(Component::Api));
    Some(Access {
        key: value(&secret, "key")?,
        previous: value(&secret, "previous"),
        has_sidecar: deployment.is_some_and(|deployment| has_sidecar(&deployment.value())),
    })
}

fn has_sidecar(deployment: &Value) -> bool {
    let enabled = deployment.pointer("/spec/template/metadata/annotations/dapr.io~1enabled");
    enabled.is_some_and(|enabled| enabled == "true")
}

fn value(secret: &Value, key: &str) -> Option<String> {
    let encoded = secret.pointer("/data")?.get(key)?.as_str()?;
    let text = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    Some(text).filter(|text| !text.is_empty())
}
