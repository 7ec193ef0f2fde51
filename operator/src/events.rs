//! What happens to a platform or a schedule, told as Kubernetes events (`kubectl describe`, `kubectl events`).
//!
//! Here: a recorder that takes one event per transition and sends it on the side: no pass waits for it, and none fails
//! when events cannot be written. Not here: which transitions there are. The text is the caller's, and holds no secrets.
//!
//! Events yield to the work: a few are sent at once, and many at the rate of [`PER_SECOND`]. Each says itself when it was.
//!
//! An event's name is made of what it tells, so the API server itself refuses to take the same one twice, also from an
//! operator that was started anew.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::apply;
use crate::error::{Call, Class};
use crate::names::MANAGER;

/// The longest text that the API server takes, in bytes.
const LONGEST_NOTE: usize = 1_024;
/// How many events wait to be sent. Beyond that they are lost, and counted.
const WAITING: usize = 4_096;
/// How many are sent at once.
const AT_ONCE: u32 = 25;
/// How many are sent in a second, when there are more.
const PER_SECOND: u32 = 10;
/// How many events are remembered as told.
const REMEMBERED: usize = 4_096;
/// How long sending one may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether someone should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It is as it should be.
    Normal,
    /// It is not.
    Warning,
}

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Whether someone should look.
    pub severity: Severity,
    /// Why, in one word: `DatabaseReady`.
    pub reason: &'static str,
    /// What the operator did about it, in one word: `Migrate`.
    pub action: &'static str,
    /// What happened, and what to do. Cut after 1,024 bytes.
    pub note: String,
    /// When it began to be so, where that is kept (a condition's `lastTransitionTime`): the same may happen again
    /// later, and is then told again. Without it, it is told once.
    pub since: Option<Timestamp>,
}

/// Takes events. Clones share what was told.
#[derive(Clone, Debug)]
pub struct Recorder {
    sender: mpsc::Sender<Event>,
    told: Arc<Mutex<Told>>,
    instance: Arc<str>,
}

#[derive(Debug, Default)]
struct Told {
    names: HashSet<String>,
    order: VecDeque<String>,
}

impl Told {
    /// Whether it is new. It is not from now on.
    fn note(&mut self, name: &str) -> bool {
        if !self.names.insert(name.to_owned()) {
            return false;
        }
        self.order.push_back(name.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
        true
    }
}

/// Sends what a [`Recorder`] has taken.
#[derive(Debug)]
pub struct Sender {
    receiver: mpsc::Receiver<Event>,
}

/// A recorder, and what sends its events. `instance` is the pod's name.
pub fn recorder(instance: &str) -> (Recorder, Sender) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let recorder = Recorder {
        sender,
        told: Arc::default(),
        instance: cut(instance, 128).into(),
    };
    (recorder, Sender { receiver })
}

impl Recorder {
    /// Tells that something happened to `object`, which has a UID, unless it was told before. Does not wait.
    pub fn record(&self, object: &ObjectReference, happening: &Happening) {
        let event = event(object, happening, &self.instance, Timestamp::now());
        let name = event.metadata.name.clone().unwrap_or_default();
        let is_new = self.told.lock().unwrap_or_else(PoisonError::into_inner).note(&name);
        if is_new && self.sender.try_send(event).is_err() {
            lost(1);
        }
    }
}

impl Sender {
    /// Sends until `stop`, and then what is left, as far as that is quickly done.
    pub async fn run(mut self, client: Client, stop: CancellationToken) {
        let mut pace = Pace::new(Instant::now());
        while let Some(Some(event)) = stop.run_until_cancelled(self.receiver.recv()).await {
            send(&client, event).await;
            let wait = tokio::time::sleep(pace.wait(Instant::now()));
            if stop.run_until_cancelled(wait).await.is_none() {
                break;
            }
        }
        let rest = async {
            while let Ok(event) = self.receiver.try_recv() {
                send(&client, event).await;
            }
        };
        // What is lost here is a line in a list that is gone in an hour.
        let _ = tokio::time::timeout(Duration::from_secs(2), rest).await;
        lost(self.receiver.len());
    }
}

/// When the next may be sent.
struct Pace {
    /// How many might be sent now.
    room: f64,
    at: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            room: f64::from(AT_ONCE),
            at: now,
        }
    }

    /// One was sent: how long to wait until there is room for another.
    fn wait(&mut self, now: Instant) -> Duration {
        let refilled = (now - self.at).as_secs_f64() * f64::from(PER_SECOND);
        self.room = (self.room + refilled).min(f64::from(AT_ONCE)) - 1.0;
        self.at = now;
        Duration::from_secs_f64((1.0 - self.room).max(0.0) / f64::from(PER_SECOND))
    }
}

fn lost(events: usize) {
    metrics::counter!("todo_operator_events_lost_total").increment(events as u64);
}

async fn send(client: &Client, event: Event) {
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let call = || Call::new("create", "events.events.k8s.io", &namespace, "");
    let parameters = PostParams::default();
    let error = match tokio::time::timeout(PATIENCE, api.create(&parameters, &event)).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => call().failed(error),
        Err(_) => call().timed_out(PATIENCE),
    };
    // It was told before, or its namespace is going.
    if error.class() != Class::Conflict {
        lost(1);
        tracing::debug!(%error, "an event was lost");
    }
}

