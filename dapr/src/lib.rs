//! The Dapr sidecar, as this platform uses it.
//!
//! What lives here: a [`Client`] for the sidecar's HTTP API, and the [`bus`] to a broker through it. What does
//! not: what is published or kept, which the callers know, and the sidecar's own configuration.
//!
//! The path of a call: a method of [`Client`] makes a request out of domain values, the client sends it,
//! again where that is safe, and the method reads the answer. All that can go wrong is an [`Error`], which
//! says whether the same call may succeed later ([`Error::is_retryable`]).
//!
//! HTTP and not gRPC: its surface is stable across Dapr's versions, and etags and conflicts have statuses.

pub mod bus;
pub mod client;
pub mod settings;

mod error;
mod secret;

pub use bus::{BusSettings, DaprBus};
pub use client::Client;
pub use error::{Error, Refusal};
pub use reqwest::{Method, StatusCode};
pub use secret::Secret;
pub use settings::Settings;
