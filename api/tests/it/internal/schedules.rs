//! `/internal/v1/schedules`: whose schedules they are, and how the list is asked for.

use std::time::Duration;

use serde_json::{Value, json};

use super::changes::Follower;
use super::{UID, minutely, put, spawn, with};

#[tokio::test]
async fn a_user_is_known_from_their_first_request_on() {
    let (app, operator) = spawn().await;
    let mut follower = Follower::new(&operator);
    let state = put(&operator, UID, &with(minutely("tick"), &json!({"user": "eve"}))).await;
    assert_eq!(state.expect(200).body["user_known"], false);
    // What the platform makes for somebody does not make them known.
    super::wake_after(&app.db.pool, 3).await;
    let seen = follower.until(|items| items.iter().any(|item| item["made"] == 3)).await;
    assert!(seen.iter().all(|item| item["user_known"] == false));

    app.user("ada").get("/api/v1/tasks").await.expect(200);
    app.user("eve").get("/api/v1/tasks").await.expect(200);
    let seen = follower.until(|items| !items.is_empty()).await;
    assert_eq!(seen.len(), 1);
    assert_eq!((&seen[0]["uid"], &seen[0]["user_known"]), (&json!(UID), &json!(true)));
    let known = put(&operator, UID, &with(minutely("tick"), &json!({"user": "eve"}))).await;
    assert_eq!(known.expect(200).body["user_known"], true);
}

#[tokio::test]
async fn only_what_resources_declare_is_listed() {
    let (app, operator) = spawn().await;
    app.user("ada")
        .schedule(&json!({
            "name": "own", "schedule": {"cron": "0 9 * * 1", "time_zone": "UTC"}, "template": {"title": "own"},
        }))
        .await;
    put(&operator, UID, &minutely("tick")).await.expect(200);
    let mut follower = Follower::new(&operator);
    let seen = follower.until(|items| !items.is_empty()).await;
    let uids: Vec<&Value> = seen.iter().map(|item| &item["uid"]).collect();
    assert_eq!(uids, [UID]);
}

#[tokio::test]
async fn a_question_that_is_not_understood_is_refused() {
    let (_app, operator) = spawn().await;
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("after=yesterday", "after"),
        ("since=yesterday", "since"),
    ] {
        let reply = operator
            .get(&format!("/internal/v1/schedules?{query}"))
            .await
            .expect(422);
        assert_eq!(reply.fields(), [field], "{query}");
    }
    // Also when there is nothing, the answer says where to go on.
    let empty = operator.get("/internal/v1/schedules").await.expect(200).body;
    assert_eq!((&empty["items"], &empty["has_more"]), (&json!([]), &json!(false)));
    let cursor = empty["cursor"].as_str().unwrap().to_owned();
    put(&operator, UID, &minutely("tick")).await.expect(200);
    for _ in 0..100 {
        let next = operator
            .get(&format!("/internal/v1/schedules?after={cursor}"))
            .await
            .expect(200);
        if next.body["items"].as_array().unwrap().len() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the first schedule does not show");
}
