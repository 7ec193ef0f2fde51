//! `/api/v1/schedules`

use insta::assert_json_snapshot;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{App, Reply, id};

fn weekly() -> Value {
    json!({
        "name": "rent",
        "schedule": {"cron": "0 9 1 * *", "time_zone": "Europe/Berlin"},
        "template": {
            "title": "pay the rent of {{date:%B %Y}}",
            "priority": "high",
            "tags": ["money"],
            "due_in": "8h",
            "reminders": [{"before": "1h"}],
        },
    })
}

fn path(schedule: &Value) -> String {
    format!("/api/v1/schedules/{}", id(schedule))
}

#[tokio::test]
async fn a_created_schedule_is_shown_with_its_place_and_version() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let created = ada.post("/api/v1/schedules", &weekly()).await.expect(201);
    assert_eq!(created.header("location"), path(&created.body));
    assert_eq!(created.header("etag"), "\"1\"");
    assert_json_snapshot!("created_schedule", created.body, {
        ".id" => "[id]", ".next_at" => "[time]", ".created_at" => "[time]", ".updated_at" => "[time]",
    });
    let read = ada.get(&path(&created.body)).await.expect(200);
    assert_eq!(read.body, created.body);
    let list = ada.get("/api/v1/schedules").await.expect(200);
    assert_eq!(list.body, json!({"items": [created.body], "next_cursor": null}));
    let known = ada
        .request(Method::GET, &path(&created.body))
        .header("if-none-match", "\"1\"");
    Reply::to(known).await.expect(304);
}

#[tokio::test]
async fn a_patch_with_another_kind_of_rule_replaces_the_rule() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let cron = json!({
        "name": "tick", "schedule": {"cron": "0 9 * * 1", "time_zone": "UTC"}, "template": {"title": "tick"},
    });
    let schedule = ada.schedule(&cron).await;
    let changed = ada
        .patch(&path(&schedule), &json!({"schedule": {"every": "2h"}}))
        .await
        .expect(200);
    assert_eq!(changed.body["schedule"], json!({"every": "2h", "time_zone": "UTC"}));
    let two = json!({"schedule": {"every": "2h", "cron": "0 9 * * 1"}});
    ada.patch(&path(&schedule), &two).await.expect(422);
}

#[tokio::test]
async fn a_schedule_is_changed_for_the_version_that_was_seen() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let schedule = ada.schedule(&weekly()).await;
    let patch =
        json!({"name": "the rent", "template": {"due_in": null, "reminders": null}, "catch_up": {"policy": "latest"}});
    let change = || ada.patching(&path(&schedule), &patch).header("if-match", "\"1\"");
    let changed = Reply::to(change()).await.expect(200);
    assert_eq!(changed.header("etag"), "\"2\"");
    assert_eq!(changed.body["name"], "the rent");
    assert_eq!(changed.body["template"]["title"], schedule["template"]["title"]);
    assert_eq!(changed.body["template"]["due_in"], Value::Null);
    assert_eq!(
        changed.body["catch_up"],
        json!({"policy": "latest", "window": "30d", "max": 1000})
    );
    let refused = Reply::to(change()).await.expect(412);
    assert_eq!(
        (refused.problem(), refused.header("etag")),
        ("version-mismatch", "\"2\"")
    );

    let stale = ada
        .request(Method::DELETE, &path(&schedule))
        .header("if-match", "\"1\"");
    Reply::to(stale).await.expect(412);
    ada.delete(&path(&schedule)).await.expect(204);
    ada.get(&path(&schedule)).await.expect(404);
}

#[tokio::test]
async fn a_paused_schedule_says_so_until_it_is_resumed() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let schedule = ada.schedule(&weekly()).await;
    for (call, suspended) in [("pause", true), ("pause", true), ("resume", false)] {
        let reply = ada.call(&format!("{}/{call}", path(&schedule))).await.expect(200);
        assert_eq!(reply.body["suspended"], suspended);
        assert_eq!(reply.header("etag"), format!("\"{}\"", reply.body["version"]));
    }
}

#[tokio::test]
async fn a_preview_is_the_same_before_and_after_saving() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let mut schedule = weekly();
    schedule["schedule"] = json!({"cron": "30 2 * * *", "time_zone": "America/New_York", "start": "2031-03-08"});
    let unsaved = ada
        .post("/api/v1/schedules/preview?count=3", &schedule)
        .await
        .expect(200);
    // 2031-03-09 has no 02:30 in New York.
    let expected = json!({"items": ["2031-03-08T07:30:00Z", "2031-03-09T07:00:00Z", "2031-03-10T06:30:00Z"]});
    assert_eq!(unsaved.body, expected);
    let saved = ada.schedule(&schedule).await;
    assert_eq!(
        ada.get(&format!("{}/preview?count=3", path(&saved)))
            .await
            .expect(200)
            .body,
        expected
    );

    let ten = ada.get(&format!("{}/preview", path(&saved))).await.expect(200);
    assert_eq!(ten.body["items"].as_array().unwrap().len(), 10);
    for count in ["0", "101", "-1", "x"] {
        let refused = ada
            .get(&format!("{}/preview?count={count}", path(&saved)))
            .await
            .expect(422);
        assert_eq!(refused.fields(), ["count"], "{count}");
    }
    assert_eq!(
        ada.get("/api/v1/schedules").await.body["items"]
            .as_array()
            .unwrap()
            .len(),
        1,
        "a preview saves nothing"
    );
}

#[tokio::test]
async fn schedules_come_in_pages() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let mut made = Vec::new();
    for number in 0..7 {
        let mut schedule = weekly();
        schedule["name"] = json!(format!("schedule {number}"));
        made.push(id(&ada.schedule(&schedule).await).to_owned());
    }
    let mut walked = Vec::new();
    let mut path = "/api/v1/schedules?limit=3".to_owned();
    loop {
        let page = ada.get(&path).await.expect(200);
        walked.extend(
            page.body["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|schedule| id(schedule).to_owned()),
        );
        let Some(cursor) = page.body["next_cursor"].as_str() else {
            break;
        };
        path = format!("/api/v1/schedules?limit=3&cursor={cursor}");
    }
    assert_eq!(walked, made);
}
