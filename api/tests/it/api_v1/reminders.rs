//! `/api/v1/tasks/{id}/reminders`

use insta::assert_json_snapshot;
use serde_json::json;

use crate::app::{App, id};

#[tokio::test]
async fn reminders_are_added_shown_and_removed_under_their_task() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let task = ada
        .task(&json!({"title": "call", "due": {"at": "2031-01-01T12:00:00Z"}}))
        .await;
    let reminders = format!("/api/v1/tasks/{}/reminders", id(&task));

    let added = ada.post(&reminders, &json!({"before": "90m"})).await.expect(201);
    assert_eq!(added.header("location"), format!("{reminders}/{}", id(&added.body)));
    assert_json_snapshot!("added_reminder", added.body, {".id" => "[id]", ".task_id" => "[id]"});
    let at = json!({"at": {"local": "2031-01-01T07:00:00", "time_zone": "Asia/Tokyo"}});
    ada.post(&reminders, &at).await.expect(201);

    let listed = ada.get(&reminders).await.expect(200);
    assert_json_snapshot!("listed_reminders", listed.body, {".items[].id" => "[id]", ".items[].task_id" => "[id]"});
    let shown = ada.get(&format!("/api/v1/tasks/{}", id(&task))).await.expect(200);
    assert_eq!(
        (
            shown.body["reminders"].as_array().unwrap().len(),
            &shown.body["version"]
        ),
        (2, &json!(3))
    );

    ada.delete(added.header("location")).await.expect(204);
    assert_eq!(
        ada.delete(added.header("location")).await.expect(404).problem(),
        "not-found"
    );
    assert_eq!(ada.get(&reminders).await.body["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_reminder_that_cannot_go_out_is_refused_by_its_field() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let task = ada.task(&json!({"title": "someday"})).await;
    let reminders = format!("/api/v1/tasks/{}/reminders", id(&task));
    let refused = ada.post(&reminders, &json!({"before": "1h"})).await.expect(422);
    assert_eq!(refused.fields(), ["before"]);
    let refused = ada.post(&reminders, &json!({})).await.expect(422);
    assert_eq!(refused.fields(), ["before"]);
    let at = json!({"at": {"at": "2031-01-01T12:00:00Z"}});
    ada.post(&reminders, &at).await.expect(201);
    assert_eq!(ada.post(&reminders, &at).await.expect(409).problem(), "conflict");
}
