//! The bus over a sidecar whose broker fails in every way that it can.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use todo_dapr::{BusSettings, Client, DaprBus, Error};
use todo_events::backoff::Backoff;
use todo_events::{Bus, BusError, CloudEvent, Event, EventType};
use uuid::Uuid;

use crate::events::{event, history};
use crate::sidecar::{Asked, Reply, Sidecar, client_at, nowhere};

const TASK_EVENTS: &str = "/v1.0-alpha1/publish/bulk/pubsub/task-events";

fn bus(client: Client) -> DaprBus {
    let impatient = BusSettings {
        attempts: 3,
        backoff: Backoff {
            first: std::time::Duration::from_micros(10),
            max: std::time::Duration::from_micros(10),
        },
        ..BusSettings::of("pubsub")
    };
    DaprBus::new(client, impatient)
}

fn cause(error: BusError) -> Error {
    match error {
        BusError::Unavailable(cause) => *cause.downcast().unwrap(),
        BusError::Stopped => panic!("nobody stopped it"),
    }
}

/// What the broker does with one request.
#[derive(Debug, Clone)]
enum Fault {
    /// It takes nothing, and the sidecar says no more than that.
    Away,
    /// It takes everything, and the sidecar says that it took nothing.
    AnswerLost,
    /// It refuses some users' entries, from this one of theirs on: a partition whose leader went away.
    From(HashMap<String, usize>),
    /// It refuses just these entries.
    Just(Vec<bool>),
}

/// A broker of one topic: the entries that it took, in its order.
#[derive(Default)]
struct Broker {
    log: Vec<(String, Value)>,
    faults: Vec<Fault>,
}

impl Broker {
    fn take(&mut self, asked: &Asked) -> Reply {
        let entries = asked.json();
        let fault = self.faults.pop();
        let mut failed = vec![];
        let mut places: HashMap<String, usize> = HashMap::new();
        for (place, entry) in entries.as_array().unwrap().iter().enumerate() {
            let user = entry["metadata"]["partitionKey"].as_str().unwrap().to_owned();
            let place_of_user = places.entry(user.clone()).or_default();
            let refused = match &fault {
                None | Some(Fault::AnswerLost) => false,
                Some(Fault::Away) => true,
                Some(Fault::From(users)) => users.get(&user).is_some_and(|from| *place_of_user >= *from),
                Some(Fault::Just(places)) => places.get(place).copied().unwrap_or(false),
            };
            *place_of_user += 1;
            if refused {
                failed.push(json!({"entryId": entry["entryId"], "error": "kafka: not the leader"}));
            } else {
                self.log.push((user, entry["event"].clone()));
            }
        }
        match fault {
            Some(Fault::Away | Fault::AnswerLost) => Reply::error(500, "ERR_PUBSUB_PUBLISH_MESSAGE", "broker is away"),
            _ if failed.is_empty() => Reply::empty(204),
            _ => {
                let body = json!({"failedEntries": failed, "errorCode": "ERR_PUBSUB_PUBLISH_MESSAGE"});
                Reply::text(500, &body.to_string())
            }
        }
    }
}

/// Publishes the batches one after the other, each until the bus takes it, as the relay does; returns what
/// the broker then has of the topic `task-events`.
async fn relayed(batches: &[&[Event]], faults: Vec<Fault>) -> Vec<(String, Value)> {
    let broker = Arc::new(Mutex::new(Broker { log: vec![], faults }));
    let taking = Arc::clone(&broker);
    let sidecar = Sidecar::deciding(move |asked| {
        if asked.target == TASK_EVENTS {
            taking.lock().unwrap().take(asked)
        } else {
            Reply::empty(204)
        }
    })
    .await;
    let bus = bus(sidecar.client());
    for batch in batches {
        while bus.publish(batch).await.is_err() {}
    }
    std::mem::take(&mut broker.lock().unwrap().log)
}

/// For each user the ids in the order of their first occurrences.
fn ids_by_user(log: impl Iterator<Item = (String, Value)>) -> HashMap<String, Vec<String>> {
    let mut seen = HashSet::new();
    let mut ids: HashMap<String, Vec<String>> = HashMap::new();
    for (user, event) in log {
        let id = event["id"].as_str().unwrap().to_owned();
        if seen.insert(id.clone()) {
            ids.entry(user).or_default().push(id);
        }
    }
    ids
}

fn written(events: &[Event]) -> HashMap<String, Vec<String>> {
    ids_by_user(
        events
            .iter()
            .map(|event| (event.user_id.clone(), json!({"id": event.id.to_string()}))),
    )
}

const USERS: [&str; 3] = ["ada", "bob", "eve"];

fn events() -> impl Strategy<Value = Vec<Event>> {
    vec(0..USERS.len(), 1..30).prop_map(|users| {
        let task = Uuid::now_v7();
        (1..)
            .zip(users)
            .map(|(version, user)| event(USERS[user], task, version))
            .collect()
    })
}

fn partition_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        1 => Just(Fault::Away),
        1 => Just(Fault::AnswerLost),
        4 => vec((0..USERS.len(), 0_usize..4), 1..3).prop_map(|users| {
            Fault::From(users.into_iter().map(|(user, from)| (USERS[user].to_owned(), from)).collect())
        }),
    ]
}

