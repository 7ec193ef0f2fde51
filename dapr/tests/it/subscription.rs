//! The subscription host on real PostgreSQL, called as daprd calls it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use todo_dapr::{BusSettings, DaprBus, Secret, SubscriptionHost, SubscriptionSettings};
use todo_events::backoff::Backoff;
use todo_events::dead_letters::{self, Page, Selector};
use todo_events::host::Retry;
use todo_events::relay::{Pass, Settings};
use todo_events::{BoxFuture, CloudEvent, Consumer, Event, HandleError, NewEvent, Relay, Topic, Waker, outbox};
use todo_test_db::TestDb;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

use crate::events::history;
use crate::sidecar::{Reply, Sidecar};

/// How the recorder meets events.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Well,
    /// It can never apply this event.
    Poisoned(Uuid),
    /// Its server is away.
    Away,
    /// It takes longer over this event than anyone waits.
    SlowOver(Uuid),
}

/// Writes each event into the table `recorded`, in the order in which it comes.
struct Recorder(Mutex<Mood>);

impl Recorder {
    fn is(&self, mood: Mood) {
        *self.0.lock().unwrap() = mood;
    }
}

impl Consumer for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }

    fn topics(&self) -> &'static [Topic] {
        &[Topic::TaskEvents, Topic::Reminders]
    }

    fn handle<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<(), HandleError>> {
        Box::pin(async move {
            for event in events {
                sqlx::query("INSERT INTO recorded (event_id) VALUES ($1)")
                    .bind(event.id)
                    .execute(&mut *transaction)
                    .await?;
            }
            let mood = *self.0.lock().unwrap();
            match mood {
                Mood::Poisoned(poison) if events.iter().any(|event| event.id == poison) => {
                    Err(HandleError::permanent("poison"))
                }
                Mood::Away => Err(HandleError::transient("not now")),
                Mood::SlowOver(slow) if events.iter().any(|event| event.id == slow) => {
                    tokio::time::sleep(Duration::from_mins(1)).await;
                    Ok(())
                }
                Mood::Well | Mood::Poisoned(_) | Mood::SlowOver(_) => Ok(()),
            }
        })
    }
}

struct Host {
    db: TestDb,
    recorder: Arc<Recorder>,
    sidecar: Sidecar,
    stop: CancellationToken,
    router: Router,
}

impl Host {
    async fn new() -> Self {
        Self::with(Reply::empty(204), |_| {}).await
    }

    /// A host beside a sidecar that answers so to what is published.
    async fn with(published: Reply, change: impl FnOnce(&mut SubscriptionSettings)) -> Self {
        let db = TestDb::new().await;
        sqlx::query("CREATE TABLE recorded (place bigserial PRIMARY KEY, event_id uuid)")
            .execute(&db.pool)
            .await
            .unwrap();
        let recorder = Arc::new(Recorder(Mutex::new(Mood::Well)));
        let sidecar = Sidecar::answering([published]).await;
        let stop = CancellationToken::new();
        let retry = Retry {
            backoff: Backoff {
                first: Duration::from_millis(1),
                max: Duration::from_millis(5),
            },
            ..Retry::until(stop.clone())
        };
        let mut settings = SubscriptionSettings::of("pubsub");
        change(&mut settings);
        let consumer = Arc::clone(&recorder) as Arc<dyn Consumer>;
        let host = SubscriptionHost::new(db.pool.clone(), consumer, retry, sidecar.client(), settings);
        Self {
            router: host.router(),
            db,
            recorder,
            sidecar,
            stop,
        }
    }

    async fn call(&self, request: Request<Body>) -> (StatusCode, Value) {
        call(&self.router, request).await
    }

    async fn deliver(&self, body: &Value) -> Value {
        let (status, answer) = self.call(delivery("/events/task-events", body)).await;
        assert_eq!(status, StatusCode::OK);
        answer
    }

    async fn recorded(&self) -> Vec<Uuid> {
        recorded(&self.db.pool).await
    }
}

