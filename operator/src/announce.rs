//! What is told as an event, and of which object.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;

use crate::events::{Happening, Recorder, Severity};
use crate::platform::status::{Answer, ConditionType, Finding, Turn};

/// Conditions have turned.
pub fn turns<K: Resource<DynamicType = ()>>(recorder: &Recorder, object: &K, turns: &[Turn]) {
    for happening in happenings(turns) {
        recorder.record(&reference(object), &happening);
    }
}

/// What is told of these. Several that say the same are one, by the name of the first.
fn happenings(turns: &[Turn]) -> Vec<Happening> {
    let says = |turn: &Turn| (turn.finding.reason, turn.finding.message.clone());
    let mut told = HashSet::new();
    let different = turns.iter().filter(|turn| told.insert(says(turn)));
    let happening = |turn: &Turn| {
        let alike = turns.iter().filter(|other| says(other) == says(turn));
        let alike: Vec<&Finding> = alike.map(|other| &other.finding).collect();
        Happening {
            severity: severity(&alike),
            reason: turn.finding.reason,
            action: turn.finding.about.as_str(),
            note: turn.finding.message.clone(),
            since: Some(turn.since),
        }
    };
    different.map(happening).collect()
}

/// How severe it is what these have in common: what is on its way is nothing to look at, unless something fails.
fn severity(findings: &[&Finding]) -> Severity {
    let holds = |about| findings.iter().any(|finding| finding.about == about && finding.holds());
    let is_no = |finding: &&Finding| finding.about.should_be() == Answer::True && finding.answer == Answer::False;
    let fails = holds(ConditionType::Degraded);
    let is_on_its_way = holds(ConditionType::Progressing);
    if fails || !is_on_its_way && findings.iter().any(is_no) {
        Severity::Warning
    } else {
        Severity::Normal
    }
}

/// Something that a person should know.
pub fn note<K: Resource<DynamicType = ()>>(recorder: &Recorder, object: &K, reason: &'static str, note: String) {
    once(recorder, object, Severity::Normal, reason, note);
}

/// Something that a person should look at.
pub fn warning<K: Resource<DynamicType = ()>>(recorder: &Recorder, object: &K, reason: &'static str, note: String) {
    once(recorder, object, Severity::Warning, reason, note);
}

fn once<K: Resource<DynamicType = ()>>(
    recorder: &Recorder,
    object: &K,
    severity: Severity,
    reason: &'static str,
    note: String,
) {
    let happening = Happening {
        severity,
        reason,
        action: "Reconcile",
        note,
        since: None,
    };
    recorder.record(&reference(object), &happening);
}

fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    object.object_ref(&())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn told(findings: Vec<Finding>) -> Vec<(&'static str, &'static str, bool)> {
        let turn = |finding| Turn {
            finding,
            since: Timestamp::UNIX_EPOCH,
        };
        let turns: Vec<Turn> = findings.into_iter().map(turn).collect();
        let shown = |happening: &Happening| {
            let is_warning = happening.severity == Severity::Warning;
            (happening.reason, happening.action, is_warning)
        };
        happenings(&turns).iter().map(shown).collect()
    }

    #[test]
    fn what_several_conditions_say_is_told_once_and_is_no_warning_while_it_is_on_its_way() {
        let (reason, message) = ("Migrating", "job home-migrate brings the schema to 0.1.0");
        let findings = vec![
            Finding::no(ConditionType::Ready, reason, message),
            Finding::yes(ConditionType::Progressing, reason, message),
            Finding::no(ConditionType::Migrated, reason, message),
            Finding::no(ConditionType::TopicsReady, "Making", "being made: task-events"),
        ];
        assert_eq!(
            told(findings),
            [("Migrating", "Ready", false), ("Making", "TopicsReady", true)]
        );
    }

    #[test]
    fn what_fails_is_a_warning_though_it_is_tried_again() {
        let (reason, message) = ("MigrationRetrying", "job home-migrate failed 2 times");
        let findings = vec![
            Finding::yes(ConditionType::Progressing, reason, message),
            Finding::yes(ConditionType::Degraded, reason, message),
            Finding::no(ConditionType::Migrated, reason, message),
        ];
        assert_eq!(told(findings), [("MigrationRetrying", "Progressing", true)]);
    }

    #[test]
    fn what_is_as_it_should_be_is_no_warning() {
        let findings = vec![
            Finding::yes(ConditionType::Ready, "AllComponentsAvailable", "api 2/2"),
            Finding::no(ConditionType::Progressing, "Settled", "everything is as asked for"),
            Finding::no(ConditionType::Ready, "ComponentsUnavailable", "api 1/2"),
        ];
        assert_eq!(
            told(findings),
            [
                ("AllComponentsAvailable", "Ready", false),
                ("Settled", "Progressing", false),
                ("ComponentsUnavailable", "Ready", true)
            ]
        );
    }
}
