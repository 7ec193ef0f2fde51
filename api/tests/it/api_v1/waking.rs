//! Whoever follows what the API does is woken for it.

use std::time::Duration;

use serde_json::json;
use todo_events::Channel;
use tokio::time::timeout;

use crate::app::{App, id};

/// Longer than any request here, and far shorter than the intervals at which workers look by themselves.
const SOON: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_change_wakes_those_whom_it_concerns() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let mut outbox = app.waker.subscribe(Channel::Outbox);
    let mut reminders = app.waker.subscribe(Channel::Reminders);
    let mut schedules = app.waker.subscribe(Channel::Schedules);

    let task = ada
        .task(&json!({"title": "plain", "due": {"at": "2031-01-01T12:00:00Z"}}))
        .await;
    timeout(SOON, outbox.woken()).await.expect("the relay");
    let path = format!("/api/v1/tasks/{}", id(&task));
    ada.post(&format!("{path}/reminders"), &json!({"before": "1h"}))
        .await
        .expect(201);
    timeout(SOON, outbox.woken()).await.expect("the relay");
    timeout(SOON, reminders.woken()).await.expect("the sender of reminders");
    ada.patch(&path, &json!({"due": {"local": "2030-01-01T12:00:00"}}))
        .await
        .expect(200);
    timeout(SOON, reminders.woken())
        .await
        .expect("the sender of reminders, for an earlier one");

    assert!(
        timeout(SOON, schedules.woken()).await.is_err(),
        "no schedule was touched"
    );
    let weekly = json!({
        "name": "weekly",
        "schedule": {"cron": "0 9 * * 1", "time_zone": "UTC"},
        "template": {"title": "again"},
    });
    ada.schedule(&weekly).await;
    timeout(SOON, schedules.woken()).await.expect("the maker of tasks");
}
