//! The Dapr sidecar, as this platform uses it.
//!
//! What lives here: a [`Client`] for the sidecar's HTTP API, the [`bus`] to a broker through it, the
//! [`subscription`] host that serves what it delivers, what [`topics`] are called there, and the host of jobs
//! ([`jobs_host`]) that it wakes. What does not: what is published or kept, which the callers know, and the sidecar's
//! own configuration.
//!
//! The path of a call: a method of [`Client`] makes a request out of domain values, the client sends it,
//! again where that is safe, and the method reads the answer. All that can go wrong is an [`Error`], which
//! says whether the same call may succeed later ([`Error::is_retryable`]).
//!
//! The path of an event: the relay hands a batch to [`DaprBus`], the sidecar publishes it, the broker keeps it;
//! the consumer's own sidecar delivers it to [`SubscriptionHost`], which settles it in the database.
//!
//! HTTP and not gRPC: its surface is stable across Dapr's versions, and etags and conflicts have statuses.

pub mod bus;
pub mod client;
pub mod jobs_host;
pub mod settings;
pub mod subscription;
pub mod topics;

mod app_token;
mod error;
mod secret;

pub use bus::{BusSettings, DaprBus};
pub use client::Client;
pub use error::{Error, Refusal};
pub use jobs_host::{JobHost, OnJob};
pub use reqwest::{Method, StatusCode};
pub use secret::Secret;
pub use settings::Settings;
pub use subscription::{SubscriptionHost, SubscriptionSettings};
pub use topics::TopicPrefix;
