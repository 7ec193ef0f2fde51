//! The bus between processes: a broker behind the sidecar.
//!
//! What lives here: how a batch of the relay becomes bulk publishes, and what is sent again when some of it
//! fails. What does not: the delivery to consumers, and the relay's place.
//!
//! The path of a batch: its events are sorted by topic, and those of a topic go out in waves. The first wave has
//! the first event of each task, the second wave the second, and so on; a wave is one bulk publish (more only
//! when the sidecar would not take so large a request). Each event travels as a whole CloudEvent that the sidecar
//! does not look into: it keeps its id, so that a consumer can tell that it comes twice, and its trace, which the
//! sidecar would replace by its own. The broker's partition follows from its user.
//!
//! Why waves: a bulk is not atomic, and a broker may take a task's second event in the very request in which it
//! refuses the first. So an event is sent only when the one before it, of the same task, was acknowledged;
//! then a consumer sees each task's events in their order whatever fails and whatever is sent again. Most events
//! of a batch are the only ones of their task, and are in the first wave.
//!
//! A bulk may fail in part. What failed is sent again alone, and the next wave waits for it.
//!
//! [`Bus::publish`] returns an error when the sidecar or the broker is away, or keeps refusing an event: the
//! relay keeps its place and comes again with the same events under the same ids. That is so for an event that
//! the broker will never take, too: to pass it over would lose it for every consumer. The largest event of a
//! task is far smaller than what brokers take as they come, so such an event means a broker, a topic or a
//! component with a limit that is too low. The error names the event and its size, and the outbox's age rises
//! until somebody mends it.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::future::join_all;
use todo_events::backoff::Backoff;
use todo_events::{BoxFuture, Bus, BusError, CloudEvent, Event, Topic};
use uuid::Uuid;

use crate::client::BulkEntry;
use crate::{Client, Error, TopicPrefix};

/// What brokers call the key that decides the partition.
const PARTITION_KEY: &str = "partitionKey";

/// How the bus publishes.
#[derive(Debug, Clone)]
pub struct BusSettings {
    /// The name of the pub/sub component.
    pub pubsub: String,
    /// What the topics' names begin with.
    pub topic_prefix: TopicPrefix,
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
            topic_prefix: TopicPrefix::default(),
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
        metrics::describe_counter!(
            "todo_bus_failed_entries_total",
            "Events that the broker has refused, each time that it did."
        );
        Self { client, settings }
    }

    async fn publish_to(&self, topic: Topic, batch: &[Event]) -> Result<(), Error> {
        let of_topic = batch.iter().filter(|event| event.event_type.topics().contains(&topic));
        for wave in waves(of_topic) {
            let entries = wave.into_iter().map(entry).collect();
            for request in split(entries, self.settings.max_request_bytes) {
                self.publish_all(topic, request).await?;
            }
        }
        Ok(())
    }

    /// Returns when the broker has acknowledged each of these entries, no two of which are of one task.
    async fn publish_all(&self, topic: Topic, mut entries: Vec<BulkEntry>) -> Result<(), Error> {
        let mut failures = 0;
        let name = self.settings.topic_prefix.topic(topic);
        loop {
            let failed = self.client.publish_bulk(&self.settings.pubsub, &name, &entries).await?;
            let Some(first) = failed.first() else {
                return Ok(());
            };
            failures += 1;
            metrics::counter!("todo_bus_failed_entries_total", "topic" => topic.as_str())
                .increment(failed.len() as u64);
            tracing::warn!(%topic, failed = failed.len(), error = first.error, failures, "a bulk failed in part");
            if failures >= self.settings.attempts {
                let refused = entries.iter().find(|entry| entry.id == first.id);
                return Err(Error::NotPublished {
                    topic,
                    events: failed.len(),
                    event: first.id.clone(),
                    bytes: refused.map_or(0, |entry| entry.payload.len()),
                    error: first.error.clone(),
                });
            }
            let failed: HashSet<&str> = failed.iter().map(|entry| entry.id.as_str()).collect();
            entries.retain(|entry| failed.contains(entry.id.as_str()));
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

/// Sorts events into waves, each in their order: an event is as many waves behind the first as there are events
/// of its task before it.
fn waves<'a>(events: impl Iterator<Item = &'a Event>) -> Vec<Vec<&'a Event>> {
    let mut waves: Vec<Vec<&Event>> = vec![];
    let mut of_task: HashMap<Uuid, usize> = HashMap::new();
    for event in events {
        let before = of_task.entry(event.subject).or_default();
        match waves.get_mut(*before) {
            Some(wave) => wave.push(event),
            None => waves.push(vec![event]),
        }
        *before += 1;
    }
    waves
}