fn event(object: &ObjectReference, happening: &Happening, instance: &str, now: Timestamp) -> Event {
    let identity = json!([
        object.uid,
        happening.reason,
        happening.note,
        happening.since.map(|since| since.to_string())
    ]);
    // A name is 253 bytes at most, and an object's own name has a dot and 32 digits behind it here.
    let name = object.name.as_deref().unwrap_or(MANAGER);
    let name = format!(
        "{}.{}",
        cut(name, 200).trim_end_matches(['.', '-']),
        apply::hash(&identity)
    );
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(object.namespace.clone().unwrap_or_else(|| "default".to_owned())),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(match happening.severity {
            Severity::Normal => "Normal".to_owned(),
            Severity::Warning => "Warning".to_owned(),
        }),
        reason: Some(cut(happening.reason, 128).to_owned()),
        action: Some(cut(happening.action, 128).to_owned()),
        note: Some(shortened(&happening.note)),
        regarding: Some(object.clone()),
        reporting_controller: Some(format!("{}/{MANAGER}", todo_crds::GROUP)),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}

fn shortened(note: &str) -> String {
    if note.len() <= LONGEST_NOTE {
        return note.to_owned();
    }
    format!("{}…", cut(note, LONGEST_NOTE - '…'.len_utf8()))
}

/// Says what is measured here.
pub(crate) fn describe_metrics() {
    metrics::describe_counter!(
        "todo_operator_events_lost_total",
        "Kubernetes events that could not be written."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(uid: &str) -> ObjectReference {
        ObjectReference {
            name: Some("todo".into()),
            namespace: Some("shop".into()),
            uid: Some(uid.into()),
            ..ObjectReference::default()
        }
    }

    fn ready(note: &str, since: Option<i64>) -> Happening {
        Happening {
            severity: Severity::Normal,
            reason: "Ready",
            action: "Reconcile",
            note: note.into(),
            since: since.map(|second| Timestamp::from_second(second).unwrap()),
        }
    }

    fn taken(sender: &mut Sender) -> usize {
        std::iter::from_fn(|| sender.receiver.try_recv().ok()).count()
    }

    #[test]
    fn each_transition_is_told_once() {
        let (recorder, mut sender) = recorder("pod-0");
        for _ in 0..3 {
            recorder.record(&object("1"), &ready("all is well", None));
        }
        assert_eq!(taken(&mut sender), 1);
        recorder.record(&object("2"), &ready("all is well", None));
        recorder.record(&object("1"), &ready("all is better", None));
        recorder.record(&object("1"), &ready("all is well", Some(1)));
        recorder.record(&object("1"), &ready("all is well", Some(2)));
        recorder.record(&object("1"), &ready("all is well", Some(2)));
        assert_eq!(taken(&mut sender), 4);
    }

    #[test]
    fn the_same_event_has_the_same_name_whoever_tells_it_and_when() {
        let happening = ready("all is well", None);
        let one = event(&object("1"), &happening, "a", Timestamp::UNIX_EPOCH);
        let other = event(&object("1"), &happening, "b", Timestamp::MAX);
        assert_eq!(one.metadata.name, other.metadata.name);
    }

    #[test]
    fn a_long_text_is_cut_to_what_the_api_server_takes() {
        let told = event(
            &object("1"),
            &ready(&"ü".repeat(2_000), None),
            "a",
            Timestamp::UNIX_EPOCH,
        );
        let note = told.note.unwrap();
        assert!(note.len() <= LONGEST_NOTE && note.ends_with('…'));
        let mut named = object("1");
        named.name = Some(format!("{}.{}", "a".repeat(199), "b".repeat(50)));
        let name = event(&named, &ready("", None), "a", Timestamp::UNIX_EPOCH)
            .metadata
            .name
            .unwrap();
        assert!(name.len() <= 253 && !name.contains(".."), "{name}");
    }

    #[test]
    fn what_cannot_wait_any_more_is_dropped_and_no_one_is_held_up() {
        let (recorder, mut sender) = recorder("pod-0");
        for at in 0..2 * WAITING {
            recorder.record(&object(&at.to_string()), &ready("", None));
        }
        assert_eq!(taken(&mut sender), WAITING);
    }

    #[test]
    fn a_few_are_sent_at_once_and_many_one_after_the_other() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut took = |events: u32, now: &mut Instant| {
            let began = *now;
            for _ in 0..events {
                *now += pace.wait(*now);
            }
            (*now - began).as_secs_f64()
        };
        assert!(took(AT_ONCE - 1, &mut now) < 0.001);
        let many = took(10 * PER_SECOND, &mut now);
        assert!((9.9..10.1).contains(&many), "{many}");
        now += Duration::from_hours(1);
        assert!(took(AT_ONCE - 1, &mut now) < 0.001, "after a rest");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut told = Told::default();
        for at in 0..2 * REMEMBERED {
            assert!(told.note(&at.to_string()));
        }
        assert_eq!((told.names.len(), told.order.len()), (REMEMBERED, REMEMBERED));
    }
}
