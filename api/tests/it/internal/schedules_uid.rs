//! `/internal/v1/schedules/{uid}`

use insta::assert_json_snapshot;
use jiff::Timestamp;
use serde_json::{Value, json};
use todo_tasks::schedule::{self, Declaration};

use super::changes::Follower;
use super::{OTHER_UID, UID, count, minutely, put, spawn, wake_after, with};

fn instant(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_declared_schedule_is_answered_with_its_state_and_makes_its_tasks() {
    let (app, operator) = spawn().await;
    let state = put(&operator, UID, &minutely("tick")).await.expect(200).body;
    assert_json_snapshot!("declared_schedule", state, {".id" => "[id]", ".next_at" => "[time]"});
    assert!(instant(&state["next_at"]) > Timestamp::now());

    wake_after(&app.db.pool, 5).await;
    let after = put(&operator, UID, &minutely("tick")).await.expect(200).body;
    assert_eq!(after["made"], 5);
    assert!(instant(&after["last_at"]) < instant(&after["next_at"]));
    let ada = app.user("ada");
    let tasks = ada.get("/api/v1/tasks").await.expect(200).body;
    assert_eq!(tasks["items"].as_array().unwrap().len(), 5);
    let schedules = ada.get("/api/v1/schedules").await.expect(200).body;
    assert_eq!(schedules["items"][0]["id"], after["id"]);
}

#[tokio::test]
async fn the_same_again_changes_nothing() {
    let (app, operator) = spawn().await;
    let first = put(&operator, UID, &minutely("tick")).await.expect(200).body;
    let xid = "SELECT changed_xid::text FROM schedules";
    let before: String = sqlx::query_scalar(xid).fetch_one(&app.db.pool).await.unwrap();
    for _ in 0..3 {
        assert_eq!(put(&operator, UID, &minutely("tick")).await.expect(200).body, first);
    }
    let after: String = sqlx::query_scalar(xid).fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(before, after, "nothing was written");
}

#[tokio::test]
async fn a_changed_rule_keeps_the_counts_and_moves_the_next() {
    let (app, operator) = spawn().await;
    put(&operator, UID, &minutely("tick")).await.expect(200);
    wake_after(&app.db.pool, 5).await;
    let yearly = with(
        minutely("tick"),
        &json!({"hash": "h2", "schedule": {"cron": "0 0 1 1 *", "time_zone": "UTC"}}),
    );
    let state = put(&operator, UID, &yearly).await.expect(200).body;
    assert_eq!((&state["made"], &state["hash"]), (&json!(5), &json!("h2")));
    assert!(state["next_at"].as_str().unwrap().ends_with("-01-01T00:00:00Z"));
    assert_eq!(count(&app.db.pool, "schedules").await, 1);
}

#[tokio::test]
async fn a_schedule_that_has_ended_or_is_suspended_is_taken_and_says_so() {
    let (_app, operator) = spawn().await;
    let ended = with(
        minutely("ended"),
        &json!({"schedule": {"cron": "0 9 * * *", "time_zone": "UTC", "end": "2026-01-01"}}),
    );
    let state = put(&operator, UID, &ended).await.expect(200).body;
    assert_eq!((&state["ended"], &state["next_at"]), (&json!(true), &Value::Null));
    assert_eq!(put(&operator, UID, &ended).await.expect(200).body, state);

    let suspended = with(minutely("suspended"), &json!({"suspended": true}));
    let state = put(&operator, OTHER_UID, &suspended).await.expect(200).body;
    assert_eq!(
        (&state["suspended"], &state["ended"], &state["next_at"]),
        (&json!(true), &json!(false), &Value::Null)
    );
    let resumed = put(&operator, OTHER_UID, &minutely("suspended")).await.expect(200).body;
    assert!(instant(&resumed["next_at"]) > Timestamp::now());
}

#[tokio::test]
async fn what_is_wrong_is_named_as_the_resource_has_it_and_nothing_is_kept() {
    let (app, operator) = spawn().await;
    let cron = |cron: &str| json!({"schedule": {"cron": cron, "time_zone": "UTC"}});
    let template = |field: &str, value: Value| {
        let mut template = minutely("tick")["template"].clone();
        template[field] = value;
        json!({"template": template})
    };
    for (wrong, field) in [
        (cron("0 0 30 2 *"), "spec.schedule.cron"),
        (cron("every day"), "spec.schedule.cron"),
        (
            json!({"schedule": {"cron": "0 9 * * *", "every": "1d", "time_zone": "UTC"}}),
            "spec.schedule.every",
        ),
        (
            json!({"schedule": {"cron": "0 9 * * *", "time_zone": "Mars/Olympus"}}),
            "spec.timeZone",
        ),
        (
            json!({"schedule": {"rrule": "FREQ=HOURLY", "time_zone": "UTC"}}),
            "spec.schedule.rrule",
        ),
        (json!({"schedule": {"cron": "0 9 * * *", "tz": "UTC"}}), "spec.tz"),
        (json!({"user": "a\u{7}da"}), "spec.user"),
        (template("title", json!("")), "spec.template.title"),
        (template("title", json!("{{unknown}}")), "spec.template.title"),
        (template("due_in", json!("soon")), "spec.template.dueIn"),
        (
            template("reminders", json!([{"before": "1h"}])),
            "spec.template.reminders",
        ),
        (
            json!({"catch_up": {"policy": "all", "window": "30d", "max": 0}}),
            "spec.catchUp.max",
        ),
        (json!({"name": "two\nlines"}), "metadata.name"),
        (json!({"origin": "tick"}), "origin"),
        (json!({"hash": ""}), "hash"),
        (json!({"adopt": ["with space"]}), "adopt"),
        (json!({"of_the_future": true}), "of_the_future"),
    ] {
        let reply = put(&operator, UID, &with(minutely("tick"), &wrong)).await.expect(422);
        assert_eq!((reply.problem(), reply.fields()), ("invalid", vec![field]), "{wrong}");
        assert!(reply.body["detail"].as_str().unwrap().starts_with(field));
    }
    for wrong in ["..", "with%20space", "manifest%2Fhome%2Ftick"] {
        let reply = put(&operator, wrong, &minutely("tick")).await;
        assert!(reply.status.is_client_error(), "{reply:?}");
    }
    assert_eq!(count(&app.db.pool, "schedules").await, 0);
}

#[tokio::test]
async fn a_refused_change_leaves_what_is_in_force() {
    let (_app, operator) = spawn().await;
    let before = put(&operator, UID, &minutely("tick")).await.expect(200).body;
    let wrong = with(
        minutely("tick"),
        &json!({"hash": "h2", "schedule": {"cron": "0 0 30 2 *", "time_zone": "UTC"}}),
    );
    put(&operator, UID, &wrong).await.expect(422);
    let after = Follower::new(&operator).until(|items| !items.is_empty()).await;
    assert_eq!(after, [before]);
}

#[tokio::test]
async fn two_resources_with_the_same_content_are_two_schedules() {
    let (app, operator) = spawn().await;
    let one = put(&operator, UID, &minutely("one")).await.expect(200).body;
    let content = json!({"name": "one", "origin": "team/two", "adopt": []});
    let two = put(&operator, OTHER_UID, &with(minutely("one"), &content))
        .await
        .expect(200)
        .body;
    assert_ne!(one["id"], two["id"]);
    wake_after(&app.db.pool, 3).await;
    assert_eq!(count(&app.db.pool, "tasks").await, 6);
}

#[tokio::test]
async fn a_resource_of_a_restored_cluster_takes_its_schedule_over() {
    let (app, operator) = spawn().await;
    let before = put(&operator, UID, &minutely("tick")).await.expect(200).body;
    wake_after(&app.db.pool, 4).await;
    let after = put(&operator, OTHER_UID, &minutely("tick")).await.expect(200).body;
    assert_eq!((&after["id"], &after["uid"]), (&before["id"], &json!(OTHER_UID)));
    assert_eq!(after["made"], 4);
    wake_after(&app.db.pool, 4).await;
    let tasks = count(&app.db.pool, "tasks").await;
    assert!((4..=5).contains(&tasks), "the same occurrences again: {tasks}");
    assert_eq!(count(&app.db.pool, "schedules").await, 1);
}

#[tokio::test]
async fn a_schedule_of_a_manifest_becomes_the_resources_and_no_other_makes_its_tasks() {
    let (app, operator) = spawn().await;
    let pool = &app.db.pool;
    for key in ["manifest/home/tick", "manifest/home/other"] {
        let declaration: Declaration = serde_json::from_value(minutely("tick")).unwrap();
        let user = declaration.user().unwrap();
        let mut tx = pool.begin().await.unwrap();
        schedule::put_external(&mut tx, &user, key, declaration.input())
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
    wake_after(pool, 5).await;
    assert_eq!(count(pool, "tasks").await, 10);

    let state = put(&operator, UID, &minutely("tick")).await.expect(200).body;
    assert_eq!(state["made"], 5);
    let kept = "schedules WHERE external_uid = 'manifest/home/other' AND deleted_at IS NULL";
    assert_eq!(count(pool, kept).await, 1);
    assert_eq!(count(pool, "schedules").await, 2);

    // One that comes to be beside it is ended by the next declaration.
    sqlx::query(
        "INSERT INTO schedules (
            id, user_id, external_uid, name, rule, template, anchor_at, cursor_at, next_at
        )
        SELECT
            gen_random_uuid(), user_id, 'manifest/home/default-tick', name, rule, template, anchor_at, cursor_at,
            next_at
        FROM schedules
        WHERE external_uid = $1",
    )
    .bind(UID)
    .execute(pool)
    .await
    .unwrap();
    let again = put(&operator, UID, &minutely("tick")).await.expect(200).body;
    assert_eq!(again["id"], state["id"]);
    let ended = "schedules WHERE external_uid = 'manifest/home/default-tick' AND deleted_at IS NULL";
    assert_eq!(count(pool, ended).await, 0);
}

#[tokio::test]
async fn two_operators_at_once_make_one_schedule() {
    let (app, operator) = spawn().await;
    for round in 0..8 {
        let name = format!("tick-{round}");
        let body = minutely(&name);
        let uids: Vec<String> = (0..4).map(|copy| format!("uid-{round}-{copy}")).collect();
        let puts = uids.iter().map(|uid| put(&operator, uid, &body));
        for reply in futures::future::join_all(puts).await {
            reply.expect(200);
        }
    }
    assert_eq!(count(&app.db.pool, "schedules WHERE deleted_at IS NULL").await, 8);
}

#[tokio::test]
async fn deleting_keeps_the_tasks_and_may_be_said_again() {
    let (app, operator) = spawn().await;
    let path = format!("/internal/v1/schedules/{UID}");
    operator.delete(&path).await.expect(204);
    put(&operator, UID, &minutely("tick")).await.expect(200);
    wake_after(&app.db.pool, 3).await;
    for _ in 0..2 {
        operator.delete(&path).await.expect(204);
    }
    wake_after(&app.db.pool, 3).await;
    assert_eq!(count(&app.db.pool, "tasks WHERE deleted_at IS NULL").await, 3);
    let schedules = app.user("ada").get("/api/v1/schedules").await.expect(200).body;
    assert_eq!(schedules["items"], json!([]));

    // Another resource of that name begins anew; the same one goes on from then.
    let new = put(&operator, OTHER_UID, &minutely("tick")).await.expect(200).body;
    assert_eq!(new["made"], 0);
    operator
        .delete(&format!("/internal/v1/schedules/{OTHER_UID}"))
        .await
        .expect(204);
    let back = put(&operator, UID, &minutely("tick")).await.expect(200).body;
    assert_eq!(back["made"], 3);
    assert!(instant(&back["next_at"]) > Timestamp::now());
}

#[tokio::test]
async fn what_users_change_is_shown_and_declared_again() {
    let (app, operator) = spawn().await;
    let state = put(&operator, UID, &minutely("tick")).await.expect(200).body;
    let ada = app.user("ada");
    let path = format!("/api/v1/schedules/{}", state["id"].as_str().unwrap());
    ada.patch(&path, &json!({"name": "mine"})).await.expect(200);
    let hash = "SELECT external_hash FROM schedules";
    let kept: Option<String> = sqlx::query_scalar(hash).fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(kept, None, "it is no longer what was declared");
    let again = put(&operator, UID, &minutely("tick")).await.expect(200).body;
    assert_eq!((&again["hash"], &again["id"]), (&json!("h1"), &state["id"]));
    assert_eq!(ada.get(&path).await.expect(200).body["name"], "tick");

    ada.delete(&path).await.expect(204);
    let back = put(&operator, UID, &minutely("tick")).await.expect(200).body;
    assert_eq!((&back["id"], &back["deleted"]), (&state["id"], &json!(false)));
}
