//! The wire form of an event: CloudEvents 1.0 in structured JSON, and its JSON schemas.
//!
//! The `id` is our own. Without it each retry through a sidecar would get a new random one, and
//! deduplication would be worthless. `partitionkey` is the user, so that one user's events keep their
//! order on Kafka (CloudEvents partitioning extension); `sequence` is the task's version (CloudEvents
//! sequence extension, which asks for a string that sorts, hence the zeros).

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Error, Event, EventType};

/// The CloudEvents `source` of all our events. Ids are unique without it.
pub const SOURCE: &str = "/todoplatform.dev/tasks";

/// The media type of one event in structured mode.
pub const MEDIA_TYPE: &str = "application/cloudevents+json";

const SPEC_VERSION: &str = "1.0";
const DATA_MEDIA_TYPE: &str = "application/json";

/// A task event as a CloudEvent (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloudEvent {
    /// Always `1.0`.
    #[schemars(extend("const" = "1.0"))]
    pub specversion: String,
    /// UUIDv7, unique for ever; deduplicate by it.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub id: Uuid,
    /// Where it comes from.
    #[schemars(extend("format" = "uri-reference"))]
    pub source: String,
    /// What happened and the version of the data's shape.
    #[serde(rename = "type")]
    pub cloud_type: String,
    /// The task's id.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub subject: Uuid,
    /// When it happened, RFC 3339 in UTC.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    /// Always `application/json`.
    #[schemars(extend("const" = "application/json"))]
    pub datacontenttype: String,
    /// W3C trace context of the request that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The user's id: events of one user stay in order.
    pub partitionkey: String,
    /// The task's version in 19 digits: sorts as text.
    #[schemars(extend("pattern" = "^[0-9]{19}$"))]
    pub sequence: String,
    /// What happened, to whom, by whom.
    pub data: EventData,
}

/// The `data` of a [`CloudEvent`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventData {
    /// The CloudEvent's `id`.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub event_id: Uuid,
    /// What happened.
    pub event_type: EventType,
    /// The task.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub task_id: Uuid,
    /// The task's owner.
    pub user_id: String,
    /// The task as it is after the change; of a deleted task, as it last was.
    pub task_data: Value,
    /// The former values of the fields that changed, or null.
    #[schemars(with = "Option<std::collections::BTreeMap<String, Value>>")]
    pub previous: Option<Value>,
    /// The task's version after the change, from 1.
    #[schemars(range(min = 1))]
    pub version: i64,
    /// Who did it: a user's id, or `system:` and a role.
    pub actor: String,
    /// The CloudEvent's `time`.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub timestamp: Timestamp,
}

impl From<&Event> for CloudEvent {
    fn from(event: &Event) -> Self {
        Self {
            specversion: SPEC_VERSION.to_owned(),
            id: event.id,
            source: SOURCE.to_owned(),
            cloud_type: event.event_type.cloud_type().to_owned(),
            subject: event.subject,
            time: event.time,
            datacontenttype: DATA_MEDIA_TYPE.to_owned(),
            traceparent: event.traceparent.clone(),
            partitionkey: event.user_id.clone(),
            sequence: format!("{:019}", event.version),
            data: EventData {
                event_id: event.id,
                event_type: event.event_type,
                task_id: event.subject,
                user_id: event.user_id.clone(),
                task_data: event.data.clone(),
                previous: event.previous.clone(),
                version: event.version,
                actor: event.actor.clone(),
                timestamp: event.time,
            },
        }
    }
}

impl TryFrom<CloudEvent> for Event {
    type Error = Error;

    /// Refuses an event whose envelope contradicts its data: it was not written by us, and what
    /// deduplication and order rest on cannot be trusted.
    fn try_from(cloud: CloudEvent) -> Result<Self, Error> {
        let data = cloud.data;
        let contradiction = if cloud.specversion != SPEC_VERSION {
            Some("specversion is not 1.0")
        } else if cloud.id != data.event_id {
            Some("id is not data.event_id")
        } else if cloud.subject != data.task_id {
            Some("subject is not data.task_id")
        } else if cloud.cloud_type != data.event_type.cloud_type() {
            Some("type does not fit data.event_type")
        } else {
            None
        };
        if let Some(contradiction) = contradiction {
            return Err(Error::Malformed(contradiction.to_owned()));
        }
        Ok(Self {
            id: cloud.id,
            event_type: data.event_type,
            subject: cloud.subject,
            user_id: data.user_id,
            version: data.version,
            actor: data.actor,
            data: data.task_data,
            previous: data.previous,
            traceparent: cloud.traceparent,
            time: cloud.time,
        })
    }
}

