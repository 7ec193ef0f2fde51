//! `/api/v1/tasks/{id}/history`

use insta::assert_json_snapshot;
use serde_json::json;

use crate::app::{App, id};

#[tokio::test]
async fn a_history_outlives_its_task() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let task = ada.task(&json!({"title": "first"})).await;
    let path = format!("/api/v1/tasks/{}", id(&task));
    ada.patch(&path, &json!({"title": "second"})).await.expect(200);
    ada.delete(&path).await.expect(204);
    app.record_history().await;

    let history = ada.get(&format!("{path}/history")).await.expect(200);
    assert_json_snapshot!("history", history.body, {
        ".items[].event_id" => "[id]", ".items[].at" => "[time]", ".items[].after.id" => "[id]",
        ".items[].after.created_at" => "[time]", ".items[].after.updated_at" => "[time]",
    });

    let first = ada.get(&format!("{path}/history?limit=2")).await.expect(200);
    let cursor = first.body["next_cursor"].as_str().unwrap();
    let rest = ada
        .get(&format!("{path}/history?limit=2&cursor={cursor}"))
        .await
        .expect(200);
    let walked: Vec<_> = [&first, &rest]
        .iter()
        .flat_map(|page| page.body["items"].as_array().unwrap())
        .collect();
    assert_eq!(
        walked,
        history.body["items"].as_array().unwrap().iter().collect::<Vec<_>>()
    );
    assert!(rest.body["next_cursor"].is_null());
}