fn entry(event: &Event) -> BulkEntry {
    BulkEntry {
        id: event.id.to_string(),
        payload: serde_json::to_string(&CloudEvent::from(event)).expect("an event is plain JSON"),
        metadata: BTreeMap::from([(PARTITION_KEY, event.user_id.clone())]),
    }
}

/// Cuts entries, in their order, into requests that the sidecar takes. One that is too large by itself goes
/// alone, to be refused in the sidecar's words.
fn split(entries: Vec<BulkEntry>, max_bytes: usize) -> Vec<Vec<BulkEntry>> {
    let mut requests: Vec<Vec<BulkEntry>> = vec![];
    let mut bytes = 0;
    for entry in entries {
        let size = size(&entry);
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

/// How much of a request an entry takes: at least what it does.
fn size(entry: &BulkEntry) -> usize {
    /// An entry's id and names.
    const AROUND: usize = 256;
    // In JSON's text, quotation marks and backslashes are escaped once more. Control characters already are.
    let escaped = entry
        .payload
        .bytes()
        .filter(|byte| matches!(byte, b'"' | b'\\'))
        .count();
    let metadata: usize = entry.metadata.values().map(|value| 2 * value.len()).sum();
    AROUND + entry.payload.len() + escaped + metadata
}

#[cfg(test)]
mod tests {
    use todo_events::{EventType, NewEvent};

    use super::*;

    fn entry(id: &str) -> BulkEntry {
        BulkEntry {
            id: id.to_owned(),
            payload: "x".repeat(700) + &"\"".repeat(22),
            metadata: BTreeMap::new(),
        }
    }

    fn ids(entries: &[BulkEntry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.id.as_str()).collect()
    }

    fn event(task: u128, version: i64) -> Event {
        Event {
            id: NewEvent::new_id(),
            event_type: EventType::Updated,
            subject: Uuid::from_u128(task),
            user_id: "ada".to_owned(),
            version,
            actor: "ada".to_owned(),
            data: serde_json::json!({}),
            previous: None,
            traceparent: None,
            time: "2026-11-21T08:30:00Z".parse().expect("an instant"),
        }
    }

    #[test]
    fn a_wave_has_one_event_of_a_task_and_what_is_alone_is_in_the_first() {
        let batch =
            [(1, 1), (2, 5), (1, 2), (3, 1), (2, 6), (1, 3), (4, 9)].map(|(task, version)| event(task, version));
        let waves: Vec<Vec<_>> = waves(batch.iter())
            .iter()
            .map(|wave| {
                wave.iter()
                    .map(|event| (event.subject.as_u128(), event.version))
                    .collect()
            })
            .collect();
        assert_eq!(
            waves,
            [vec![(1, 1), (2, 5), (3, 1), (4, 9)], vec![(1, 2), (2, 6)], vec![(1, 3)]]
        );
    }

    #[test]
    fn a_large_wave_is_cut_in_order_and_no_request_is_too_large() {
        let requests = split((1..=7).map(|n| entry(&n.to_string())).collect(), 3000);
        let requests: Vec<_> = requests.iter().map(|request| ids(request)).collect();
        assert_eq!(requests, [vec!["1", "2", "3"], vec!["4", "5", "6"], vec!["7"]]);
        // Also when not even one fits.
        assert_eq!(split(vec![entry("1"), entry("2")], 10).len(), 2);
    }
}
