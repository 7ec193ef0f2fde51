//! Secret stores.

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};

use super::{Call, Client};
use crate::{Error, Refusal, Secret};

impl Client {
    /// The values under this name, or `None` when the store has none.
    pub async fn secret(&self, store: &str, name: &str) -> Result<Option<BTreeMap<String, Secret>>, Error> {
        let mut call = Call::new("secret", Method::GET, &["v1.0", "secrets", store, name]).idempotent(true);
        call.is_final = is_missing;
        let answer = self.send(&call).await?;
        if answer.status == StatusCode::NO_CONTENT || is_missing(&answer.refusal()) {
            return Ok(None);
        }
        answer.success()?.json().map(Some)
    }
}

/// Stores say so with a 500, and why only in the text.
fn is_missing(refusal: &Refusal) -> bool {
    refusal.code.as_deref() == Some("ERR_SECRET_GET") && refusal.message.contains("not found")
}
