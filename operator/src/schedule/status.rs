//! The status of a `RecurringSchedule`: what its platform says, for people to read.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use todo_crds::RecurringSchedule;
use todo_crds::schedule::RecurringScheduleStatus;

use super::internal_api::{CallError, State};
use crate::platform::status::{ConditionType, Finding, Turn, date};

/// What became of a pass over a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its platform has it so.
    Followed(State),
    /// There is no platform of that name in the namespace.
    NoPlatform,
    /// Its platform cannot be asked yet.
    PlatformNotReady(String),
    /// Its platform, or the operator before it, refuses it.
    Invalid(String),
    /// The call failed.
    Failed(CallError),
}

/// The status that says so, and the conditions that have turned. What a platform said before stays while it cannot be
/// asked.
pub fn status(schedule: &RecurringSchedule, outcome: &Outcome, now: Timestamp) -> (RecurringScheduleStatus, Vec<Turn>) {
    let before = schedule.status.clone().unwrap_or_default();
    let platform = &schedule.spec.platform_ref.name;
    let mut status = RecurringScheduleStatus {
        observed_generation: schedule.metadata.generation,
        schedule: Some(schedule.spec.schedule.shown()),
        conditions: vec![],
        ..before.clone()
    };
    if let Outcome::Followed(state) = outcome {
        status.next = state.next_at.map(Time);
        status.last = state.last_at.map(Time);
        status.made = state.made;
        status.missed = state.missed;
        status.skipped = state.skipped;
    }
    let mut findings = vec![ready(platform, outcome)];
    findings.extend(user(schedule, outcome));
    let (conditions, turns) = date(findings, &before.conditions, schedule.metadata.generation, now);
    status.conditions = conditions;
    if !matches!(outcome, Outcome::Followed(_)) {
        let kept = before
            .conditions
            .into_iter()
            .filter(|condition| condition.type_ == USER_KNOWN);
        status.conditions.extend(kept);
    }
    (status, turns)
}

const USER_KNOWN: &str = ConditionType::UserKnown.as_str();

fn ready(platform: &str, outcome: &Outcome) -> Finding {
    const ABOUT: ConditionType = ConditionType::Ready;
    match outcome {
        Outcome::NoPlatform => Finding::no(
            ABOUT,
            "PlatformNotFound",
            format!(
                "spec.platformRef.name: there is no TodoPlatform {platform} in this namespace; it is taken over when there is"
            ),
        ),
        Outcome::PlatformNotReady(why) => Finding::unknown(
            ABOUT,
            "PlatformNotReady",
            format!("TodoPlatform {platform} cannot take it over yet: {why}"),
        ),
        Outcome::Invalid(why) => Finding::no(ABOUT, "Invalid", why.clone()),
        Outcome::Failed(error) => Finding::unknown(ABOUT, "PlatformUnreachable", format!("{error}; it is tried again")),
        Outcome::Followed(state) => followed(state),
    }
}

fn followed(state: &State) -> Finding {
    const ABOUT: ConditionType = ConditionType::Ready;
    match state {
        State { problem: Some(why), .. } => Finding::no(ABOUT, "Stopped", why.clone()),
        State { ended: true, .. } => Finding::yes(ABOUT, "Ended", "its rule has no further occurrence"),
        State { suspended: true, .. } => Finding::yes(
            ABOUT,
            "Suspended",
            "spec.suspend is true: it makes no tasks, and occurrences in this time are not made up for",
        ),
        _ => Finding::yes(ABOUT, "Active", "its platform makes its tasks"),
    }
}

/// Only the platform knows its users.
fn user(schedule: &RecurringSchedule, outcome: &Outcome) -> Option<Finding> {
    const ABOUT: ConditionType = ConditionType::UserKnown;
    let Outcome::Followed(state) = outcome else {
        return None;
    };
    Some(if state.user_known {
        Finding::yes(ABOUT, "Known", "the user has used the platform")
    } else {
        Finding::no(
            ABOUT,
            "NeverSeen",
            format!(
                "spec.user: nobody has used the platform as {:?} yet; its tasks are made all the same: check that it is \
                 the sub of that person's tokens",
                schedule.spec.user
            ),
        )
    })
}
