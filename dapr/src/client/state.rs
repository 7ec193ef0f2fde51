//! State stores: values under keys, changed only if they are still what the caller has seen.

use std::time::Duration;

use reqwest::header::{ETAG, HeaderValue, IF_MATCH};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Answer, Call, Client};
use crate::{Error, Refusal};

/// The version of a stored value, as the store names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etag(pub String);

/// A stored value.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The value.
    pub value: Value,
    /// Its version; `None` from a store that keeps none.
    pub etag: Option<Etag>,
}

/// When a write is to happen.
///
/// Write a key either always with conditions or never: to Redis, what was written with [`Condition::Always`] is
/// not there for [`Condition::Absent`], and what was written with a condition is not to be overwritten without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Whatever is there: the last write wins.
    Always,
    /// Only if nothing is there.
    Absent,
    /// Only if this is there.
    Matches(Etag),
}

/// A value to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct StateItem {
    /// The key. The sidecar keeps apps apart by their id.
    pub key: String,
    /// The value. Its numbers are floats to the sidecar: a whole one beyond 2^53 comes back as its neighbour.
    pub value: Value,
    /// When to write it.
    pub condition: Condition,
    /// How long to keep it, in whole seconds, rounded up. `None` for ever.
    pub ttl: Option<Duration>,
}

/// One part of a transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Writes a value.
    Upsert(StateItem),
    /// Deletes what is under a key.
    Delete {
        /// The key.
        key: String,
        /// The version that is to be deleted; any if `None`.
        etag: Option<Etag>,
    },
}

impl StateItem {
    fn to_json(&self) -> Value {
        let mut item = json!({"key": self.key, "value": self.value});
        match &self.condition {
            Condition::Always => {}
            Condition::Absent => item["options"] = json!({"concurrency": "first-write"}),
            Condition::Matches(Etag(etag)) => {
                item["etag"] = json!(etag);
                item["options"] = json!({"concurrency": "first-write"});
            }
        }
        if let Some(ttl) = self.ttl {
            let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
            // Zero would mean what the component takes it for.
            item["metadata"] = json!({"ttlInSeconds": seconds.max(1).to_string()});
        }
        item
    }
}

impl Operation {
    fn to_json(&self) -> Value {
        match self {
            Self::Upsert(item) => json!({"operation": "upsert", "request": item.to_json()}),
            Self::Delete { key, etag: None } => json!({"operation": "delete", "request": {"key": key}}),
            Self::Delete {
                key,
                etag: Some(Etag(etag)),
            } => json!({
                "operation": "delete",
                "request": {"key": key, "etag": etag, "options": {"concurrency": "first-write"}},
            }),
        }
    }

    fn is_conditional(&self) -> bool {
        match self {
            Self::Upsert(item) => item.condition != Condition::Always,
            Self::Delete { etag, .. } => etag.is_some(),
        }
    }
}

impl Client {
    /// What is under a key, or `None`.
    pub async fn state(&self, store: &str, key: &str) -> Result<Option<Stored>, Error> {
        let call = Call::new("state_get", Method::GET, &["v1.0", "state", store, key]).idempotent(true);
        let answer = self.done(&call).await?;
        if answer.status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let etag = match answer.headers.get(ETAG).map(HeaderValue::to_str) {
            None => None,
            Some(Ok(etag)) => Some(Etag(etag.to_owned())),
            Some(Err(_)) => return Err(Error::UnexpectedAnswer("the etag is not text".to_owned())),
        };
        Ok(Some(Stored {
            value: answer.json()?,
            etag,
        }))
    }

    /// Writes values, each for itself: after [`Error::EtagMismatch`] some may be written. For all or none see
    /// [`Client::state_transaction`].
    pub async fn save_state(&self, store: &str, items: &[StateItem]) -> Result<(), Error> {
        // A conditional write whose answer was lost would fail on its own effect.
        let idempotent = items.iter().all(|item| item.condition == Condition::Always);
        let body: Vec<Value> = items.iter().map(StateItem::to_json).collect();
        let mut call = Call::new("state_save", Method::POST, &["v1.0", "state", store])
            .idempotent(idempotent)
            .json(&body)?;
        call.is_final = is_etag_mismatch;
        written(self.send(&call).await?)
    }

    /// Deletes what is under a key, if it is this version; whatever it is without one.
    pub async fn delete_state(&self, store: &str, key: &str, etag: Option<&Etag>) -> Result<(), Error> {
        let mut call =
            Call::new("state_delete", Method::DELETE, &["v1.0", "state", store, key]).idempotent(etag.is_none());
        if let Some(Etag(etag)) = etag {
            let value = HeaderValue::from_str(etag).map_err(|_| Error::Name(etag.clone()))?;
            call.headers.insert(IF_MATCH, value);
            call.query.push(("concurrency".to_owned(), "first-write".to_owned()));
        }
        call.is_final = is_etag_mismatch;
        written(self.send(&call).await?)
    }

    /// Does all of the operations or none, where the store can roll back, as PostgreSQL does. Redis cannot: it
    /// does the others even when one has met another version than it expects ([`Error::EtagMismatch`]).
    pub async fn state_transaction(&self, store: &str, operations: &[Operation]) -> Result<(), Error> {
        let idempotent = !operations.iter().any(Operation::is_conditional);
        let body: Vec<Value> = operations.iter().map(Operation::to_json).collect();
        let mut call = Call::new(
            "state_transaction",
            Method::POST,
            &["v1.0", "state", store, "transaction"],
        )
        .idempotent(idempotent)
        .json(&json!({"operations": body}))?;
        call.is_final = is_etag_mismatch;
        written(self.send(&call).await?)
    }
}

fn written(answer: Answer) -> Result<(), Error> {
    let refusal = match answer.success() {
        Ok(_) => return Ok(()),
        Err(Error::Refused(refusal)) => refusal,
        Err(other) => return Err(other),
    };
    if is_etag_mismatch(&refusal) {
        Err(Error::EtagMismatch(refusal))
    } else {
        Err(Error::Refused(refusal))
    }
}

/// A write that expects a version says so with a status; others only in the text of a 500, each store in its own
/// words.
fn is_etag_mismatch(refusal: &Refusal) -> bool {
    let said = |words: &str| refusal.message.contains(words);
    refusal.status == StatusCode::CONFLICT
        || said("etag mismatch")
        // PostgreSQL, where something is that is to be absent.
        || said("no item was updated")
        // Redis, from the script that compares in a transaction. Without the script's name it may be a fault.
        || (said("user_script") && (said("failed to set key") || said("failed to delete")))
}
