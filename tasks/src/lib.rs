//! The domain: tasks with their tags and reminders, schedules that make tasks, the notifications that follow.
//!
//! Here lives every command and query over the tables of `migrations/0002_tasks.sql` and those that came later, and
//! nothing that knows of HTTP, of buses or of loops: `todo-api` parses requests into the types of this crate and calls
//! one command, `todo-worker` calls what time and events demand.
//!
//! How data walks through: an `…Input` is what a caller wrote; its `parse` checks it and names each field that is
//! wrong; the `…Fields` that come out need no second check. A command takes them with a [`Caller`] and a connection,
//! changes the rows and appends one event to the outbox in the same transaction, and returns what is there now.
//! Every query is bound to a user. Conversations are no rows but values in a store, which may be another than the
//! database; `conversation` says how.

mod caller;
mod clock;
mod due;
mod error;
mod id;
mod known_fields;

pub mod audit;
pub mod conversation;
pub mod idempotency;
pub mod known_user;
pub mod notification;
pub mod reminder;
pub mod schedule;
pub mod state;
pub mod task;
pub mod zone_rules;

pub use caller::Caller;
pub use due::{Due, DueInput};
pub use error::{Error, Invalid, Result};
pub use id::{ConversationId, MessageId, NotificationId, ReminderId, ScheduleId, TaskId, UserId};
