//! Connections, and how they end.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::app::{App, Reply, id};

#[tokio::test]
async fn a_shutdown_lets_requests_end_and_takes_no_more() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let task = ada.task(&json!({"title": "held"})).await;
    let mut holder = app.db.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM tasks FOR UPDATE")
        .execute(&mut *holder)
        .await
        .unwrap();
    let patch = ada.patching(
        &format!("/api/v1/tasks/{}", id(&task)),
        &json!({"title": "ended in peace"}),
    );
    let running = tokio::spawn(Reply::to(patch));
    app.somebody_waits().await;

    app.shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!app.server.is_finished(), "a request is still running");
    let refused = reqwest::Client::new()
        .get(format!("http://{}/healthz", app.address))
        .send()
        .await;
    assert!(refused.is_err(), "{refused:?}");

    holder.rollback().await.unwrap();
    let reply = running.await.unwrap().expect(200);
    assert_eq!(reply.body["title"], "ended in peace");
    tokio::time::timeout(Duration::from_secs(5), app.server)
        .await
        .expect("the server ends")
        .unwrap();
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_a_shutdown_up() {
    let app = App::spawn().await;
    Reply::to(app.nobody().request(Method::GET, "/healthz"))
        .await
        .expect(200);
    app.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), app.server)
        .await
        .expect("the server ends")
        .unwrap();
}
