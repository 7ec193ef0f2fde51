//! The reconciler of `TodoPlatform`.
//!
//! Here: what one pass knows of the world ([`Inputs`]), and every child made of it ([`build`]).

pub mod build;
mod inputs;

pub use inputs::{DatabaseFacts, Drawn, Inputs, InternalKey, KafkaFacts, KafkaListener, Release, SecretFacts};
