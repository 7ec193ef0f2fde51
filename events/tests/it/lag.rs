//! How far behind a broker's consumers are said to be.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use todo_events::{BoxFuture, Bus, BusError, Consumer, Event, LagMeter, host};
use tokio::sync::Mutex;

use crate::measure::value;
use crate::support::{Fault, Recorder, commit, database, drain, history, relay_to, retry};

/// A broker that takes everything and delivers when it is asked to.
#[derive(Default)]
struct Broker(Mutex<Vec<Event>>);

impl Bus for Broker {
    fn publish<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(async move {
            self.0.lock().await.extend_from_slice(batch);
            Ok(())
        })
    }
}

#[tokio::test]
async fn one_task_that_stands_still_shows_however_much_goes_on_beside_it() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let db = database().await;
    let consumer = Recorder::new("behind");
    let broker = Arc::new(Broker::default());
    let relay = relay_to(&db.pool, "broker", Arc::clone(&broker) as Arc<dyn Bus>);
    let mut meter = LagMeter::new(
        db.pool.clone(),
        "broker",
        vec![Arc::clone(&consumer) as Arc<dyn Consumer>],
    );
    let lag = || value(&metrics, r#"todo_consumer_lag_seconds{consumer="behind"}"#);

    // What is not published yet is the relay's lag and not the consumer's.
    commit(&db.pool, &history(3, 2)).await;
    meter.measure().await.unwrap();
    assert!(lag() < f64::EPSILON, "{}", lag());

    drain(&relay).await;
    let mut delivered = std::mem::take(&mut *broker.0.lock().await);
    let stuck = delivered.remove(0);
    host::apply(&db.pool, consumer.as_ref(), &delivered, &retry())
        .await
        .unwrap();
    meter.measure().await.unwrap();
    let before = lag();
    assert!(before > 0.0);

    // More than the window holds, all of it applied: the first one is still what counts.
    for _ in 0..5 {
        commit(&db.pool, &history(50, 10)).await;
    }
    drain(&relay).await;
    let delivered = std::mem::take(&mut *broker.0.lock().await);
    host::apply(&db.pool, consumer.as_ref(), &delivered, &retry())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    meter.measure().await.unwrap();
    assert!(lag() >= before + 0.05, "{} after {before}", lag());

    // Among the dead letters it is settled: another alert's business.
    consumer.fail_on(stuck.id, Fault::Permanent, u32::MAX);
    let outcome = host::apply(&db.pool, consumer.as_ref(), &[stuck], &retry())
        .await
        .unwrap();
    assert_eq!(outcome.dead, 1);
    meter.measure().await.unwrap();
    assert!(lag() < f64::EPSILON, "{}", lag());
}
