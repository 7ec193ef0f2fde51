//! The API over real HTTP and a real database, laid out like its URLs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api_user_id;
mod api_v1;
mod app;
mod auth;
mod docs;
mod every_route;
mod health;
mod internal;
mod issuer;
mod limits;
mod metrics;
mod openapi;
mod problems;
mod serving;
