//! The wire form of a delivery and of its answer, without any effect.
//!
//! A single delivery is the CloudEvent itself. A bulk is an envelope of the sidecar's own around entries,
//! each with a name that its answer goes by.
//!
//! The subscriptions ask for raw payloads: the sidecar then passes on what the broker has, as base64, without looking
//! into it. So what is no event gets here too, and its reason can be kept; where the sidecar reads it, it moves it
//! aside by itself and says why only in its log. What a sidecar without that setting delivers is read as well.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use todo_events::{CloudEvent, Event};
use uuid::Uuid;

/// The most that is kept of a malformed message, in characters. Each may take six bytes in JSON, and what is kept
/// of a message that a broker took has to be one that it takes.
const MAX_RECEIVED: usize = 100_000;

/// The most of a reason, in characters: it may quote the message.
const MAX_REASON: usize = 2_000;

/// The `type` by which a bulk is known.
const BULK_TYPE: &str = "com.dapr.event.sent.bulk";

/// What the sidecar is to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Status {
    /// It is settled here.
    Success,
    /// Deliver it again.
    Retry,
    /// Move it to the dead-letter topic.
    Drop,
}

impl Status {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Retry => "retry",
            Self::Drop => "drop",
        }
    }
}

/// A message that was delivered.
#[derive(Debug)]
pub(super) struct Message {
    /// What is wrong with it; `None` when it is an event.
    pub(super) malformed: Option<Malformed>,
    /// Its name in a bulk; empty in a single delivery.
    entry_id: String,
}

/// A message that is not an event.
#[derive(Debug)]
pub(super) struct Malformed {
    /// What is wrong with it.
    pub(super) reason: String,
    /// What came, or its beginning.
    pub(super) received: String,
    /// How long it was.
    pub(super) bytes: usize,
    /// Follows from all of what came.
    pub(super) hash: Uuid,
}

/// What came in one request.
#[derive(Debug)]
pub(super) struct Delivery {
    /// Its messages, in their order.
    pub(super) messages: Vec<Message>,
    /// The events among them, in the same order.
    pub(super) events: Vec<Event>,
    bulk: bool,
}

/// What goes back: one status, or one for each entry.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Answer<'a> {
    Single { status: Status },
    Bulk { statuses: Vec<EntryStatus<'a>> },
}

#[derive(Debug, Serialize)]
pub(super) struct EntryStatus<'a> {
    #[serde(rename = "entryId")]
    entry_id: &'a str,
    status: Status,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "entryId")]
    entry_id: String,
    /// Absent or null it is no event, but no reason to refuse the others.
    event: Option<Box<RawValue>>,
}

impl Delivery {
    /// Reads a request's body. What is no bulk is one message, whatever is in it. `None` for a bulk that
    /// cannot be told apart into entries: then there is no entry to answer for.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        if let Ok(envelope) = serde_json::from_slice::<Envelope>(body)
            && envelope.kind == BULK_TYPE
        {
            let mut bulk = Self::empty(true);
            for entry in envelope.entries {
                let event = entry.event.as_ref().map_or("null", |event| event.get());
                bulk.add(entry.entry_id, &payload_of_entry(event));
            }
            return Some(bulk);
        }
        if is_bulk(body) {
            return None;
        }
        let mut single = Self::empty(false);
        single.add(String::new(), &payload(body));
        Some(single)
    }

    fn empty(bulk: bool) -> Self {
        Self {
            messages: vec![],
            events: vec![],
            bulk,
        }
    }

    fn add(&mut self, entry_id: String, text: &[u8]) {
        let malformed = match read_event(text) {
            Ok(event) => {
                self.events.push(event);
                None
            }
            Err(reason) => Some(Malformed {
                reason: shortened(&reason, MAX_REASON),
                received: shortened(&String::from_utf8_lossy(text), MAX_RECEIVED),
                bytes: text.len(),
                hash: Uuid::new_v5(&Uuid::NAMESPACE_OID, text),
            }),
        };
        self.messages.push(Message { malformed, entry_id });
    }

    /// Whether the sidecar can be told to drop the message at this place.
    ///
    /// daprd (1.16 to 1.18) looks for a dropped entry of a bulk at the place that it had in the broker's batch,
    /// among those that are left of it: when others were settled by an earlier answer it moves the wrong one, or
    /// panics. The name of an entry is its place in the batch.
    pub(super) fn can_drop(&self, place: usize) -> bool {
        !self.bulk
            || self
                .messages
                .get(place)
                .is_some_and(|message| message.entry_id == place.to_string())
    }

    /// The answer that gives each message its status, in their order.
    pub(super) fn answer(&self, statuses: &[Status]) -> Answer<'_> {
        debug_assert_eq!(statuses.len(), self.messages.len(), "each message has a status");
        match statuses {
            [status] if !self.bulk => Answer::Single { status: *status },
            // A missing status is a retry to the sidecar, so every entry has one.
            _ => Answer::Bulk {
                statuses: self
                    .messages
                    .iter()
                    .zip(statuses)
                    .map(|(message, &status)| EntryStatus {
                        entry_id: &message.entry_id,
                        status,
                    })
                    .collect(),
            },
        }
    }
}

fn is_bulk(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    serde_json::from_slice::<Kind>(body).is_ok_and(|body| body.kind == BULK_TYPE)
}

/// What the broker has of an entry: a raw payload is text in base64, anything else is the message itself.
fn payload_of_entry(event: &str) -> Cow<'_, [u8]> {
    let decoded = serde_json::from_str::<Cow<'_, str>>(event)
        .ok()
        .and_then(|text| STANDARD.decode(text.as_bytes()).ok());
    decoded.map_or(Cow::Borrowed(event.as_bytes()), Cow::Owned)
}

/// The same of a single delivery: a raw payload is in an envelope of the sidecar's own.
fn payload(body: &[u8]) -> Cow<'_, [u8]> {
    /// The `type` by which that envelope is known.
    const RAW_TYPE: &str = "com.dapr.event.sent";
    #[derive(Deserialize)]
    struct Raw {
        #[serde(rename = "type")]
        kind: String,
        data_base64: String,
    }
    let decoded = serde_json::from_slice::<Raw>(body)
        .ok()
        .filter(|raw| raw.kind == RAW_TYPE)
        .and_then(|raw| STANDARD.decode(raw.data_base64).ok());
    decoded.map_or(Cow::Borrowed(body), Cow::Owned)
}

fn read_event(text: &[u8]) -> Result<Event, String> {
    let cloud: CloudEvent = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    Event::try_from(cloud).map_err(|error| error.to_string())
}

fn shortened(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}
