//! A state store of the Dapr sidecar as the one where conversations are kept.

use std::time::Duration;

use serde_json::Value;
use todo_dapr::client::{self, StateItem};
use todo_dapr::{Client, Error};
use todo_events::BoxFuture;
use todo_tasks::conversation::Conversations;
use todo_tasks::state::{Condition, Etag, StateError, StateStore, Stored};
use tokio_util::sync::CancellationToken;

/// How often it is looked for what waits in the database for a store that was away.
const MERGE_EVERY: Duration = Duration::from_secs(15);

/// A store that is a component of the sidecar.
#[derive(Debug)]
pub(crate) struct DaprState {
    client: Client,
    component: String,
}

impl DaprState {
    /// How long a call may take: requests wait for it, and the database can stand in.
    const PATIENCE: Duration = Duration::from_secs(2);

    /// The component of this name. Each call is made once: who makes it goes on without the store.
    pub(crate) fn new(settings: todo_dapr::Settings, component: &str) -> Result<Self, Error> {
        let settings = todo_dapr::Settings {
            timeout: Self::PATIENCE,
            attempts: 1,
            ..settings
        };
        Ok(Self {
            client: Client::new(settings)?,
            component: component.to_owned(),
        })
    }
}

impl StateStore for DaprState {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StateError>> {
        Box::pin(async move {
            let Some(stored) = self.client.state(&self.component, key).await.map_err(failed)? else {
                return Ok(None);
            };
            let client::Etag(etag) = stored
                .etag
                .ok_or_else(|| StateError::Refused("it keeps no versions; choose a component that has etags".into()))?;
            Ok(Some(Stored {
                value: stored.value,
                etag: Etag(etag),
            }))
        })
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Value,
        condition: Condition,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), StateError>> {
        Box::pin(async move {
            let item = StateItem {
                key: key.to_owned(),
                value,
                condition: match condition {
                    Condition::Always => client::Condition::Always,
                    Condition::Absent => client::Condition::Absent,
                    Condition::Matches(Etag(etag)) => client::Condition::Matches(client::Etag(etag)),
                },
                ttl,
            };
            self.client.save_state(&self.component, &[item]).await.map_err(failed)
        })
    }

    fn delete<'a>(&'a self, key: &'a str, etag: Option<&'a Etag>) -> BoxFuture<'a, Result<(), StateError>> {
        Box::pin(async move {
            let etag = etag.map(|Etag(etag)| client::Etag(etag.clone()));
            self.client
                .delete_state(&self.component, key, etag.as_ref())
                .await
                .map_err(failed)
        })
    }
}

/// A sidecar that has no such component, or does not let us in, is as good as away: it refuses all calls and not
/// this one.
fn failed(error: Error) -> StateError {
    let refuses_all = error.refusal().is_some_and(|refusal| {
        matches!(refusal.status.as_u16(), 401 | 403 | 404)
            || refusal.code.as_deref().is_some_and(|code| code.contains("STORE_NOT_"))
    });
    match error {
        Error::EtagMismatch(_) => StateError::Mismatch,
        error if refuses_all || error.is_retryable() => StateError::Unavailable(error.into()),
        error => StateError::Refused(error.into()),
    }
}

/// Merges what waits for the store, again and again until `shutdown`.
pub(crate) async fn keep_merging(conversations: Conversations, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        match conversations.merge_waiting().await {
            Ok(0) => {}
            Ok(merged) => tracing::info!(conversations = merged, "merged what waited for the state store"),
            Err(error) => tracing::warn!(%error, "could not merge what waits for the state store"),
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(MERGE_EVERY) => {}
        }
    }
}
