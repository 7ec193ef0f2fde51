//! What the sidecar delivers, and what follows from each answer.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use todo_events::{CloudEvent, Event};

use crate::app::{App, Called, until};
use crate::broker::{Broker, entry, event, ids, options, statuses};
use crate::daprd::unique;
use crate::resources::Delivery::{Bulk, Single};
use crate::resources::{RETRIES, subscription};

/// Long enough for what must not happen.
const QUIET: Duration = Duration::from_millis(800);

/// Long enough for a consumer group to share its partitions out anew.
const MOVING: Duration = Duration::from_millis(1500);

fn success(called: &Called) -> (u16, Value) {
    statuses(called, |_| "SUCCESS")
}

fn id(event: &Event) -> String {
    event.id.to_string()
}

/// The ids of the events among the dead letters.
fn dead_ids(broker: &Broker) -> Vec<String> {
    let id = |letter: &String| ids(&serde_json::from_str(letter).unwrap()).concat();
    broker.dead().iter().map(id).collect()
}

#[tokio::test]
async fn an_event_is_delivered_with_all_that_it_was_published_with() {
    let mut events = [event("ada"), event("zoë & co"), event("ada")];
    events[2].traceparent = None;
    for delivery in [Single, Bulk] {
        let broker = Broker::new(delivery, true, success).await;
        broker.publish(&events).await;
        broker.until(3).await;
        let called = broker.called();
        for event in &events {
            let call = called
                .iter()
                .find(|called| ids(&called.body).contains(&id(event)))
                .unwrap();
            let body = match call.body["entries"].as_array() {
                None => {
                    assert_eq!(call.header("content-type"), Some("application/cloudevents+json"));
                    call.body.clone()
                }
                Some(entries) => {
                    assert_eq!(call.header("content-type"), Some("application/json"));
                    assert_eq!(call.body["type"], "com.dapr.event.sent.bulk");
                    let entry = entries.iter().find(|entry| entry["event"]["id"] == id(event)).unwrap();
                    assert_eq!(entry["contentType"], "application/cloudevents+json");
                    assert_eq!(entry["metadata"]["__key"], event.user_id);
                    entry["event"].clone()
                }
            };
            assert_eq!(body, serde_json::to_value(CloudEvent::from(event)).unwrap());
            assert_eq!(
                Event::try_from(serde_json::from_value::<CloudEvent>(body).unwrap()).unwrap(),
                *event
            );
        }
    }
}

#[tokio::test]
async fn what_is_to_be_retried_comes_again_alone_until_it_is_settled() {
    let events = [event("ada"), event("ada"), event("ada")];
    for delivery in [Single, Bulk] {
        let (stubborn, refusals) = (id(&events[1]), Mutex::new(3));
        let broker = Broker::new(delivery, true, move |called| {
            statuses(called, |id| {
                let mut left = refusals.lock().unwrap();
                if id == stubborn && *left > 0 {
                    *left -= 1;
                    return "RETRY";
                }
                "SUCCESS"
            })
        })
        .await;
        broker.publish(&events).await;
        broker.until(6).await;
        tokio::time::sleep(QUIET).await;
        let [first, second, third] = [0, 1, 2].map(|place| id(&events[place]));
        let came = broker.ids();
        if delivery == Single {
            assert_eq!(came.concat(), [&*first, &second, &second, &second, &second, &third]);
        } else {
            let again = vec![second.clone()];
            assert_eq!(came, [vec![first, second, third], again.clone(), again.clone(), again]);
        }
        assert!(broker.dead().is_empty());
    }
}

#[tokio::test]
async fn without_a_policy_the_first_retry_is_the_end() {
    let events = [event("ada"), event("ada")];
    for delivery in [Single, Bulk] {
        let broker = Broker::new(delivery, false, |called| statuses(called, |_| "RETRY")).await;
        broker.publish(&events).await;
        broker.until_dead(2).await;
        assert_eq!(broker.ids().concat(), [id(&events[0]), id(&events[1])]);
    }
}

#[tokio::test]
async fn what_is_dropped_goes_to_the_dead_letters_and_nothing_else_does() {
    let events = [event("ada"), event("ada"), event("ada")];
    for delivery in [Single, Bulk] {
        let dropped = id(&events[1]);
        let broker = Broker::new(delivery, true, move |called| {
            statuses(called, |id| if id == dropped { "DROP" } else { "SUCCESS" })
        })
        .await;
        broker.publish(&events).await;
        broker.until(3).await;
        broker.until_dead(1).await;
        tokio::time::sleep(QUIET).await;
        assert_eq!(broker.ids().concat().len(), 3);
        assert_eq!(dead_ids(&broker), [id(&events[1])]);
    }
}

