//! Dapr's subscriptions: which consumer takes which topic, on which route, and where goes what is no event.

use serde_json::json;

use crate::child::{Child, Kind};
use crate::platform::build::draft::{CONSUMED_TOPIC, Draft};
use crate::platform::build::kafka;

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    // Without the component, a subscription is a mistake in the sidecar's eyes.
    if kafka::brokers(draft).is_none() {
        return vec![];
    }
    let names = &draft.names;
    draft
        .consumers()
        .map(|(consumer, app)| {
            let object = draft.object(Kind::Subscription, names.subscription(consumer, CONSUMED_TOPIC));
            object.component(consumer.as_str()).content(&json!({
                "spec": {
                    "pubsubname": names.pubsub(),
                    "topic": names.topic(CONSUMED_TOPIC),
                    "routes": {"default": format!("/events/{CONSUMED_TOPIC}")},
                    // As it is on the broker: the sidecar would put a random id in the place of ours.
                    "metadata": {"rawPayload": "true"},
                    "deadLetterTopic": names.dead_letters(consumer),
                    "bulkSubscribe": {"enabled": true, "maxMessagesCount": 500, "maxAwaitDurationMs": 10},
                },
                "scopes": [app],
            }))
        })
        .collect()
}
