//! Jobs, from the API to the app that they ring.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use todo_dapr::client::{Job, OnFailure, When};
use todo_dapr::{Error, JobHost, Secret};

use crate::app::{App, serve, until};
use crate::daprd::{Daprd, Options};
use crate::stack::scheduler;

fn at(instant: Timestamp) -> Job {
    Job {
        when: When::At(instant),
        data: json!({"reminder": 1}),
        overwrite: true,
        on_failure: Some(OnFailure::Drop),
    }
}

fn never() -> Job {
    at("2100-01-01T00:00:00Z".parse().unwrap())
}

fn soon() -> Job {
    at(Timestamp::now() + Duration::from_secs(1))
}

async fn sidecar(port: u16) -> Daprd {
    Options::of("jobs")
        .app(port)
        .scheduler(&scheduler().await.address)
        .start()
        .await
}

#[tokio::test]
async fn a_job_is_set_read_moved_and_deleted() {
    let app = App::answering(|_| (200, Value::Null)).await;
    let daprd = sidecar(app.port).await;
    let client = &daprd.client;
    assert_eq!(client.job("reminder-1").await.unwrap(), None);
    client.delete_job("reminder-1").await.unwrap();

    client.set_job("reminder-1", &never()).await.unwrap();
    let job = client.job("reminder-1").await.unwrap().unwrap();
    assert_eq!((job.name.as_str(), &job.data), ("reminder-1", &json!({"reminder": 1})));
    assert_eq!(job.due_time.as_deref(), Some("2100-01-01T00:00:00Z"));

    let later = at("2101-01-01T00:00:00Z".parse().unwrap());
    let unasked = Job {
        overwrite: false,
        ..later.clone()
    };
    let error = client.set_job("reminder-1", &unasked).await.unwrap_err();
    assert!(matches!(error, Error::JobExists(_)), "{error}");
    client.set_job("reminder-1", &later).await.unwrap();
    let job = client.job("reminder-1").await.unwrap().unwrap();
    assert_eq!(job.due_time.as_deref(), Some("2101-01-01T00:00:00Z"));

    client.delete_job("reminder-1").await.unwrap();
    assert_eq!(client.job("reminder-1").await.unwrap(), None);
}

#[tokio::test]
async fn a_job_that_cannot_be_is_refused_for_good() {
    let app = App::answering(|_| (200, Value::Null)).await;
    let daprd = sidecar(app.port).await;
    let nonsense = Job {
        when: When::Schedule("now and then".to_owned()),
        ..never()
    };
    let error = daprd.client.set_job("nonsense", &nonsense).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
}

#[tokio::test]
async fn a_job_rings_at_its_time_and_a_deleted_one_does_not() {
    let heard: Arc<Mutex<Vec<(String, Timestamp)>>> = Arc::default();
    let hearing = Arc::clone(&heard);
    let host = JobHost::new(
        Some(Secret::new("app-token")),
        Arc::new(move |name| hearing.lock().unwrap().push((name.to_owned(), Timestamp::now()))),
    );
    let daprd = Options::of("jobs")
        .app(serve(host.router()).await)
        .app_token("app-token")
        .scheduler(&scheduler().await.address)
        .start()
        .await;
    let job = soon();
    daprd.client.set_job("deleted", &job).await.unwrap();
    daprd.client.set_job("moved", &never()).await.unwrap();
    daprd.client.set_job("moved", &job).await.unwrap();
    daprd.client.delete_job("deleted").await.unwrap();
    daprd
        .client
        .set_job("past", &at("2020-01-01T00:00:00Z".parse().unwrap()))
        .await
        .unwrap();

    until("two jobs", async || heard.lock().unwrap().len() >= 2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let heard = heard.lock().unwrap().clone();
    let names: Vec<_> = heard.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["past", "moved"]);
    let When::At(due) = job.when else { unreachable!() };
    let late = heard[1].1.duration_since(due);
    // Its clock is in whole seconds.
    assert!(
        late > Duration::from_secs(1)
            .try_into()
            .map(|second: jiff::SignedDuration| -second)
            .unwrap(),
        "{late:?}"
    );
}

#[tokio::test]
async fn a_job_carries_its_data_and_is_called_again_when_the_app_fails_but_not_for_a_404() {
    let app = App::answering(|called| {
        let status = if called.path == "/job/failing" { 500 } else { 404 };
        (status, Value::Null)
    })
    .await;
    let daprd = sidecar(app.port).await;
    let retried = Job {
        on_failure: Some(OnFailure::Retry {
            interval: Duration::from_millis(100),
            max_retries: Some(2),
        }),
        ..soon()
    };
    daprd.client.set_job("unknown", &retried).await.unwrap();
    daprd.client.set_job("failing", &retried).await.unwrap();
    app.called_times(4).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let called = app.called();
    let of = |path: &str| called.iter().filter(|called| called.path == path).count();
    assert_eq!((of("/job/failing"), of("/job/unknown")), (3, 1));
    assert_eq!(called[0].body, json!({"reminder": 1}), "{called:?}");
    assert_eq!(called[0].header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_scheduler_that_is_away_is_no_longer_waited_for_than_the_client_is_patient() {
    let app = App::answering(|_| (200, Value::Null)).await;
    let [port] = crate::process::free_ports();
    let daprd = Options::of("jobs")
        .app(app.port)
        .scheduler(&format!("127.0.0.1:{port}"))
        .start()
        .await;
    let began = Instant::now();
    let error = daprd
        .impatient(Duration::from_millis(500))
        .set_job("reminder-1", &never())
        .await
        .unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_sidecar_without_a_scheduler_says_so() {
    let daprd = Options::of("jobs").start().await;
    let error = daprd.client.set_job("reminder-1", &never()).await.unwrap_err();
    assert!(error.to_string().contains("scheduler clients are disabled"), "{error}");
}