#[tokio::test]
async fn what_is_no_json_object_goes_to_the_dead_letters_as_it_came_and_blocks_nothing() {
    let events = [event("ada"), event("ada")];
    let noise: [&[u8]; 3] = [b"not json", b"[\"no\", \"object\"]", b""];
    for delivery in [Single, Bulk] {
        let broker = Broker::new(delivery, true, success).await;
        broker.publish(&events[..1]).await;
        for noise in noise {
            broker.publish_raw(noise).await;
        }
        broker.publish(&events[1..]).await;
        broker.until(2).await;
        broker.until_dead(3).await;
        assert_eq!(broker.ids().concat(), [id(&events[0]), id(&events[1])]);
        let mut dead = broker.dead();
        dead.sort();
        assert_eq!(dead, ["", "[\"no\", \"object\"]", "not json"]);
    }
}

#[tokio::test]
async fn a_status_of_404_loses_a_message_and_no_other_does() {
    for delivery in [Single, Bulk] {
        let answers = Mutex::new(vec![404, 503, 500, 413, 401, 400]);
        let broker = Broker::new(delivery, true, move |_| {
            let status = answers.lock().unwrap().pop().unwrap_or(200);
            (status, Value::Null)
        })
        .await;
        broker.publish(&[event("ada")]).await;
        broker.until(6).await;
        tokio::time::sleep(QUIET).await;
        assert_eq!(broker.ids().len(), 6);
        assert!(broker.dead().is_empty());
    }
}

#[tokio::test]
async fn a_subscription_that_is_declared_and_announced_delivers_once() {
    let topic = format!("t-{}", unique());
    let dead_topic = format!("{topic}-dead");
    let announced = json!([{
        "pubsubname": "pubsub",
        "topic": topic,
        "routes": {"default": "/announced"},
        "deadLetterTopic": dead_topic,
        "bulkSubscribe": {"enabled": true, "maxMessagesCount": 100, "maxAwaitDurationMs": 10},
    }]);
    let app = App::announcing(announced, success).await;
    let daprd = options(&format!("told-{}", unique()))
        .await
        .resource(subscription(&topic, "/declared", Bulk, &dead_topic))
        .resource(RETRIES)
        .app(app.port)
        .start()
        .await;
    let events: Vec<_> = (0..10).map(|_| event("ada")).collect();
    let entries: Vec<_> = events.iter().map(entry).collect();
    assert_eq!(daprd.client.publish_bulk("pubsub", &topic, &entries).await.unwrap(), []);
    let came = || -> Vec<_> { app.called().iter().flat_map(|called| ids(&called.body)).collect() };
    until("ten events", async || came().len() >= 10).await;
    tokio::time::sleep(QUIET).await;
    assert!(app.called().iter().all(|called| called.path == "/announced"));
    assert_eq!(daprd.client.metadata().await.unwrap().subscriptions.len(), 1);
    assert_eq!(came(), events.iter().map(id).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_held_up_while_partitions_move_is_neither_lost_nor_a_dead_letter() {
    for delivery in [Single, Bulk] {
        let away = Arc::new(AtomicBool::new(true));
        let settled: Arc<Mutex<HashSet<String>>> = Arc::default();
        let (is_away, settling) = (Arc::clone(&away), Arc::clone(&settled));
        let broker = Broker::new(delivery, true, move |called| {
            if is_away.load(Ordering::Relaxed) {
                return statuses(called, |_| "RETRY");
            }
            settling.lock().unwrap().extend(ids(&called.body));
            success(called)
        })
        .await;
        let events: Vec<_> = (0..40).map(|place| event(&format!("user {}", place % 8))).collect();
        broker.publish(&events).await;
        broker.until(4).await;
        // The second takes partitions from the first, and for the third both are shared out anew.
        let _second = broker.copy().await;
        tokio::time::sleep(MOVING).await;
        let _third = broker.copy().await;
        tokio::time::sleep(MOVING).await;
        away.store(false, Ordering::Relaxed);
        until("all events", async || settled.lock().unwrap().len() == events.len()).await;
        assert!(broker.dead().is_empty());
    }
}
