//! Whose an object is, by its labels and its controller.

use serde_json::Value;

use crate::child::{Child, Tenure};
use crate::error::{Error, Result};
use crate::live::Observed;
use crate::names::{MANAGER, NAMESPACE_LABEL, PLATFORM_LABEL};

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// That `live` is the same platform's as `child`, and no other's.
///
/// What carries the operator's labels and no controller is taken over: that is how what outlives a platform, such as its
/// database, comes back to it. What has this very platform for a controller, and is to outlive it from now on, is its too.
pub(super) fn check(child: &Child, live: &Value) -> Result<()> {
    match stranger(&child.platform, &child.body, live) {
        None => Ok(()),
        Some(owner) => Err(Error::NotOurs {
            object: child.key.clone(),
            owner,
        }),
    }
}

/// The same without a look into the object, where what is kept of it shows enough.
pub(super) fn is_plainly_ours(child: &Child, live: &Observed) -> bool {
    let labels = &child.body["metadata"]["labels"];
    labels[PLATFORM_LABEL] == live.platform.platform.as_str()
        && labels[NAMESPACE_LABEL] == live.platform.namespace.as_str()
        && controller(&child.body).map(|owner| &owner["uid"]) == live.controller.as_deref().map(Value::from).as_ref()
}

/// Whether `live` goes with a platform that has since said that it is to stay.
pub(super) fn is_to_be_let_go(child: &Child, live: &Observed) -> bool {
    child.tenure == Tenure::Kept && live.controller.as_ref() == Some(&child.platform)
}

/// Whose `live` is when it is not `desired`'s of the platform with this UID, as the rest of a sentence that begins with
/// `it`.
fn stranger(platform: &str, desired: &Value, live: &Value) -> Option<String> {
    let label = |object: &Value, name: &str| object["metadata"]["labels"][name].as_str().map(ToOwned::to_owned);
    if let Some(owner) = controller(live)
        && owner["uid"] != platform
    {
        let text = |name: &str| owner[name].as_str().unwrap_or_default();
        let what = format!("{} {}", text("kind"), text("name"));
        return Some(match label(live, MANAGED_BY).as_deref() {
            Some(MANAGER) => format!("belongs to {what} as it was before, or to another, and goes with that"),
            _ => format!("belongs to {what}"),
        });
    }
    match label(live, MANAGED_BY) {
        Some(manager) if manager == MANAGER => {}
        Some(manager) => return Some(format!("is managed by {manager}")),
        None => return Some("was not made by this operator".to_owned()),
    }
    let is_same = |name: &str| label(live, name) == label(desired, name);
    if is_same(PLATFORM_LABEL) && is_same(NAMESPACE_LABEL) {
        return None;
    }
    let of = |name: &str| label(live, name).unwrap_or_else(|| "?".to_owned());
    Some(format!(
        "belongs to the platform {}/{}",
        of(NAMESPACE_LABEL),
        of(PLATFORM_LABEL)
    ))
}

fn controller(object: &Value) -> Option<&Value> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(manager: &str, platform: &str, owner: Option<&str>) -> Value {
        let owners: Vec<_> = owner
            .iter()
            .map(|uid| json!({"uid": uid, "controller": true, "kind": "TodoPlatform", "name": "todo"}))
            .collect();
        json!({"metadata": {
            "labels": {MANAGED_BY: manager, PLATFORM_LABEL: platform, NAMESPACE_LABEL: "shop"}, "ownerReferences": owners,
        }})
    }

    #[test]
    fn only_what_is_the_same_platforms_is_ours() {
        let ours = object(MANAGER, "todo", Some("1"));
        assert_eq!(stranger("1", &ours, &ours), None);
        // What was kept comes back, and what was to go is kept.
        let kept = object(MANAGER, "todo", None);
        assert_eq!(stranger("1", &ours, &kept), None);
        assert_eq!(stranger("1", &kept, &ours), None);
        for (live, owner) in [
            (object("Helm", "todo", None), "is managed by Helm"),
            (object(MANAGER, "other", None), "belongs to the platform shop/other"),
            (object("Helm", "todo", Some("2")), "belongs to TodoPlatform todo"),
            (
                object(MANAGER, "todo", Some("2")),
                "belongs to TodoPlatform todo as it was before, or to another, and goes with that",
            ),
            (json!({"metadata": {}}), "was not made by this operator"),
        ] {
            assert_eq!(stranger("1", &ours, &live).as_deref(), Some(owner));
        }
        // What outlives a platform is nobody else's either.
        assert!(stranger("2", &kept, &ours).is_some());
    }
}
