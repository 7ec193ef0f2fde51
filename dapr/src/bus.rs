//! The bus between processes: a broker behind the sidecar.
//!
//! What lives here: how a batch of the relay becomes bulk publishes, and what is sent again when some of it
//! fails. What does not: the delivery to consumers, and the relay's place.
//!
//! The path of a batch: its events are sorted by topic; each topic gets one bulk publish (more only when the
//! sidecar would not take so large a request). Each event travels as a whole CloudEvent, so that the sidecar
//! keeps its id and a consumer can tell that it comes twice; the broker's partition follows from its user.
//!
//! A bulk may fail in part. What failed is sent again, and with it whatever came after it for the same user,
//! published or not; the rest is done. Where a broker refuses a partition's entries from one on, each consumer
//! so sees a user's events in their order. Where it takes a later entry of a user in the very request in which
//! it refuses an earlier one, a consumer sees the later one first: no order of sending again can mend that.
//!
//! [`Bus::publish`] returns an error when the sidecar or the broker is away, or keeps failing: the relay
//! keeps its place and comes again with the same events under the same ids.

use std::collections::{BTreeMap, HashSet};

use futures::future::join_all;
use serde_json::value::{RawValue, to_raw_value};
use todo_events::backoff::Backoff;
use todo_events::cloud_event::MEDIA_TYPE;
use todo_events::{BoxFuture, Bus, BusError, CloudEvent, Event, Topic};

use crate::client::BulkEntry;
use crate::{Client, Error};

/// What brokers call the key that decides the partition.
const PARTITION_KEY: &str = "partitionKey";

/// How the bus publishes.
#[derive(Debug, Clone)]
pub struct BusSettings {
    /// The name of the pub/sub component.
    pub pubsub: String,
    /// How often a bulk that fails in part is sent, with less each time, before the relay hears of it. At
    /// least 1.
    pub attempts: u32,
    /// The wait between them.
    pub backoff: Backoff,
    /// The largest sum of events in one request, in bytes. The sidecar's own limit is on the whole request
    /// (`--max-body-size`, 4 MiB).
    pub max_request_bytes: usize,
}

impl BusSettings {
    /// The defaults for a component of this name.
    pub fn of(pubsub: impl Into<String>) -> Self {
        Self {
            pubsub: pubsub.into(),
            attempts: 5,
            backoff: Backoff::default(),
            max_request_bytes: 3 * 1024 * 1024,
        }
    }
}

/// Publishes to a broker through the sidecar.
#[derive(Debug)]
pub struct DaprBus {
    client: Client,
    settings: BusSettings,
}

impl DaprBus {
    /// A bus through this sidecar.
    pub fn new(client: Client, settings: BusSettings) -> Self {
        Self { client, settings }
    }

    async fn publish_to(&self, topic: Topic, batch: &[Event]) -> Result<(), Error> {
        let entries = batch
            .iter()
            .filter(|event| event.event_type.topics().contains(&topic))
            .map(entry)
            .collect();
        // One after the other: a request must not overtake what is left of the one before.
        for request in split(entries, self.settings.max_request_bytes) {
            self.publish_all(topic, request).await?;
        }
        Ok(())
    }

    async fn publish_all(&self, topic: Topic, mut entries: Vec<BulkEntry>) -> Result<(), Error> {
        let mut failures = 0;
        loop {
            let failed = self
                .client
                .publish_bulk(&self.settings.pubsub, topic.as_str(), &entries)
                .await?;
            let Some(first) = failed.first() else {
                return Ok(());
            };
            failures += 1;
            metrics::counter!("todo_bus_failed_entries_total", "topic" => topic.as_str())
                .increment(failed.len() as u64);
            tracing::warn!(%topic, failed = failed.len(), error = first.error, failures, "a bulk failed in part");
            if failures >= self.settings.attempts {
                return Err(Error::NotPublished {
                    topic,
                    events: failed.len(),
                    error: first.error.clone(),
                });
            }
            let failed = failed.iter().map(|entry| entry.id.as_str()).collect();
            hold_back(&mut entries, &failed);
            tokio::time::sleep(self.settings.backoff.delay(failures)).await;
        }
    }
}

