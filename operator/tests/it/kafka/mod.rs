//! Topics in a Kafka that runs elsewhere, on a real broker.

mod broker;
mod hostile;
mod logins;
mod topics;
