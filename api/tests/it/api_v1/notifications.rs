//! `/api/v1/notifications`

use insta::assert_json_snapshot;
use serde_json::{Value, json};

use crate::app::{App, User, id};

/// Late reminders, as after a downtime: few are told singly, many in a digest.
async fn late_reminders(app: &App, user: &User, count: usize) {
    for number in 0..count {
        let at = json!({"at": {"at": "2026-01-01T08:00:00Z"}});
        user.task(&json!({"title": format!("task {number}"), "reminders": [at]}))
            .await;
    }
    app.send_reminders().await;
}

fn items(body: &Value) -> &Vec<Value> {
    body["items"].as_array().unwrap()
}

#[tokio::test]
async fn a_notification_is_shown_until_it_is_read() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    late_reminders(&app, &ada, 1).await;
    let feed = ada.get("/api/v1/notifications").await.expect(200);
    assert_json_snapshot!("notifications", feed.body, {
        ".items[].id" => "[id]", ".items[].task_id" => "[id]", ".items[].reminder_id" => "[id]",
        ".items[].created_at" => "[time]",
    });
    let read = format!("/api/v1/notifications/{}/read", id(&items(&feed.body)[0]));
    let first = ada.call(&read).await.expect(200).body;
    assert!(first["read_at"].is_string());
    assert_eq!(
        ada.call(&read).await.expect(200).body["read_at"],
        first["read_at"],
        "the first time is kept"
    );
    assert_eq!(items(&ada.get("/api/v1/notifications?unread=true").await.body).len(), 0);
    assert_eq!(
        items(&ada.get("/api/v1/notifications?unread=false").await.body).len(),
        1
    );
}

#[tokio::test]
async fn the_reminders_behind_a_digest_can_be_read() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    late_reminders(&app, &ada, 7).await;
    let feed = ada.get("/api/v1/notifications").await.expect(200);
    assert_eq!(items(&feed.body).len(), 1);
    let digest = &items(&feed.body)[0];
    assert_eq!(
        (&digest["kind"], &digest["reminder_count"]),
        (&json!("digest"), &json!(7))
    );

    let reminders = format!("/api/v1/notifications/{}/reminders", id(digest));
    let mut titles = Vec::new();
    let mut path = format!("{reminders}?limit=3");
    loop {
        let page = ada.get(&path).await.expect(200);
        titles.extend(
            items(&page.body)
                .iter()
                .map(|item| item["title"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page.body["next_cursor"].as_str() else {
            break;
        };
        path = format!("{reminders}?limit=3&cursor={cursor}");
    }
    titles.sort();
    assert_eq!(
        titles,
        (0..7).map(|number| format!("task {number}")).collect::<Vec<_>>()
    );
}
