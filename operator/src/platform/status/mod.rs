//! The status: what a pass saw and did, for people to read.
//!
//! `conditions` says what a condition is and when its time moves, `report` makes every condition, the phase, the
//! components and the versions. Nothing here asks the cluster.

mod conditions;
mod report;

pub use conditions::{Answer, ConditionType, Finding, Turn, date};
pub use report::{Report, status, topics_are_ready};
