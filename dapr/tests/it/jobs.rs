//! Jobs on sidecars of several versions.

use std::time::Duration;

use serde_json::json;
use todo_dapr::Error;
use todo_dapr::client::{Job, OnFailure, When};

use crate::sidecar::{Reply, Sidecar};

fn alarm() -> Job {
    Job {
        when: When::At("2026-11-21T08:30:00Z".parse().unwrap()),
        data: json!({"reminder": 1}),
        overwrite: true,
        on_failure: None,
    }
}

/// A sidecar before 1.18: it has the alpha path only.
async fn old_sidecar(reply: Reply) -> Sidecar {
    Sidecar::deciding(move |asked| {
        if asked.target.starts_with("/v1.0-alpha1/jobs/") {
            reply.clone()
        } else {
            Reply::unknown_path()
        }
    })
    .await
}

#[tokio::test]
async fn a_job_is_set_on_the_stable_path_where_there_is_one() {
    let sidecar = Sidecar::answering([Reply::empty(204)]).await;
    sidecar.client().set_job("reminder-1", &alarm()).await.unwrap();
    let asked = sidecar.only();
    assert_eq!(asked.target, "/v1.0/jobs/reminder-1");
    assert_eq!(
        asked.json(),
        json!({"dueTime": "2026-11-21T08:30:00Z", "data": {"reminder": 1}, "overwrite": true})
    );
}

#[tokio::test]
async fn an_older_sidecar_is_found_out_once() {
    let sidecar = old_sidecar(Reply::empty(204)).await;
    let client = sidecar.client();
    client.set_job("reminder-1", &alarm()).await.unwrap();
    client.clone().delete_job("reminder-1").await.unwrap();
    assert_eq!(
        sidecar.targets(),
        [
            "POST /v1.0/jobs/reminder-1",
            "POST /v1.0-alpha1/jobs/reminder-1",
            "DELETE /v1.0-alpha1/jobs/reminder-1",
        ]
    );
}

#[tokio::test]
async fn a_sidecar_without_jobs_is_an_error() {
    let sidecar = Sidecar::answering([Reply::unknown_path()]).await;
    let error = sidecar.client().set_job("reminder-1", &alarm()).await.unwrap_err();
    assert_eq!(error.refusal().unwrap().status.as_u16(), 404);
}

#[tokio::test]
async fn a_job_that_is_not_there_is_none_although_dapr_says_500() {
    let missing = Reply::error(
        500,
        "DAPR_SCHEDULER_GET_JOB",
        "failed to get job due to: rpc error: code = NotFound desc = job not found: reminder-1",
    );
    let sidecar = old_sidecar(missing).await;
    assert_eq!(sidecar.client().job("reminder-1").await.unwrap(), None);
    assert_eq!(sidecar.asked().len(), 2, "it is an answer, and not asked for again");
    sidecar.client().delete_job("reminder-1").await.unwrap();
}

#[tokio::test]
async fn a_scheduler_that_is_away_is_not_taken_for_a_job_that_is_not_there() {
    let away = Reply::error(
        500,
        "DAPR_SCHEDULER_GET_JOB",
        "failed to get job due to: rpc error: code = DeadlineExceeded desc = context deadline exceeded",
    );
    let sidecar = Sidecar::answering([away]).await;
    let error = sidecar.client().job("reminder-1").await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(sidecar.asked().len(), 3);
}

#[tokio::test]
async fn a_job_is_read_without_its_protobuf_wrapping() {
    let body = json!({
        "name": "reminder-1",
        "dueTime": "2026-11-21T08:30:00Z",
        "data": {"@type": "type.googleapis.com/google.protobuf.Value", "value": {"reminder": 1}},
    });
    let sidecar = Sidecar::answering([Reply::text(200, &body.to_string())]).await;
    let job = sidecar.client().job("reminder-1").await.unwrap().unwrap();
    assert_eq!(job.due_time.as_deref(), Some("2026-11-21T08:30:00Z"));
    assert_eq!(job.data, json!({"reminder": 1}));
}

#[tokio::test]
async fn a_job_that_exists_is_not_overwritten_unasked() {
    let exists = Reply::error(
        409,
        "DAPR_SCHEDULER_SCHEDULE_JOB",
        "failed to schedule job due to: rpc error: code = AlreadyExists desc = job already exists: 'app||default||api||sweep'",
    );
    let sidecar = Sidecar::answering([exists]).await;
    let job = Job {
        when: When::Schedule("@every 1m".to_owned()),
        overwrite: false,
        on_failure: Some(OnFailure::Retry {
            interval: Duration::from_millis(2500),
            max_retries: Some(5),
        }),
        ..alarm()
    };
    let error = sidecar.client().set_job("sweep", &job).await.unwrap_err();
    assert!(matches!(error, Error::JobExists(_)), "{error}");
    assert_eq!(
        sidecar.only().json(),
        json!({
            "schedule": "@every 1m", "data": {"reminder": 1}, "overwrite": false,
            "failurePolicy": {"constant": {"interval": "2.500000000s", "maxRetries": 5}},
        })
    );
}

#[tokio::test]
async fn only_a_job_that_overwrites_is_set_twice() {
    let fault = Reply::error(500, "DAPR_SCHEDULER_SCHEDULE_JOB", "scheduler is away");
    for (overwrite, calls) in [(true, 3), (false, 1)] {
        let sidecar = Sidecar::answering([fault.clone()]).await;
        let job = Job {
            overwrite,
            on_failure: Some(OnFailure::Drop),
            ..alarm()
        };
        sidecar.client().set_job("reminder-1", &job).await.unwrap_err();
        assert_eq!(sidecar.asked().len(), calls);
        assert_eq!(sidecar.asked()[0].json()["failurePolicy"], json!({"drop": {}}));
    }
}