impl Bus for DaprBus {
    fn publish<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(async move {
            let mut topics = vec![];
            for topic in batch.iter().flat_map(|event| event.event_type.topics()) {
                if !topics.contains(topic) {
                    topics.push(*topic);
                }
            }
            // Each to its end, also when another fails: what is out need not be published again by luck.
            let published = join_all(topics.into_iter().map(|topic| self.publish_to(topic, batch))).await;
            published
                .into_iter()
                .collect::<Result<(), Error>>()
                .map_err(|error| BusError::Unavailable(Box::new(error)))
        })
    }
}

fn entry(event: &Event) -> BulkEntry {
    BulkEntry {
        id: event.id.to_string(),
        event: to_raw_value(&CloudEvent::from(event)).expect("an event is plain JSON"),
        content_type: MEDIA_TYPE,
        metadata: BTreeMap::from([(PARTITION_KEY, event.user_id.clone())]),
    }
}

/// Cuts entries, in their order, into requests that the sidecar takes. One that is too large by itself goes
/// alone, to be refused in the sidecar's words.
fn split(entries: Vec<BulkEntry>, max_bytes: usize) -> Vec<Vec<BulkEntry>> {
    let mut requests: Vec<Vec<BulkEntry>> = vec![];
    let mut bytes = 0;
    for entry in entries {
        let size = size(&entry.event);
        match requests.last_mut() {
            Some(request) if bytes + size <= max_bytes => {
                bytes += size;
                request.push(entry);
            }
            _ => {
                bytes = size;
                requests.push(vec![entry]);
            }
        }
    }
    requests
}

fn size(event: &RawValue) -> usize {
    /// An entry's id, key and names around its event, roughly.
    const AROUND: usize = 256;
    event.get().len() + AROUND
}

/// Keeps what failed, and what came after it for the same user.
fn hold_back(entries: &mut Vec<BulkEntry>, failed: &HashSet<&str>) {
    let mut held_up = HashSet::new();
    entries.retain(|entry| {
        let user = entry.metadata.get(PARTITION_KEY).cloned();
        if failed.contains(entry.id.as_str()) {
            held_up.insert(user);
            return true;
        }
        held_up.contains(&user)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, user: &str) -> BulkEntry {
        BulkEntry {
            id: id.to_owned(),
            event: to_raw_value(&"x".repeat(744 - 2)).expect("text is JSON"),
            content_type: MEDIA_TYPE,
            metadata: BTreeMap::from([(PARTITION_KEY, user.to_owned())]),
        }
    }

    fn ids(entries: &[BulkEntry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.id.as_str()).collect()
    }

    #[test]
    fn what_follows_a_failure_of_the_same_user_is_held_back_with_it() {
        let mut entries = vec![
            entry("a1", "ada"),
            entry("b1", "bob"),
            entry("a2", "ada"),
            entry("b2", "bob"),
            entry("a3", "ada"),
            entry("e1", "eve"),
        ];
        hold_back(&mut entries, &HashSet::from(["a2", "b2"]));
        assert_eq!(ids(&entries), ["a2", "b2", "a3"]);
    }

    #[test]
    fn a_large_batch_is_cut_in_order_and_no_request_is_too_large() {
        let requests = split((1..=7).map(|n| entry(&n.to_string(), "ada")).collect(), 3000);
        let requests: Vec<_> = requests.iter().map(|request| ids(request)).collect();
        assert_eq!(requests, [vec!["1", "2", "3"], vec!["4", "5", "6"], vec!["7"]]);
        // Also when not even one fits.
        assert_eq!(split(vec![entry("1", "ada"), entry("2", "ada")], 10).len(), 2);
    }
}
