//! What the domain promises, held against a real PostgreSQL: a database for each test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
mod fixture;

mod alarms;
mod catch_up;
mod change;
mod constraints;
mod conversations;
mod create;
mod event_size;
mod histories;
mod idempotency;
mod known_users;
mod lists;
mod next;
mod ownership;
mod parents;
mod reminders;
mod schedules;
mod state;
mod storms;
mod zone_rules;
