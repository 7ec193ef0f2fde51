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
use crate::sidecar::{Reply, Sidecar, client_at, nowhere};

const TASK_EVENTS: &str = "/v1.0-alpha1/publish/bulk/pubsub/task-events?metadata.rawPayload=true";

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
    /// It refuses these entries, and takes these of them nevertheless.
    Some(Vec<(bool, bool)>),
}

/// A broker of one topic.
#[derive(Default)]
struct Broker {
    /// The events that it took, in its order.
    log: Vec<Value>,
    /// The ids of those that the sidecar said it took.
    acknowledged: HashSet<String>,
    faults: Vec<Fault>,
}

/// The event of an entry: the text of a CloudEvent.
fn published(entry: &Value) -> Value {
    serde_json::from_str(entry["event"].as_str().unwrap()).unwrap()
}

fn id(event: &Value) -> String {
    event["id"].as_str().unwrap().to_owned()
}

impl Broker {
    fn take(&mut self, entries: &[Value]) -> Reply {
        let fault = self.faults.pop();
        let mut failed = vec![];
        for (place, entry) in entries.iter().enumerate() {
            let (refused, taken) = match &fault {
                None => (false, true),
                Some(Fault::Away) => (true, false),
                Some(Fault::AnswerLost) => (true, true),
                Some(Fault::Some(places)) => match places.get(place) {
                    Some((true, taken)) => (true, *taken),
                    _ => (false, true),
                },
            };
            if taken {
                self.log.push(published(entry));
            }
            if refused {
                failed.push(json!({"entryId": entry["entryId"], "error": "kafka: not the leader"}));
            } else {
                self.acknowledged.insert(id(&published(entry)));
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

/// What a test saw of the topic `task-events`.
struct Seen {
    /// The events that the broker took, in its order.
    log: Vec<Value>,
    /// The ids of each request, and the ids that had been acknowledged before it.
    requests: Vec<(Vec<String>, HashSet<String>)>,
}

/// Publishes the batches one after the other, each until the bus takes it, as the relay does.
async fn relayed(batches: &[&[Event]], faults: Vec<Fault>) -> Seen {
    let broker = Arc::new(Mutex::new(Broker {
        faults,
        ..Broker::default()
    }));
    let requests: Arc<Mutex<Vec<_>>> = Arc::default();
    let (taking, noting) = (Arc::clone(&broker), Arc::clone(&requests));
    let sidecar = Sidecar::deciding(move |asked| {
        if asked.target != TASK_EVENTS {
            return Reply::empty(204);
        }
        let entries = asked.json().as_array().unwrap().clone();
        let mut broker = taking.lock().unwrap();
        let ids: Vec<_> = entries.iter().map(|entry| id(&published(entry))).collect();
        noting.lock().unwrap().push((ids, broker.acknowledged.clone()));
        broker.take(&entries)
    })
    .await;
    let bus = bus(sidecar.client());
    for batch in batches {
        while bus.publish(batch).await.is_err() {}
    }
    Seen {
        log: std::mem::take(&mut broker.lock().unwrap().log),
        requests: std::mem::take(&mut requests.lock().unwrap()),
    }
}

/// For each task the ids in the order of their first occurrences: a consumer applies an event when it sees it
/// first.
fn applied(log: &[Value]) -> HashMap<String, Vec<String>> {
    let mut seen = HashSet::new();
    let mut ids: HashMap<String, Vec<String>> = HashMap::new();
    for event in log {
        if seen.insert(id(event)) {
            ids.entry(event["subject"].as_str().unwrap().to_owned())
                .or_default()
                .push(id(event));
        }
    }
    ids
}

fn written(events: &[Event]) -> HashMap<String, Vec<String>> {
    applied(&events.iter().map(wire).collect::<Vec<_>>())
}

fn wire(event: &Event) -> Value {
    serde_json::to_value(CloudEvent::from(event)).unwrap()
}

/// Histories of some tasks of two users, mixed.
fn events() -> impl Strategy<Value = Vec<Event>> {
    vec(0..5_usize, 1..30).prop_map(|tasks| {
        let mut of_task = [(); 5].map(|()| (Uuid::now_v7(), 0));
        tasks
            .into_iter()
            .map(|task| {
                let (subject, version) = &mut of_task[task];
                *version += 1;
                event(["ada", "bob"][task % 2], *subject, *version)
            })
            .collect()
    })
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        1 => Just(Fault::Away),
        1 => Just(Fault::AnswerLost),
        4 => vec(any::<(bool, bool)>(), 1..30).prop_map(Fault::Some),
    ]
}

/// Runs a check of what a broker saw on generated events in two batches, and faults.
fn check(check: impl Fn(&[Event], Seen)) {
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
            &(events(), any::<Index>(), vec(fault(), 0..12)),
            |(events, cut, faults)| {
                let (first, second) = events.split_at(cut.index(events.len() + 1));
                let seen = runtime.block_on(relayed(&[first, second], faults));
                check(&events, seen);
                Ok(())
            },
        )
        .unwrap();
}

#[test]
fn a_tasks_events_come_once_and_in_order_whatever_the_broker_refuses() {
    check(|events, seen| assert_eq!(applied(&seen.log), written(events)));
}

#[test]
fn an_event_is_never_sent_before_the_one_before_it_was_acknowledged() {
    check(|events, seen| {
        for (sent, acknowledged) in seen.requests {
            for id in sent {
                let place = events.iter().position(|event| event.id.to_string() == id).unwrap();
                let former = events[..place]
                    .iter()
                    .rfind(|event| event.subject == events[place].subject);
                if let Some(former) = former {
                    assert!(acknowledged.contains(&former.id.to_string()));
                }
            }
        }
    });
}

#[test]
fn an_event_is_the_same_each_time_that_it_is_sent() {
    check(|events, seen| {
        let sent: HashMap<_, _> = events.iter().map(|event| (event.id.to_string(), wire(event))).collect();
        for taken in seen.log {
            assert_eq!(taken, sent[&id(&taken)]);
        }
    });
}

/// The ids of each request to `task-events`.
fn requests(sidecar: &Sidecar) -> Vec<Vec<String>> {
    sidecar
        .asked()
        .iter()
        .filter(|asked| asked.target == TASK_EVENTS)
        .map(|asked| {
            let entries = asked.json().as_array().unwrap().clone();
            entries.iter().map(|entry| id(&published(entry))).collect()
        })
        .collect()
}

fn ids(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| event.id.to_string()).collect()
}

#[tokio::test]
async fn a_batch_of_different_tasks_is_one_request_for_each_topic() {
    let sidecar = Sidecar::answering([Reply::empty(204)]).await;
    let mut batch = history(&["ada", "ada", "bob", "bob"], 1);
    batch.push(Event {
        event_type: EventType::Reminder,
        ..event("ada", Uuid::now_v7(), 3)
    });
    bus(sidecar.client()).publish(&batch).await.unwrap();

    let entries: HashMap<_, _> = sidecar
        .asked()
        .iter()
        .map(|asked| {
            let path = asked.target.strip_suffix("?metadata.rawPayload=true").unwrap();
            let topic = path.strip_prefix("/v1.0-alpha1/publish/bulk/pubsub/").unwrap();
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
async fn topics_have_the_platforms_prefix_on_the_broker() {
    let sidecar = Sidecar::answering([Reply::empty(204)]).await;
    let settings = BusSettings {
        topic_prefix: "home-".parse().unwrap(),
        ..BusSettings::of("pubsub")
    };
    let bus = DaprBus::new(sidecar.client(), settings);
    bus.publish(&history(&["ada"], 1)).await.unwrap();
    let mut targets: Vec<_> = sidecar.asked().iter().map(|asked| asked.target.clone()).collect();
    targets.sort();
    let expected = ["home-task-events", "home-task-updates"];
    assert_eq!(
        targets,
        expected.map(|topic| format!("/v1.0-alpha1/publish/bulk/pubsub/{topic}?metadata.rawPayload=true"))
    );
}

#[tokio::test]
async fn what_a_broker_refuses_is_sent_again_alone_and_what_follows_it_waits() {
    let batch = history(&["ada", "bob", "eve"], 2);
    let refused = batch[1].id.to_string();
    let times = Mutex::new(2);
    let sidecar = Sidecar::deciding(move |asked| {
        let mut times = times.lock().unwrap();
        if asked.target != TASK_EVENTS || *times == 0 {
            return Reply::empty(204);
        }
        *times -= 1;
        let failed = json!([{"entryId": refused, "error": "kafka: not the leader"}]);
        let body = json!({"failedEntries": failed, "errorCode": "ERR_PUBSUB_PUBLISH_MESSAGE"});
        Reply::text(500, &body.to_string())
    })
    .await;
    bus(sidecar.client()).publish(&batch).await.unwrap();
    let (first, second) = batch.split_at(3);
    assert_eq!(
        requests(&sidecar),
        [ids(first), ids(&first[1..2]), ids(&first[1..2]), ids(second)]
    );
}

#[tokio::test]
async fn an_event_travels_as_a_whole_cloud_event_keyed_by_its_user() {
    let sidecar = Sidecar::answering([Reply::empty(204)]).await;
    let event = event("ada", Uuid::now_v7(), 1);
    bus(sidecar.client())
        .publish(std::slice::from_ref(&event))
        .await
        .unwrap();
    let sent = sidecar.asked()[0].json();
    assert_eq!(
        sent,
        json!([{
            "entryId": event.id,
            "event": serde_json::to_string(&CloudEvent::from(&event)).unwrap(),
            "contentType": "text/plain",
            "metadata": {"partitionKey": "ada"},
        }])
    );
    assert_eq!(published(&sent[0]), wire(&event));
}

#[tokio::test]
async fn a_batch_too_large_for_the_sidecar_is_sent_in_parts_and_in_order() {
    let sidecar = Sidecar::answering([Reply::empty(204)]).await;
    let mut batch = history(&["ada"; 20], 1);
    for event in &mut batch {
        event.data = json!({"description": "x\"\u{1}".repeat(1_200)});
    }
    let settings = BusSettings {
        max_request_bytes: 60_000,
        ..BusSettings::of("pubsub")
    };
    DaprBus::new(sidecar.client(), settings).publish(&batch).await.unwrap();

    let requests = requests(&sidecar);
    assert!(requests.len() > 1);
    assert!(sidecar.asked().iter().all(|asked| asked.body.len() <= 60_000));
    assert_eq!(requests.concat(), ids(&batch));
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
    let events = history(&["ada"], 2);
    let error = cause(bus(sidecar.client()).publish(&events).await.unwrap_err());
    assert!(matches!(error, Error::NotPublished { events: 1, .. }), "{error}");
    let said = error.to_string();
    assert!(
        said.contains("message too large") && said.contains(&events[0].id.to_string()),
        "{said}"
    );
    assert_eq!(sidecar.asked().len(), 6, "three times for each of two topics");
}

#[tokio::test]
async fn nothing_to_publish_is_no_request() {
    let sidecar = Sidecar::answering([Reply::empty(500)]).await;
    bus(sidecar.client()).publish(&[]).await.unwrap();
    assert!(sidecar.asked().is_empty());
}
