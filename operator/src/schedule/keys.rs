//! The key of a platform's internal API, as it is kept in the platform's Secret.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::internal_api::Keys;
use crate::child::{ChildKey, Kind};
use crate::live::Live;
use crate::names::Names;

/// The key, and the one before it; `None` while there is none.
pub(super) fn keys(live: &Live, platform: &Names) -> Option<Keys> {
    let secret = live.get(&ChildKey {
        kind: Kind::Secret,
        namespace: platform.namespace.clone(),
        name: platform.internal_key(),
    })?;
    let secret = secret.value();
    Some(Keys {
        key: value(&secret, "key")?,
        previous: value(&secret, "previous"),
    })
}

fn value(secret: &Value, key: &str) -> Option<String> {
    let encoded = secret.pointer("/data")?.get(key)?.as_str()?;
    let text = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    Some(text).filter(|text| !text.is_empty())
}
