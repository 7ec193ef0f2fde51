//! What the metrics say while events wait, and when they have come.

#![allow(clippy::float_cmp, reason = "counts of events are whole")]

use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use todo_events::relay::Settings;
use todo_events::{Relay, Waker};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{Fault, Recorder, commit, database, history, local_bus};

/// The value of one series; 0 while there is none.
pub(crate) fn value(metrics: &PrometheusHandle, series: &str) -> f64 {
    let page = metrics.render();
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0.0, |rest| rest.trim().parse().unwrap())
}

async fn until_it_is(metrics: &PrometheusHandle, series: &str, expected: impl Fn(f64) -> bool) {
    for _ in 0..400 {
        if expected(value(metrics, series)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{series} is {} in\n{}", value(metrics, series), metrics.render());
}

#[tokio::test]
async fn a_backlog_shows_while_its_consumer_is_stuck_and_its_delay_when_it_is_not() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    // All of this test runs on this thread, and so is measured by this recorder alone.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let db = database().await;
    let consumer = Recorder::new("stuck");
    let events = history(10, 3);
    consumer.fail_on(events[0].id, Fault::Transient, u32::MAX);
    let shutdown = CancellationToken::new();
    let settings = Settings {
        measure: Duration::from_millis(50),
        ..Settings::default()
    };
    let relay = Relay::new(
        db.pool.clone(),
        "stuck",
        local_bus(&db.pool, &consumer),
        Waker::new(),
        settings,
    );
    commit(&db.pool, &events).await;

    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { relay.run(shutdown).await }
    });
    // One pass, which does not end: the measures must not wait for it.
    until_it_is(&metrics, r#"todo_outbox_depth_events{cursor="stuck"}"#, |depth| {
        depth == 30.0
    })
    .await;
    until_it_is(&metrics, r#"todo_outbox_oldest_age_seconds{cursor="stuck"}"#, |age| {
        age > 0.3
    })
    .await;
    assert_eq!(
        value(
            &metrics,
            r#"todo_consumer_events_total{consumer="stuck",outcome="applied"}"#
        ),
        0.0
    );

    consumer.heal();
    until_it_is(&metrics, r#"todo_outbox_depth_events{cursor="stuck"}"#, |depth| {
        depth == 0.0
    })
    .await;
    until_it_is(&metrics, r#"todo_outbox_oldest_age_seconds{cursor="stuck"}"#, |age| {
        age == 0.0
    })
    .await;
    assert_eq!(
        value(
            &metrics,
            r#"todo_consumer_events_total{consumer="stuck",outcome="applied"}"#
        ),
        30.0
    );
    // Each of them was at least as long on its way as the stuck pass was seen to last.
    assert_eq!(
        value(&metrics, r#"todo_consumer_event_delay_seconds_count{consumer="stuck"}"#),
        30.0
    );
    assert!(value(&metrics, r#"todo_consumer_event_delay_seconds_sum{consumer="stuck"}"#) > 30.0 * 0.3);
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_deep_backlog_is_told_by_its_numbers() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let db = database().await;
    let consumer = Recorder::new("deep");
    sqlx::query(
        "INSERT INTO outbox (id, event_type, subject, user_id, version, actor, data)
         SELECT gen_random_uuid(), 'created', gen_random_uuid(), 'ada', 1, 'ada', '{}'
         FROM generate_series(1, 12345)",
    )
    .execute(&db.pool)
    .await
    .unwrap();
    // Every event fails for now, so that all of them stay.
    let first: Uuid = sqlx::query_scalar("SELECT id FROM outbox ORDER BY xid, seq LIMIT 1")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    consumer.fail_on(first, Fault::Transient, u32::MAX);
    // The first measure may come before the relay has its cursor.
    let settings = Settings {
        measure: Duration::from_millis(50),
        ..Settings::default()
    };
    let relay = Relay::new(
        db.pool.clone(),
        "deep",
        local_bus(&db.pool, &consumer),
        Waker::new(),
        settings,
    );
    let running = tokio::spawn(async move { relay.run(CancellationToken::new()).await });
    until_it_is(&metrics, r#"todo_outbox_depth_events{cursor="deep"}"#, |depth| {
        depth == 12_345.0
    })
    .await;
    running.abort();
}
