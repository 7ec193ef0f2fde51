//! Publishing. The client does not publish twice by itself: it does not know whether consumers can tell. An
//! event with an id of its own can be published again by the caller.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use reqwest::Method;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

use super::{Call, Client};
use crate::Error;

/// A message as it is published.
#[derive(Debug, Clone)]
pub struct Message {
    /// The media type. With `application/cloudevents+json` the sidecar keeps the envelope, and so its id;
    /// with any other it makes one, with an id that is new each time.
    pub content_type: &'static str,
    /// What is published.
    pub body: Bytes,
    /// Metadata for the component, such as `partitionKey`.
    pub metadata: BTreeMap<String, String>,
}

/// A message of a bulk. The sidecar passes it on as it is and does not look into it: an envelope, its id and its
/// trace stay what they are, and nothing is read and written once more.
#[derive(Debug, Clone)]
pub struct BulkEntry {
    /// Its name in the bulk: unique there.
    pub id: String,
    /// What is published.
    pub payload: String,
    /// As for a [`Message`].
    pub metadata: BTreeMap<&'static str, String>,
}

impl Serialize for BulkEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entry = serializer.serialize_struct("BulkEntry", 4)?;
        entry.serialize_field("entryId", &self.id)?;
        entry.serialize_field("event", &self.payload)?;
        // Of this type alone a payload is the text itself.
        entry.serialize_field("contentType", "text/plain")?;
        entry.serialize_field("metadata", &self.metadata)?;
        entry.end()
    }
}

/// A message of a bulk that was not published.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FailedEntry {
    /// [`BulkEntry::id`].
    #[serde(rename = "entryId")]
    pub id: String,
    /// Why, in the broker's words.
    #[serde(default)]
    pub error: String,
}

#[derive(Deserialize)]
struct BulkAnswer {
    #[serde(rename = "failedEntries")]
    failed: Vec<FailedEntry>,
}

impl Client {
    /// Publishes one message.
    pub async fn publish(&self, pubsub: &str, topic: &str, message: &Message) -> Result<(), Error> {
        let mut call = Call::new("publish", Method::POST, &["v1.0", "publish", pubsub, topic])
            .body(message.content_type, message.body.clone())?;
        // The query is the only way to give metadata here.
        call.query = message
            .metadata
            .iter()
            .map(|(name, value)| (format!("metadata.{name}"), value.clone()))
            .collect();
        call.timeout = Some(self.settings.publish_timeout);
        self.done(&call).await.map(drop)
    }

    /// Publishes messages in one request, and returns those that were not published: none when all went well.
    /// After an error it is not known of any of them.
    ///
    /// On the alpha path, which every version of Dapr has. On the stable one a sidecar before 1.17 would take
    /// `bulk` for the name of a component.
    pub async fn publish_bulk(
        &self,
        pubsub: &str,
        topic: &str,
        entries: &[BulkEntry],
    ) -> Result<Vec<FailedEntry>, Error> {
        let path = ["v1.0-alpha1", "publish", "bulk", pubsub, topic];
        let mut call = Call::new("publish_bulk", Method::POST, &path).json(&entries)?;
        call.query.push(("metadata.rawPayload".to_owned(), "true".to_owned()));
        call.timeout = Some(self.settings.publish_timeout);
        let answer = self.send(&call).await?;
        if answer.status.is_success() {
            return Ok(vec![]);
        }
        // A broker's faults are a 500; what is refused altogether (scopes, an unknown component) is a 4xx.
        let failed = match answer.json::<BulkAnswer>() {
            Ok(bulk) if answer.status.is_server_error() && !bulk.failed.is_empty() => bulk.failed,
            _ => return Err(Error::Refused(answer.refusal())),
        };
        let known: HashSet<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        match failed.iter().find(|entry| !known.contains(entry.id.as_str())) {
            Some(stranger) => Err(Error::UnexpectedAnswer(format!(
                "an entry {:?} failed that was not sent",
                stranger.id
            ))),
            None => Ok(failed),
        }
    }
}
