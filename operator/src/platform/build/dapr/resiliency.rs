//! Dapr's resiliency: how long each call may take, and what is tried again.
//!
//! What a consumer was given is tried again without end, constantly and without a breaker: `exponential` gives up after
//! a quarter of an hour whatever its `maxRetries` says, an open breaker at once, and what is given up is a dead letter.

use serde_json::{Map, Value, json};

use super::{app_ids, component};
use crate::child::{Child, Kind};
use crate::platform::build::draft::Draft;

pub(super) fn build(draft: &Draft) -> Child {
    let names = &draft.names;
    let mut targets = Map::new();
    if draft.is_spread() {
        // No retry outbound: the relay sends again what failed, and only that, in its order.
        let events = json!({
            "inbound": {"timeout": "delivery", "retry": "until-settled"},
            "outbound": {"timeout": "publish"},
        });
        targets.insert(names.pubsub(), events);
    }
    if component::state_store(draft).is_some() {
        // No retry: the client tries again what is safe to be done twice.
        let state = json!({"outbound": {"timeout": "state", "circuitBreaker": "store"}});
        targets.insert(names.state(), state);
    }
    let object = draft.object(Kind::Resiliency, names.dapr()).component("dapr");
    object.content(&json!({
        "spec": {
            "policies": {
                "timeouts": {
                    // Longer than the 20 s after which a consumer itself asks for another try.
                    "delivery": "30s",
                    // Shorter than the 30 s that the relay waits.
                    "publish": "25s",
                    "state": "3s",
                },
                "retries": {
                    "until-settled": {"policy": "constant", "duration": "2s", "maxRetries": -1},
                },
                "circuitBreakers": {
                    // A write that loses a race for its version counts as a failure, too.
                    "store": {
                        "maxRequests": 1,
                        "interval": "30s",
                        "timeout": "15s",
                        "trip": "consecutiveFailures >= 20",
                    },
                },
            },
            "targets": {"components": Value::from(targets)},
        },
        "scopes": app_ids(draft),
    }))
}
