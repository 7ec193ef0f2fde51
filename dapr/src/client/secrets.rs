//! Secret stores.

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};

use super::{Call, Client};
use crate::{Error, Secret};

impl Client {
    /// The values under this name, or `None` when the store has none.
    pub async fn secret(&self, store: &str, name: &str) -> Result<Option<BTreeMap<String, Secret>>, Error> {
        let call = Call::new("secret", Method::GET, &["v1.0", "secrets", store, name]).idempotent(true);
        let answer = self.done(&call).await?;
        if answer.status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        answer.json().map(Some)
    }
}
