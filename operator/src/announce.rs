//! What is told as an event, and of which object.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;

use crate::events::{Happening, Recorder, Severity};
use crate::platform::status::{Answer, ConditionType, Turn};

/// A condition has turned. That it is as it was at the start, or as it should be, is nothing to look at.
pub fn turn<K: Resource<DynamicType = ()>>(recorder: &Recorder, object: &K, turn: &Turn) {
    let finding = &turn.finding;
    let should_be = match finding.about {
        ConditionType::Degraded | ConditionType::Paused | ConditionType::Progressing => Answer::False,
        _ => Answer::True,
    };
    let failed = finding.about == ConditionType::Degraded || finding.answer == Answer::False;
    let severity = if finding.answer != should_be && failed {
        Severity::Warning
    } else {
        Severity::Normal
    };
    let happening = Happening {
        severity,
        reason: finding.reason,
        action: finding.about.as_str(),
        note: finding.message.clone(),
        since: Some(turn.since),
    };
    recorder.record(&reference(object), &happening);
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
