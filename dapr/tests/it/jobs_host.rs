//! The host of jobs, called as daprd calls it.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use todo_dapr::{JobHost, Secret};
use tower::ServiceExt;

/// Answers to these requests, and the names that were heard.
async fn calls(token: Option<&str>, requests: Vec<Request<Body>>) -> (Vec<StatusCode>, Vec<String>) {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let hearing = Arc::clone(&heard);
    let on_job = Arc::new(move |name: &str| hearing.lock().unwrap().push(name.to_owned()));
    let router = JobHost::new(token.map(Secret::new), on_job).router();
    let mut answers = vec![];
    for request in requests {
        answers.push(router.clone().oneshot(request).await.unwrap().status());
    }
    let heard = heard.lock().unwrap().clone();
    (answers, heard)
}

fn call(name: &str, token: Option<&str>, body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::post(format!("/job/{name}")).header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("dapr-api-token", token);
    }
    request.body(body.into()).unwrap()
}

#[tokio::test]
async fn a_job_wakes_whatever_its_name_and_its_body_are() {
    let requests = vec![
        call("reminder-1", None, "null"),
        call("nobody%20knows", None, "not json"),
        call("reminder-1", None, vec![b'x'; 10_000_000]),
    ];
    let (answers, heard) = calls(None, requests).await;
    assert_eq!(answers, [StatusCode::OK; 3]);
    assert_eq!(heard, ["reminder-1", "nobody knows", "reminder-1"]);
}

#[tokio::test]
async fn only_the_sidecar_wakes() {
    let requests = [None, Some("hunter3"), Some("hunter22"), Some("hunter2")]
        .map(|token| call("reminder-1", token, "null"))
        .into();
    let (answers, heard) = calls(Some("hunter2"), requests).await;
    let [refused, ok] = [StatusCode::UNAUTHORIZED, StatusCode::OK];
    assert_eq!(answers, [refused, refused, refused, ok]);
    assert_eq!(heard, ["reminder-1"]);
}
