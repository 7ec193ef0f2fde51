//! What the platform tells of itself, and whether what is made of it (`config/observability/`) can rely on that.
//!
//! The checks of files are functions that return what is wrong, so that a test can show that they notice it.

mod alerts;
mod away;
mod catalogue;
mod collector;
mod dashboards;
mod expressions;
mod logs;
mod metrics;
mod source;
mod spread_out;
mod traces;