/// Runs a check of a broker's log on generated events in two batches, and faults.
fn check(faults: impl Strategy<Value = Fault>, check: impl Fn(&[Event], Vec<(String, Value)>)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut runner = TestRunner::new(Config {
        cases: 100,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(
            &(events(), any::<Index>(), vec(faults, 0..12)),
            |(events, cut, faults)| {
                let (first, second) = events.split_at(cut.index(events.len() + 1));
                let log = runtime.block_on(relayed(&[first, second], faults));
                check(&events, log);
                Ok(())
            },
        )
        .unwrap();
}

#[test]
fn a_users_events_keep_their_order_through_failures_of_partitions() {
    check(partition_fault(), |events, log| {
        // A consumer applies an event when it sees it first.
        assert_eq!(ids_by_user(log.into_iter()), written(events));
    });
}

#[test]
fn nothing_is_sent_again_without_what_followed_it_whatever_the_broker_refuses() {
    let faults = prop_oneof![
        1 => partition_fault(),
        2 => vec(any::<bool>(), 1..30).prop_map(Fault::Just),
    ];
    check(faults, |events, log| {
        // Read from its end, the log has each event's last occurrence first.
        let mut last = ids_by_user(log.into_iter().rev());
        for ids in last.values_mut() {
            ids.reverse();
        }
        assert_eq!(last, written(events));
    });
}

#[test]
fn an_event_is_the_same_each_time_that_it_is_sent() {
    check(vec(any::<bool>(), 1..30).prop_map(Fault::Just), |events, log| {
        let sent: HashMap<_, _> = events
            .iter()
            .map(|event| {
                let cloud = serde_json::to_value(CloudEvent::from(event)).unwrap();
                (event.id.to_string(), cloud)
            })
            .collect();
        for (_, taken) in log {
            assert_eq!(taken, sent[taken["id"].as_str().unwrap()]);
        }
    });
}

#[tokio::test]
async fn a_batch_is_one_request_for_each_topic() {
    let sidecar = Sidecar::answering([Reply::empty(204)]).await;
    let mut batch = history(&["ada", "bob"], 2);
    batch.push(Event {
        event_type: EventType::Reminder,
        ..event("ada", batch[0].subject, 3)
    });
    bus(sidecar.client()).publish(&batch).await.unwrap();

    let entries: HashMap<_, _> = sidecar
        .asked()
        .iter()
        .map(|asked| {
            let topic = asked.target.strip_prefix("/v1.0-alpha1/publish/bulk/pubsub/").unwrap();
            (topic.to_owned(), asked.json().as_array().unwrap().len())
        })
        .collect();
    let expected = [("task-events", 5), ("task-updates", 4), ("reminders", 1)];
    assert_eq!(
        entries,
        expected.map(|(topic, events)| (topic.to_owned(), events)).into()
    );
    assert_eq!(sidecar.asked().len(), 3);
}

#[tokio::test]
async fn an_event_travels_as_a_whole_cloud_event_keyed_by_its_user() {
    let sidecar = Sidecar::answering([Reply::empty(204)]).await;
    let event = event("ada", Uuid::now_v7(), 1);
    bus(sidecar.client())
        .publish(std::slice::from_ref(&event))
        .await
        .unwrap();
    assert_eq!(
        sidecar.asked()[0].json(),
        json!([{
            "entryId": event.id,
            "event": serde_json::to_value(CloudEvent::from(&event)).unwrap(),
            "contentType": "application/cloudevents+json",
            "metadata": {"partitionKey": "ada"},
        }])
    );
}

#[tokio::test]
async fn a_batch_too_large_for_the_sidecar_is_sent_in_parts_and_in_order() {
    let sidecar = Sidecar::answering([Reply::empty(204)]).await;
    let mut batch = history(&["ada"], 20);
    for event in &mut batch {
        event.data = json!({"description": "x".repeat(10_000)});
    }
    let settings = BusSettings {
        max_request_bytes: 60_000,
        ..BusSettings::of("pubsub")
    };
    DaprBus::new(sidecar.client(), settings).publish(&batch).await.unwrap();

    let requests: Vec<_> = sidecar
        .asked()
        .into_iter()
        .filter(|asked| asked.target == TASK_EVENTS)
        .collect();
    assert!(requests.len() > 1);
    assert!(requests.iter().all(|asked| asked.body.len() <= 60_000));
    let ids: Vec<_> = requests
        .iter()
        .flat_map(|asked| asked.json().as_array().unwrap().clone())
        .map(|entry| entry["entryId"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, batch.iter().map(|event| event.id.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_relay_hears_that_the_sidecar_is_away() {
    let bus = bus(client_at(nowhere().await));
    let error = cause(bus.publish(&history(&["ada"], 1)).await.unwrap_err());
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn a_broker_that_keeps_refusing_does_not_hold_the_relay_for_ever() {
    let sidecar = Sidecar::deciding(|asked| {
        let failed = json!([{"entryId": asked.json()[0]["entryId"], "error": "message too large"}]);
        let body = json!({"failedEntries": failed, "errorCode": "ERR_PUBSUB_PUBLISH_MESSAGE"});
        Reply::text(500, &body.to_string())
    })
    .await;
    let error = cause(bus(sidecar.client()).publish(&history(&["ada"], 2)).await.unwrap_err());
    assert!(matches!(error, Error::NotPublished { events: 1, .. }), "{error}");
    assert!(error.to_string().contains("message too large"), "{error}");
    assert_eq!(sidecar.asked().len(), 6, "three times for each of two topics");
}

#[tokio::test]
async fn nothing_to_publish_is_no_request() {
    let sidecar = Sidecar::answering([Reply::empty(500)]).await;
    bus(sidecar.client()).publish(&[]).await.unwrap();
    assert!(sidecar.asked().is_empty());
}