async fn call(router: &Router, request: Request<Body>) -> (StatusCode, Value) {
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn recorded(pool: &PgPool) -> Vec<Uuid> {
    sqlx::query_scalar("SELECT event_id FROM recorded ORDER BY place")
        .fetch_all(pool)
        .await
        .unwrap()
}

fn delivery(path: &str, body: &Value) -> Request<Body> {
    Request::post(path)
        .header("content-type", "application/cloudevents+json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

/// An event as daprd delivers it, with what it adds.
fn single(event: &Event) -> Value {
    let mut cloud = serde_json::to_value(CloudEvent::from(event)).unwrap();
    cloud["pubsubname"] = json!("pubsub");
    cloud["topic"] = json!("task-events");
    cloud["traceid"] = json!("00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01");
    cloud["tracestate"] = json!("");
    cloud
}

/// As from the broker: an entry's name is its place.
fn bulk(events: &[Value]) -> Value {
    rest_of_bulk(0, events)
}

/// The same when this many were settled by the answer before.
fn rest_of_bulk(settled: usize, events: &[Value]) -> Value {
    let entries: Vec<_> = (settled..)
        .zip(events)
        .map(|(place, event)| {
            json!({
                "entryId": place.to_string(), "event": event,
                "contentType": "application/cloudevents+json", "metadata": {"__key": "ada"},
            })
        })
        .collect();
    json!({
        "id": Uuid::now_v7(), "type": "com.dapr.event.sent.bulk", "topic": "task-events", "pubsubname": "pubsub",
        "metadata": {}, "entries": entries,
    })
}

fn statuses(statuses: &[&str]) -> Value {
    rest_of_statuses(0, statuses)
}

fn rest_of_statuses(settled: usize, statuses: &[&str]) -> Value {
    let statuses: Vec<_> = (settled..)
        .zip(statuses)
        .map(|(place, status)| json!({"entryId": place.to_string(), "status": status}))
        .collect();
    json!({"statuses": statuses})
}

fn ids(events: &[Event]) -> Vec<Uuid> {
    events.iter().map(|event| event.id).collect()
}

#[tokio::test]
async fn a_delivery_that_comes_again_is_acknowledged_and_changes_nothing() {
    let host = Host::new().await;
    let events = history(&["ada"], 1);
    for _ in 0..3 {
        assert_eq!(host.deliver(&single(&events[0])).await, json!({"status": "SUCCESS"}));
    }
    assert_eq!(
        host.deliver(&bulk(&[single(&events[0]), single(&events[0])])).await,
        statuses(&["SUCCESS", "SUCCESS"])
    );
    assert_eq!(host.recorded().await, ids(&events));
}

#[tokio::test]
async fn a_bulk_is_applied_in_its_order_and_each_entry_is_answered() {
    let host = Host::new().await;
    let events = history(&["ada", "bob"], 50);
    let bodies: Vec<_> = events.iter().map(single).collect();
    assert_eq!(host.deliver(&bulk(&bodies)).await, statuses(&["SUCCESS"; 100]));
    assert_eq!(host.recorded().await, ids(&events));
}

/// What the broker has, as a sidecar passes it on that was asked for raw payloads.
fn raw(message: &str) -> Value {
    json!(BASE64.encode(message))
}

#[tokio::test]
async fn raw_payloads_are_read_as_the_broker_has_them() {
    let host = Host::new().await;
    let events = history(&["ada", "bob"], 2);
    let message = |event: &Event| serde_json::to_string(&CloudEvent::from(event)).unwrap();
    let bodies: Vec<_> = events[..3].iter().map(|event| raw(&message(event))).collect();
    assert_eq!(host.deliver(&bulk(&bodies)).await, statuses(&["SUCCESS"; 3]));
    let alone = json!({
        "id": Uuid::now_v7(), "specversion": "1.0", "type": "com.dapr.event.sent", "source": "todo-audit",
        "topic": "task-events", "pubsubname": "pubsub", "datacontenttype": "application/octet-stream",
        "data_base64": raw(&message(&events[3])),
    });
    assert_eq!(host.deliver(&alone).await, json!({"status": "SUCCESS"}));
    assert_eq!(host.recorded().await, ids(&events));
}

#[tokio::test]
async fn an_event_that_cannot_be_applied_does_not_stop_its_partition() {
    let host = Host::new().await;
    let events = history(&["ada", "bob"], 2);
    host.recorder.is(Mood::Poisoned(events[0].id));
    let bodies: Vec<_> = events.iter().map(single).collect();
    assert_eq!(host.deliver(&bulk(&bodies)).await, statuses(&["SUCCESS"; 4]));
    assert_eq!(host.recorded().await, [events[1].id, events[3].id]);

    let page = Page { after: 0, limit: 10 };
    let letters = dead_letters::list(&host.db.pool, &Selector::default(), page)
        .await
        .unwrap();
    let kept: Vec<_> = letters
        .iter()
        .map(|letter| (letter.event_id, letter.parked_behind))
        .collect();
    assert_eq!(kept, [(events[0].id, None), (events[2].id, Some(events[0].id))]);
}

#[tokio::test]
async fn a_malformed_message_goes_to_the_dead_letter_topic_with_the_reason() {
    let host = Host::new().await;
    let events = history(&["ada"], 2);
    let mut forged = single(&events[0]);
    forged["id"] = json!(Uuid::nil());
    let bodies = [
        single(&events[0]),
        forged.clone(),
        json!("bm90IGFuIGV2ZW50"),
        single(&events[1]),
    ];
    assert_eq!(host.deliver(&bulk(&bodies)).await, statuses(&["SUCCESS"; 4]));
    assert_eq!(host.recorded().await, ids(&events));

    let letters = host.sidecar.asked();
    assert_eq!(letters.len(), 2);
    for asked in &letters {
        assert_eq!(asked.target, "/v1.0/publish/pubsub/recorder-dead-letters");
        assert_eq!(asked.header("content-type"), Some("application/cloudevents+json"));
    }
    let letter = letters[0].json();
    assert_eq!(letter["data"]["reason"], "malformed event: id is not data.event_id");
    assert_eq!(letter["data"]["consumer"], "recorder");
    assert_eq!(letter["data"]["topic"], "task-events");
    let received: Value = serde_json::from_str(letter["data"]["received"].as_str().unwrap()).unwrap();
    assert_eq!(received, forged);

    assert_eq!(host.deliver(&forged).await, json!({"status": "SUCCESS"}));
    assert_ne!(letters[1].json()["id"], letter["id"]);
}

#[tokio::test]
async fn a_malformed_message_that_comes_again_is_the_same_dead_letter() {
    let host = Host::new().await;
    let noise = json!({"specversion": "1.0", "type": "noise", "data": 1});
    for _ in 0..2 {
        assert_eq!(host.deliver(&noise).await, json!({"status": "SUCCESS"}));
    }
    let [first, second] = <[_; 2]>::try_from(host.sidecar.asked()).unwrap();
    assert_eq!(first.json(), second.json());
}

#[tokio::test]
async fn a_malformed_message_is_not_lost_while_the_broker_is_away() {
    let host = Host::with(
        Reply::error(500, "ERR_PUBSUB_PUBLISH_MESSAGE", "broker is away"),
        |_| {},
    )
    .await;
    let events = history(&["ada"], 1);
    assert_eq!(
        host.deliver(&bulk(&[json!({}), single(&events[0])])).await,
        statuses(&["RETRY", "SUCCESS"])
    );
}

#[tokio::test]
async fn a_malformed_message_is_left_to_the_sidecar_where_publishing_is_forbidden() {
    let forbidden = Reply::error(403, "ERR_PUBSUB_FORBIDDEN", "topic is not allowed for app id");
    let host = Host::with(forbidden, |_| {}).await;
    assert_eq!(host.deliver(&json!({})).await, json!({"status": "DROP"}));
    let good = single(&history(&["ada"], 1)[0]);
    assert_eq!(
        host.deliver(&bulk(&[good.clone(), json!({})])).await,
        statuses(&["SUCCESS", "DROP"])
    );
    // Told to drop what stands elsewhere than in the broker's batch, daprd would drop another, or panic.
    assert_eq!(
        host.deliver(&rest_of_bulk(1, &[good, json!({})])).await,
        rest_of_statuses(1, &["SUCCESS", "RETRY"])
    );
}

#[tokio::test]
async fn of_a_huge_malformed_message_so_much_is_kept_as_a_broker_takes() {
    let host = Host::new().await;
    let huge = json!({"type": "<\u{1}".repeat(400_000)});
    let other = json!({"type": format!("{}!", "<\u{1}".repeat(400_000))});
    for message in [&huge, &huge, &other] {
        assert_eq!(host.deliver(message).await, json!({"status": "SUCCESS"}));
    }
    let [first, again, another] = <[_; 3]>::try_from(host.sidecar.asked()).unwrap();
    assert!(first.body.len() < 800_000, "{}", first.body.len());
    assert_eq!(first.json()["data"]["bytes"], huge.to_string().len());
    assert_eq!(again.json(), first.json());
    assert_ne!(another.json()["id"], first.json()["id"]);
}

#[tokio::test]
async fn what_cannot_be_settled_in_time_comes_again() {
    let host = Host::with(Reply::empty(204), |settings| {
        settings.patience = Duration::from_millis(300);
    })
    .await;
    let events = history(&["ada"], 2);
    let bodies: Vec<_> = events.iter().map(single).collect();
    host.recorder.is(Mood::Away);
    assert_eq!(host.deliver(&bulk(&bodies)).await, statuses(&["RETRY", "RETRY"]));
    assert_eq!(host.deliver(&bodies[0]).await, json!({"status": "RETRY"}));
    assert!(host.recorded().await.is_empty());

    host.recorder.is(Mood::Well);
    // On a busy machine even a good delivery may take longer than this test's patience.
    while host.deliver(&bulk(&bodies)).await != statuses(&["SUCCESS", "SUCCESS"]) {}
    assert_eq!(host.recorded().await, ids(&events));
}

#[tokio::test]
async fn more_deliveries_than_turns_come_again() {
    let host = Host::with(Reply::empty(204), |settings| {
        settings.concurrency = 1;
        settings.patience = Duration::from_millis(300);
    })
    .await;
    let events = history(&["ada", "bob"], 1);
    host.recorder.is(Mood::SlowOver(events[0].id));
    let (first, second) = (single(&events[0]), single(&events[1]));
    let (first, second) = tokio::join!(host.deliver(&first), host.deliver(&second));
    assert_eq!(
        [first, second],
        [json!({"status": "RETRY"}), json!({"status": "RETRY"})]
    );

    // The turn was given back.
    host.recorder.is(Mood::Well);
    while host.deliver(&single(&events[1])).await != json!({"status": "SUCCESS"}) {}
    assert_eq!(host.recorded().await, [events[1].id]);
}

#[tokio::test]
async fn a_process_that_stops_gives_back_what_it_cannot_finish() {
    let host = Host::new().await;
    host.recorder.is(Mood::Away);
    let event = single(&history(&["ada"], 1)[0]);
    let started = Instant::now();
    let (answer, ()) = tokio::join!(host.deliver(&event), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        host.stop.cancel();
    });
    assert_eq!(answer, json!({"status": "RETRY"}));
    assert!(started.elapsed() < SubscriptionSettings::of("pubsub").patience);
}

#[tokio::test]
async fn a_wrong_route_loses_nothing() {
    let host = Host::new().await;
    let event = single(&history(&["ada"], 1)[0]);
    // To the sidecar, 404 means that the message may be dropped.
    let (status, _) = host.call(delivery("/events/task-updates", &event)).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let unreadable = json!({"type": "com.dapr.event.sent.bulk", "entries": [{"event": event}]});
    let (status, _) = host.call(delivery("/events/task-events", &unreadable)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(host.recorded().await.is_empty());
    assert!(host.sidecar.asked().is_empty());
}

#[tokio::test]
async fn only_the_sidecar_may_deliver() {
    let host = Host::with(Reply::empty(204), |settings| {
        settings.token = Some(Secret::new("hunter2"));
    })
    .await;
    let events = history(&["ada"], 1);
    for (token, expected) in [
        (None, StatusCode::UNAUTHORIZED),
        (Some("hunter3"), StatusCode::UNAUTHORIZED),
        (Some("hunter22"), StatusCode::UNAUTHORIZED),
        (Some("hunter2"), StatusCode::OK),
    ] {
        assert!(host.recorded().await.is_empty());
        let mut request = delivery("/events/task-events", &single(&events[0]));
        if let Some(token) = token {
            request.headers_mut().insert("dapr-api-token", token.parse().unwrap());
        }
        assert_eq!(host.call(request).await.0, expected, "{token:?}");
    }
    assert_eq!(host.recorded().await, ids(&events));
}

#[tokio::test]
async fn the_sidecar_is_told_of_each_topic_unless_manifests_do_it() {
    let ask = || Request::get("/dapr/subscribe").body(Body::empty()).unwrap();
    let quiet = Host::new().await;
    assert_eq!(quiet.call(ask()).await, (StatusCode::OK, json!([])));

    let host = Host::with(Reply::empty(204), |settings| settings.announce = true).await;
    let subscription = |topic: &str| {
        json!({
            "pubsubname": "pubsub",
            "topic": topic,
            "routes": {"default": format!("/events/{topic}")},
            "metadata": {"rawPayload": "true"},
            "deadLetterTopic": "recorder-dead-letters",
            "bulkSubscribe": {"enabled": true, "maxMessagesCount": 100, "maxAwaitDurationMs": 10},
        })
    };
    assert_eq!(
        host.call(ask()).await,
        (
            StatusCode::OK,
            json!([subscription("task-events"), subscription("reminders")])
        )
    );
}

#[tokio::test]
async fn a_prefix_is_in_the_brokers_names_and_not_in_routes() {
    let host = Host::with(Reply::empty(204), |settings| {
        settings.announce = true;
        settings.topic_prefix = "home-".parse().unwrap();
    })
    .await;
    let ask = Request::get("/dapr/subscribe").body(Body::empty()).unwrap();
    let (_, told) = host.call(ask).await;
    let told: Vec<_> = told
        .as_array()
        .unwrap()
        .iter()
        .map(|told| [&told["topic"], &told["routes"]["default"], &told["deadLetterTopic"]])
        .collect();
    assert_eq!(
        told,
        [
            ["home-task-events", "/events/task-events", "home-recorder-dead-letters"],
            ["home-reminders", "/events/reminders", "home-recorder-dead-letters"],
        ]
    );
    let events = history(&["ada"], 1);
    assert_eq!(host.deliver(&single(&events[0])).await, json!({"status": "SUCCESS"}));
    assert_eq!(host.recorded().await, ids(&events));
    let noise = json!({"specversion": "1.0", "type": "noise", "data": 1});
    assert_eq!(host.deliver(&noise).await, json!({"status": "SUCCESS"}));
    let [letter] = <[_; 1]>::try_from(host.sidecar.asked()).unwrap();
    assert_eq!(letter.target, "/v1.0/publish/pubsub/home-recorder-dead-letters");
    assert_eq!(letter.json()["data"]["topic"], "task-events");
}

/// The whole path, with a broker that delivers each bulk twice and is away at first.
#[tokio::test]
async fn what_was_committed_is_applied_once_and_in_order_behind_a_broker() {
    let host = Host::new().await;
    let written: Vec<NewEvent> = history(&["ada", "bob", "eve"], 20)
        .into_iter()
        .map(|event| NewEvent {
            id: event.id,
            event_type: event.event_type,
            subject: event.subject,
            user_id: event.user_id,
            version: event.version,
            actor: event.actor,
            data: event.data,
            previous: event.previous,
            traceparent: event.traceparent,
        })
        .collect();
    let mut transaction = host.db.pool.begin().await.unwrap();
    outbox::append(&mut transaction, &written).await.unwrap();
    transaction.commit().await.unwrap();

    let away = Mutex::new(3);
    let broker = Sidecar::deciding(move |_| {
        let mut away = away.lock().unwrap();
        if *away > 0 {
            *away -= 1;
            return Reply::error(500, "ERR_PUBSUB_PUBLISH_MESSAGE", "broker is away");
        }
        Reply::empty(204)
    })
    .await;
    let bus = Arc::new(DaprBus::new(broker.client(), BusSettings::of("pubsub")));
    let relay = Relay::new(host.db.pool.clone(), "dapr", bus, Waker::new(), Settings::default());
    // Snapshots see the transactions of the whole cluster, so those of other tests hold a pass back, too.
    while !matches!(relay.pass().await, Ok(Pass::Idle)) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }

    for asked in broker
        .asked()
        .iter()
        .filter(|asked| asked.target.contains("/task-events?"))
    {
        let events: Vec<_> = asked
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| serde_json::from_str(entry["event"].as_str().unwrap()).unwrap())
            .collect();
        for _ in 0..2 {
            assert_eq!(
                host.deliver(&bulk(&events)).await,
                statuses(&vec!["SUCCESS"; events.len()])
            );
        }
    }
    let written: Vec<_> = written.iter().map(|event| event.id).collect();
    assert_eq!(host.recorded().await, written);
}
