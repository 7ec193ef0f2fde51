//! What the sidecar answers when a broker takes some of a bulk, or nothing.

use serde_json::{Value, json};
use todo_dapr::client::Message;
use todo_dapr::{BusSettings, DaprBus};
use todo_events::{Bus as _, Event};

use crate::app::until;
use crate::broker::{Broker, entry, event, ids, statuses};
use crate::resources::Delivery::{Bulk, Single};
use crate::stack::Kafka;

async fn broker() -> Broker {
    Broker::new(Bulk, true, |called| statuses(called, |_| "SUCCESS")).await
}

/// An event of about this size.
fn large(bytes: usize) -> Event {
    Event {
        data: json!({"description": "x".repeat(bytes)}),
        ..event("ada")
    }
}

#[tokio::test]
async fn what_a_broker_refuses_is_named_and_the_rest_is_published() {
    let broker = broker().await;
    let events = [event("ada"), large(1_100_000), event("bob"), large(990_000)];
    let failed = broker
        .try_publish(&broker.topic, events.iter().map(entry).collect())
        .await
        .unwrap();
    let failed: Vec<_> = failed.iter().map(|entry| entry.id.clone()).collect();
    assert_eq!(failed, [events[1].id.to_string()]);
    broker.until(3).await;
    let mut came = broker.ids().concat();
    came.sort();
    let mut expected = [0, 2, 3].map(|place: usize| events[place].id.to_string());
    expected.sort();
    assert_eq!(came, expected);
}

#[tokio::test]
async fn a_topic_that_cannot_be_is_a_refusal_of_each_entry() {
    let broker = broker().await;
    let entries = [event("ada"), event("bob")].iter().map(entry).collect();
    let result = broker.try_publish("no such topic!", entries).await;
    assert_eq!(result.unwrap().len(), 2);
}

#[tokio::test]
async fn a_request_larger_than_the_sidecar_takes_is_refused() {
    let broker = broker().await;
    let events: Vec<_> = (0..5).map(|_| large(900_000)).collect();
    let result = broker
        .try_publish(&broker.topic, events.iter().map(entry).collect())
        .await;
    let error = result.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
}

#[tokio::test]
async fn one_users_events_are_in_one_partition_in_their_order() {
    let broker = broker().await;
    let events: Vec<_> = (0..40).map(|place| event(&format!("user {}", place % 8))).collect();
    broker.publish(&events).await;
    broker.until(40).await;
    let entries: Vec<Value> = broker
        .called()
        .iter()
        .flat_map(|called| called.body["entries"].as_array().unwrap().clone())
        .collect();
    for user in 0..8 {
        let user = format!("user {user}");
        let of_user: Vec<_> = entries
            .iter()
            .filter(|entry| entry["event"]["partitionkey"] == user)
            .collect();
        let mut partitions: Vec<_> = of_user
            .iter()
            .map(|entry| entry["metadata"]["__partition"].clone())
            .collect();
        partitions.dedup();
        assert_eq!(partitions.len(), 1, "{user}");
        let came: Vec<_> = of_user.iter().map(|entry| ids(&entry["event"])[0].clone()).collect();
        let published: Vec<_> = events
            .iter()
            .filter(|event| event.user_id == user)
            .map(|event| event.id.to_string())
            .collect();
        assert_eq!(came, published);
    }
}

#[tokio::test]
async fn a_single_message_keeps_its_envelope_too() {
    let broker = Broker::new(Single, true, |called| statuses(called, |_| "SUCCESS")).await;
    let letter = json!({
        "specversion": "1.0", "id": "letter-1", "source": "/here", "type": "dev.todoplatform.undeliverable.v1",
        "datacontenttype": "application/json", "data": {"reason": "none"},
    });
    let message = Message {
        content_type: "application/cloudevents+json",
        body: letter.to_string().into(),
        metadata: [("partitionKey".to_owned(), "ada & co".to_owned())].into(),
    };
    broker
        .daprd
        .client
        .publish("pubsub", &broker.topic, &message)
        .await
        .unwrap();
    broker.until(1).await;
    let came = broker.called()[0].clone();
    for (name, value) in letter.as_object().unwrap() {
        assert_eq!(&came.body[name], value, "{name}");
    }
    assert_eq!(came.header("__key"), Some("ada & co"));
}

#[tokio::test]
async fn kafka_may_go_and_come_back_and_no_sidecar_has_to_be_started_again() {
    let kafka = Kafka::new();
    let running = kafka.start().await;
    let broker = Broker::at(&kafka.address, Bulk, true, |called| statuses(called, |_| "SUCCESS")).await;
    let bus = DaprBus::new(broker.daprd.client.clone(), BusSettings::of("pubsub"));
    let [before, during] = [event("ada"), event("ada")];
    bus.publish(std::slice::from_ref(&before)).await.unwrap();
    broker.publish(std::slice::from_ref(&before)).await;
    broker.until(1).await;

    drop(running);
    let error = bus.publish(std::slice::from_ref(&during)).await.unwrap_err();
    assert!(error.to_string().contains(&during.id.to_string()), "{error}");
    // All failed, and still an answer that names each.
    let failed = broker.try_publish(&broker.topic, vec![entry(&during)]).await.unwrap();
    assert_eq!(failed.len(), 1);

    let _running = kafka.start().await;
    until("publishing", async || {
        bus.publish(std::slice::from_ref(&during)).await.is_ok()
    })
    .await;
    broker.publish(std::slice::from_ref(&during)).await;
    until("delivery", async || {
        broker.ids().concat().contains(&during.id.to_string())
    })
    .await;
    assert!(broker.dead().is_empty());
}
