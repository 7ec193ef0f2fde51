//! What the sidecar delivers, and what follows from each answer.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use todo_events::{CloudEvent, Event};

use crate::app::Called;
use crate::broker::{Broker, event, ids, statuses};
use crate::resources::Delivery::{Bulk, Single};

/// Long enough for what must not happen.
const QUIET: Duration = Duration::from_millis(1500);

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

/// What comes out of the sidecar when this event went in.
fn delivered(event: &Event, topic: &str) -> Value {
    let mut wire = serde_json::to_value(CloudEvent::from(event)).unwrap();
    wire["topic"] = json!(topic);
    wire["pubsubname"] = json!("pubsub");
    wire["tracestate"] = json!("");
    wire["traceid"] = json!(event.traceparent.as_deref().unwrap_or(""));
    wire
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
            assert_eq!(body, delivered(event, &broker.topic));
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
async fn a_drop_after_a_retry_of_the_same_bulk() {
    let events = [event("ada"), event("ada"), event("ada")];
    let (second, third) = (id(&events[1]), id(&events[2]));
    let calls = Mutex::new(0);
    let broker = Broker::new(Bulk, true, move |called| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        let calls = *calls;
        statuses(called, |id| match (calls, id) {
            (1, id) if id == second || id == third => "RETRY",
            (_, id) if id == third => "DROP",
            _ => "SUCCESS",
        })
    })
    .await;
    broker.publish(&events).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    println!("{:?} {:?}", broker.ids(), dead_ids(&broker));
    println!(
        "{:?}",
        broker
            .daprd
            .said()
            .lines()
            .filter(|line| line.contains("panic") || line.contains("error"))
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn what_is_no_json_object_goes_to_the_dead_letters_as_it_came_and_blocks_nothing() {
    let events = [event("ada"), event("ada")];
    for delivery in [Single, Bulk] {
        let broker = Broker::new(delivery, true, success).await;
        broker.publish(&events[..1]).await;
        broker.publish_raw(b"not json").await;
        broker.publish_raw(b"[\"no\", \"object\"]").await;
        broker.publish(&events[1..]).await;
        broker.until(2).await;
        tokio::time::sleep(QUIET).await;
        println!("{delivery:?} {:?} {:?}", broker.ids(), broker.dead());
        assert_eq!(broker.ids().concat(), [id(&events[0]), id(&events[1])]);
    }
}

#[tokio::test]
async fn a_status_of_404_loses_messages_and_500_does_not() {
    for (status, comes_again) in [(404, false), (500, true), (413, true)] {
        for delivery in [Single, Bulk] {
            let broker = Broker::new(delivery, true, move |_| (status, Value::Null)).await;
            broker.publish(&[event("ada")]).await;
            broker.until(if comes_again { 3 } else { 1 }).await;
            tokio::time::sleep(QUIET).await;
            assert_eq!(broker.ids().len() > 1, comes_again, "{status} {delivery:?}");
            println!("{status} {delivery:?} {:?}", dead_ids(&broker));
        }
    }
}
