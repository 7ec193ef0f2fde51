//! Topics in a Kafka that runs elsewhere, on a real broker.

pub(crate) mod broker;
mod hostile;
mod logins;
mod topics;
