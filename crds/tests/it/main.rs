//! The promises of the resource types: what users write loads, what is wrong is said in one line with its place, and
//! the CRD's CEL rules say the same as `validate`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crd;
mod declared;
mod errors;
mod identity;
mod round_trip;
mod rules;
mod samples;
