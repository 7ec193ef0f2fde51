//! The shape of an event, as the outbox keeps it and consumers get it. The wire form is in
//! [`crate::cloud_event`].

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::Error;

/// What happened to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// A task came to be.
    Created,
    /// Some of its fields changed, or it was reopened.
    Updated,
    /// It was done.
    Completed,
    /// It is gone.
    Deleted,
    /// One of its reminders came due.
    Reminder,
    /// A schedule, or the completion of a recurring task, made it.
    RecurringSpawn,
}

/// A stream of events that a consumer subscribes to; on Kafka a topic of this name.
///
/// A broker keeps one task's events in order within a topic, and never across two. So a consumer that needs
/// different kinds of events in the order in which they happened subscribes to a topic that has all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// All that happens to a task, its reminders included, for what the platform does next.
    TaskEvents,
    /// The same changes, for whoever shows tasks live.
    TaskUpdates,
    /// Reminders that came due, for whoever passes them on and cares for nothing else.
    Reminders,
}

impl EventType {
    /// Every type, in the order of their declaration.
    pub const ALL: [Self; 6] = [
        Self::Created,
        Self::Updated,
        Self::Completed,
        Self::Deleted,
        Self::Reminder,
        Self::RecurringSpawn,
    ];

    /// The name in the outbox and in an event's data: `created`, `recurring_spawn`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Completed => "completed",
            Self::Deleted => "deleted",
            Self::Reminder => "reminder",
            Self::RecurringSpawn => "recurring_spawn",
        }
    }

    /// The CloudEvents `type`. Its last part is the version of the data's shape.
    pub const fn cloud_type(self) -> &'static str {
        match self {
            Self::Created => "dev.todoplatform.task.created.v1",
            Self::Updated => "dev.todoplatform.task.updated.v1",
            Self::Completed => "dev.todoplatform.task.completed.v1",
            Self::Deleted => "dev.todoplatform.task.deleted.v1",
            Self::Reminder => "dev.todoplatform.task.reminder.v1",
            Self::RecurringSpawn => "dev.todoplatform.task.recurring_spawn.v1",
        }
    }

    /// Where an event of this type is published. A consumer of several of them gets it once.
    pub const fn topics(self) -> &'static [Topic] {
        match self {
            Self::Created | Self::Updated | Self::Completed | Self::Deleted | Self::RecurringSpawn => {
                &[Topic::TaskEvents, Topic::TaskUpdates]
            }
            // Also among the task's events: a reminder must not come before the change that it tells of.
            Self::Reminder => &[Topic::TaskEvents, Topic::Reminders],
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for EventType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|event_type| event_type.as_str() == name)
            .ok_or_else(|| Error::UnknownEventType(name.to_owned()))
    }
}

impl Topic {
    /// The topic's name: `task-events`, `task-updates`, `reminders`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TaskEvents => "task-events",
            Self::TaskUpdates => "task-updates",
            Self::Reminders => "reminders",
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// An event that a command is about to append to the outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// UUIDv7, unique. From here on everything deduplicates by it.
    pub id: Uuid,
    /// What happened.
    pub event_type: EventType,
    /// The task.
    pub subject: Uuid,
    /// The task's owner, a token's `sub`. Not empty.
    pub user_id: String,
    /// The task's version after the change, from 1.
    pub version: i64,
    /// Who did it: a token's `sub`, or `system:recurring` and its kin. Not empty.
    pub actor: String,
    /// The task as it is after the change; of a deleted task, as it last was.
    pub data: Value,
    /// An object: the former values of the fields that changed. `None` on creation.
    pub previous: Option<Value>,
    /// W3C `traceparent` of the request, if there was one.
    pub traceparent: Option<String>,
}

impl NewEvent {
    /// A new id. UUIDv7, so that ids sort by time and the inbox can drop whole days.
    pub fn new_id() -> Uuid {
        Uuid::now_v7()
    }
}

/// An event that was committed.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// UUIDv7, the same in the outbox, the inbox and as CloudEvents `id`.
    pub id: Uuid,
    /// What happened.
    pub event_type: EventType,
    /// The task.
    pub subject: Uuid,
    /// The task's owner.
    pub user_id: String,
    /// The task's version after the change. Rises from event to event of one task, except that a
    /// reminder carries the version that the task had.
    pub version: i64,
    /// Who did it.
    pub actor: String,
    /// The task as it is after the change.
    pub data: Value,
    /// The former values of the fields that changed.
    pub previous: Option<Value>,
    /// W3C `traceparent` of the request.
    pub traceparent: Option<String>,
    /// When the transaction of the change began, by the database's clock.
    pub time: Timestamp,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn every_type_is_read_back_by_its_name() {
        for event_type in EventType::ALL {
            assert_eq!(event_type.as_str().parse::<EventType>().unwrap(), event_type);
            assert_eq!(serde_json::to_value(event_type).unwrap(), event_type.as_str());
        }
        assert!("exploded".parse::<EventType>().is_err());
    }

    #[test]
    fn every_type_has_a_topic_and_its_own_cloud_type() {
        let mut cloud_types: Vec<_> = EventType::ALL.map(EventType::cloud_type).to_vec();
        cloud_types.sort_unstable();
        cloud_types.dedup();
        assert_eq!(cloud_types.len(), EventType::ALL.len());
        assert!(EventType::ALL.iter().all(|event_type| !event_type.topics().is_empty()));
    }

    #[test]
    fn one_topic_has_every_event_of_a_task_and_so_their_order() {
        for event_type in EventType::ALL {
            assert!(event_type.topics().contains(&Topic::TaskEvents), "{event_type}");
        }
    }
}