/// The JSON schemas of all event types, as `(file name, text)`. `events/schemas/` holds them for others.
///
/// # Panics
/// Never: a schema is plain JSON.
pub fn schemas() -> Vec<(String, String)> {
    EventType::ALL
        .into_iter()
        .map(|event_type| {
            let mut schema = schemars::schema_for!(CloudEvent).to_value();
            schema["$id"] = json!(format!(
                "https://todoplatform.dev/schemas/{}.json",
                event_type.cloud_type()
            ));
            schema["title"] = json!(event_type.cloud_type());
            schema["properties"]["type"]["const"] = json!(event_type.cloud_type());
            schema["$defs"]["EventData"]["properties"]["event_type"] =
                json!({"description": "What happened.", "type": "string", "const": event_type.as_str()});
            if let Some(definitions) = schema["$defs"].as_object_mut() {
                definitions.remove("EventType");
            }
            let text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON");
            (format!("{}.json", event_type.cloud_type()), text + "\n")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::path::Path;

    use super::*;

    fn event() -> Event {
        Event {
            id: Uuid::now_v7(),
            event_type: EventType::Updated,
            subject: Uuid::now_v7(),
            user_id: "ada".to_owned(),
            version: 3,
            actor: "ada".to_owned(),
            data: json!({"title": "buy milk"}),
            previous: Some(json!({"title": "buy beer"})),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            time: "2026-11-21T08:30:00.123456Z".parse().unwrap(),
        }
    }

    #[test]
    fn the_wire_form_keeps_everything() {
        let event = event();
        let text = serde_json::to_string(&CloudEvent::from(&event)).unwrap();
        let read: CloudEvent = serde_json::from_str(&text).unwrap();
        assert_eq!(Event::try_from(read).unwrap(), event);
    }

    #[test]
    fn the_envelope_is_what_cloudevents_asks_for() {
        let event = event();
        let wire = serde_json::to_value(CloudEvent::from(&event)).unwrap();
        assert_eq!(wire["specversion"], "1.0");
        assert_eq!(wire["id"], event.id.to_string());
        assert_eq!(wire["type"], "dev.todoplatform.task.updated.v1");
        assert_eq!(wire["subject"], event.subject.to_string());
        assert_eq!(wire["time"], "2026-11-21T08:30:00.123456Z");
        assert_eq!(wire["partitionkey"], "ada");
        assert_eq!(wire["sequence"], "0000000000000000003");
        // Attribute names are lower-case letters and digits only (CloudEvents 1.0, "Naming conventions").
        for name in wire.as_object().unwrap().keys() {
            assert!(
                name.chars()
                    .all(|character| character.is_ascii_lowercase() || character.is_ascii_digit()),
                "{name}"
            );
        }
    }

    #[test]
    fn an_envelope_that_contradicts_its_data_is_refused() {
        let honest = CloudEvent::from(&event());
        let other_id = CloudEvent {
            id: Uuid::now_v7(),
            ..honest.clone()
        };
        let other_subject = CloudEvent {
            subject: Uuid::now_v7(),
            ..honest.clone()
        };
        let other_type = CloudEvent {
            cloud_type: EventType::Deleted.cloud_type().to_owned(),
            ..honest.clone()
        };
        let other_spec = CloudEvent {
            specversion: "0.3".to_owned(),
            ..honest
        };
        for forged in [other_id, other_subject, other_type, other_spec] {
            assert!(matches!(Event::try_from(forged), Err(Error::Malformed(_))));
        }
    }

    /// Write them anew with `UPDATE_SCHEMAS=1 cargo test -p todo-events schemas`.
    #[test]
    fn the_checked_in_schemas_are_fresh() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let schemas = schemas();
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            for (name, text) in &schemas {
                std::fs::write(folder.join(name), text).unwrap();
            }
        }
        let mut present: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        present.sort_unstable();
        let mut expected: Vec<_> = schemas.iter().map(|(name, _)| name.clone()).collect();
        expected.sort_unstable();
        assert_eq!(present, expected);
        for (name, text) in schemas {
            let kept = std::fs::read_to_string(folder.join(&name)).unwrap();
            assert_eq!(kept, text, "{name} is stale: run with UPDATE_SCHEMAS=1");
        }
    }
}
