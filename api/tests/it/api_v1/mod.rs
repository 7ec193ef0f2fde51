//! `/api/v1/…`

mod conversations;
mod history;
mod idempotency;
mod lists;
mod notifications;
mod reminders;
mod schedules;
mod tasks;
mod tasks_id;
mod waking;
