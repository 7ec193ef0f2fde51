//! Health, metadata, secrets, invocation, the API's token, and what holds for every call.

use std::time::Duration;

use serde_json::{Value, json};
use todo_dapr::client::{Invocation, Job, When};
use todo_dapr::{Client, Error, Method, Secret, StatusCode};

use crate::app::App;
use crate::daprd::Options;
use crate::process::free_ports;
use crate::resources::own_manifests;

#[tokio::test]
async fn only_who_has_the_token_is_served() {
    let daprd = Options::of("client").api_token("hunter2").start().await;
    assert_eq!(daprd.client.metadata().await.unwrap().id, daprd.app_id);
    for token in [None, Some(Secret::new("hunter3"))] {
        let mut settings = daprd.settings.clone();
        settings.token = token;
        let client = Client::new(settings).unwrap();
        let error = client.metadata().await.unwrap_err();
        assert_eq!(error.refusal().unwrap().status, StatusCode::UNAUTHORIZED);
        assert!(!error.is_retryable());
        // Health is for everyone.
        client.ready().await.unwrap();
    }
}

#[tokio::test]
async fn metadata_tells_what_is_loaded() {
    let daprd = Options::of("client")
        .resource(
            "apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: memory}
spec: {type: state.in-memory, version: v1, metadata: []}",
        )
        .start()
        .await;
    let metadata = daprd.client.metadata().await.unwrap();
    assert_eq!(metadata.id, daprd.app_id);
    assert!(!metadata.runtime_version.is_empty());
    let [memory] = &metadata.components[..] else {
        panic!("{:?}", metadata.components)
    };
    assert_eq!(
        (memory.name.as_str(), memory.kind.as_str()),
        ("memory", "state.in-memory")
    );
    assert!(
        memory.capabilities.iter().any(|capability| capability == "ETAG"),
        "{memory:?}"
    );
    assert!(metadata.subscriptions.is_empty());
}

#[tokio::test]
async fn a_secret_is_read_by_its_name_and_one_that_is_not_there_is_told_apart() {
    let daprd = own_manifests("todo-reminders").start().await;
    let secret = daprd.client.secret("secrets", "database").await.unwrap().unwrap();
    let read: Vec<_> = secret
        .iter()
        .map(|(key, value)| (key.as_str(), value.expose()))
        .collect();
    assert_eq!(read, [("password", "hunter2"), ("user", "todo")]);
    assert_eq!(daprd.client.secret("secrets", "nothing").await.unwrap(), None);
    let error = daprd.client.secret("elsewhere", "database").await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
}

fn call<'a>(app: &'a str, path: &'a str, body: Option<&'a Value>) -> Invocation<'a> {
    Invocation {
        app,
        method: Method::POST,
        path,
        query: &[("limit", "5")],
        body,
    }
}

/// An app without a sidecar, so that nobody has to be asked where it is.
fn endpoint(name: &str, port: u16) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {{name: {name}}}
spec: {{baseUrl: 'http://127.0.0.1:{port}'}}"
    )
}

#[tokio::test]
async fn what_an_app_answers_is_told_apart_from_not_getting_there() {
    let app = App::answering(|called| match called.path.as_str() {
        "/fails" => (500, json!({"errorCode": "ERR_MINE", "message": "not today"})),
        _ => (201, json!({"called": called.path})),
    })
    .await;
    let [nothing] = free_ports();
    let daprd = Options::of("client")
        .resource(endpoint("other", app.port))
        .resource(endpoint("nobody", nothing))
        .start()
        .await;
    let body = json!({"title": "a task"});
    let answer = daprd
        .client
        .invoke(&call("other", "/internal/tasks", Some(&body)))
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.json::<Value>().unwrap(), json!({"called": "/internal/tasks"}));
    assert_eq!(app.called()[0].body, body);

    let answer = daprd.client.invoke(&call("other", "/fails", None)).await.unwrap();
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);

    let error = daprd.client.invoke(&call("nobody", "/tasks", None)).await.unwrap_err();
    assert_eq!(
        error.refusal().unwrap().code.as_deref(),
        Some("ERR_DIRECT_INVOKE"),
        "{error}"
    );
}

#[tokio::test]
async fn a_path_that_this_version_does_not_have_is_not_taken_for_an_answer() {
    let daprd = Options::of("client").start().await;
    let job = Job {
        when: When::At("2100-01-01T00:00:00Z".parse().unwrap()),
        data: Value::Null,
        overwrite: true,
        on_failure: None,
    };
    // There is no scheduler, and so no answer but a refusal: from the path that there is.
    let error = daprd
        .impatient(Duration::from_secs(1))
        .set_job("job", &job)
        .await
        .unwrap_err();
    assert_eq!(
        error.refusal().unwrap().code.as_deref(),
        Some("DAPR_SCHEDULER_SCHEDULE_JOB"),
        "{error}"
    );
    let error = daprd.client.job("job").await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");
}
