//! `/api/v1/tasks/{id}`, `/complete` and `/reopen`

use insta::assert_json_snapshot;
use reqwest::Method;
use serde_json::{Value, json};
use todo_events::EventType;

use crate::app::{App, Reply, User, id};

fn path(task: &Value) -> String {
    format!("/api/v1/tasks/{}", id(task))
}

async fn full_task(user: &User) -> Value {
    user.task(&json!({
        "title": "water the plants",
        "description": "not too much",
        "priority": "critical",
        "category": "home",
        "tags": ["green"],
        "due": {"local": "2031-06-01T08:00:00", "time_zone": "America/New_York"},
        "reminders": [{"before": "1h"}],
    }))
    .await
}

#[tokio::test]
async fn in_a_patch_absent_stays_and_null_goes() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let before = full_task(&ada).await;

    let same = ada.patch(&path(&before), &json!({})).await.expect(200);
    assert_eq!(
        same.body, before,
        "an empty patch changes nothing, not even the version"
    );

    let patch = json!({"title": "water the palm", "category": null, "priority": null, "tags": ["palm"]});
    let after = ada.patch(&path(&before), &patch).await.expect(200);
    assert_eq!(after.header("etag"), "\"2\"");
    let mut expected = before.clone();
    expected["title"] = json!("water the palm");
    expected["category"] = Value::Null;
    expected["priority"] = json!("medium");
    expected["tags"] = json!(["palm"]);
    expected["version"] = json!(2);
    expected["updated_at"] = after.body["updated_at"].clone();
    assert_eq!(after.body, expected);

    let moved = ada
        .patch(&path(&before), &json!({"due": {"time_zone": "Europe/Berlin"}}))
        .await
        .expect(200);
    assert_eq!(
        moved.body["due"]["local"], "2031-06-01T08:00:00",
        "objects are merged field by field"
    );
    assert_eq!(moved.body["due"]["at"], "2031-06-01T06:00:00Z");

    let at = ada
        .patch(&path(&before), &json!({"due": {"at": "2031-07-01T10:00:00Z"}}))
        .await
        .expect(200);
    assert_eq!(
        at.body["due"]["local"], "2031-07-01T12:00:00",
        "an instant takes the place of the civil time that was there"
    );

    let undue = ada
        .patch(&path(&before), &json!({"due": null, "reminders": []}))
        .await
        .expect(200);
    assert_eq!(
        (&undue.body["due"], &undue.body["reminders"]),
        (&Value::Null, &json!([]))
    );
}

#[tokio::test]
async fn what_was_read_can_be_patched_with_plain_json_too() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let task = full_task(&ada).await;
    let request = ada
        .request(Method::PATCH, &path(&task))
        .json(&json!({"priority": "low"}));
    assert_eq!(Reply::to(request).await.expect(200).body["priority"], "low");
}

#[tokio::test]
async fn completing_and_reopening_are_shown_and_told_once() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let task = full_task(&ada).await;
    let completed = ada.call(&format!("{}/complete", path(&task))).await.expect(200);
    assert_eq!(completed.header("etag"), "\"2\"");
    assert_json_snapshot!("completed_task", completed.body, {
        ".id" => "[id]", ".reminders[].id" => "[id]",
        ".created_at" => "[time]", ".updated_at" => "[time]", ".completed_at" => "[time]",
    });
    let again = ada.call(&format!("{}/complete", path(&task))).await.expect(200);
    assert_eq!(again.body, completed.body);

    let reopened = ada.call(&format!("{}/reopen", path(&task))).await.expect(200);
    assert_eq!(
        (&reopened.body["status"], &reopened.body["completed_at"]),
        (&json!("open"), &Value::Null)
    );
    assert_eq!(reopened.body["version"], 3);
    let types: Vec<EventType> = app.events().await.iter().map(|event| event.event_type).collect();
    assert_eq!(types, [EventType::Created, EventType::Completed, EventType::Updated]);
}

#[tokio::test]
async fn a_deleted_task_is_gone() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let task = full_task(&ada).await;
    let deleted = ada.delete(&path(&task)).await.expect(204);
    assert_eq!(deleted.text, "");
    assert_eq!(ada.get(&path(&task)).await.expect(404).problem(), "not-found");
    assert_eq!(ada.delete(&path(&task)).await.expect(404).problem(), "not-found");
    assert_eq!(
        ada.patch(&path(&task), &json!({})).await.expect(404).problem(),
        "not-found"
    );
    assert_eq!(ada.get("/api/v1/tasks").await.body["items"], json!([]));
}

#[tokio::test]
async fn a_change_for_another_version_is_refused_with_the_current_one() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let task = full_task(&ada).await;
    ada.patch(&path(&task), &json!({"title": "second"})).await.expect(200);

    let change = json!({"title": "third"});
    for stale in ["\"1\"", "\"3\"", "W/\"2\"", "\"abc\"", "2"] {
        for (method, suffix) in [
            (Method::PATCH, ""),
            (Method::DELETE, ""),
            (Method::POST, "/complete"),
            (Method::POST, "/reopen"),
        ] {
            let request = ada
                .request(method.clone(), &format!("{}{suffix}", path(&task)))
                .header("if-match", stale);
            let refused = Reply::to(request.json(&change)).await.expect(412);
            assert_eq!(refused.problem(), "version-mismatch", "{method} {stale}");
            assert_eq!(refused.header("etag"), "\"2\"", "{method} {stale}");
        }
    }
    let any = ada.patching(&path(&task), &change).header("if-match", "*");
    assert_eq!(Reply::to(any).await.expect(200).header("etag"), "\"3\"");
    let current = ada.request(Method::DELETE, &path(&task)).header("if-match", "\"3\"");
    Reply::to(current).await.expect(204);
}

#[tokio::test]
async fn of_two_changes_of_one_version_one_wins() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    for _ in 0..10 {
        let task = full_task(&ada).await;
        let complete = || {
            let request = ada.request(Method::POST, &format!("{}/complete", path(&task)));
            Reply::to(request.header("if-match", "\"1\""))
        };
        let (one, other) = tokio::join!(complete(), complete());
        let mut statuses = [one.status.as_u16(), other.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412]);
        let events = app.events().await;
        let of_task = events.iter().filter(|event| event.subject.to_string() == id(&task));
        assert_eq!(
            of_task.filter(|event| event.event_type == EventType::Completed).count(),
            1
        );
    }
}

#[tokio::test]
async fn changes_of_one_task_at_once_are_all_kept() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let task = ada.task(&json!({"title": "busy"})).await;
    let mut changes = tokio::task::JoinSet::new();
    for (field, value) in [
        ("title", "busier"),
        ("description", "very"),
        ("category", "work"),
        ("priority", "high"),
    ] {
        let (ada, path) = (ada.clone(), path(&task));
        changes.spawn(async move { ada.patch(&path, &json!({field: value})).await.expect(200) });
    }
    changes.join_all().await;
    let after = ada.get(&path(&task)).await.expect(200).body;
    assert_eq!(after["version"], 5);
    assert_eq!(after["title"], "busier");
    assert_eq!(after["description"], "very");
    assert_eq!(after["category"], "work");
    assert_eq!(after["priority"], "high");
}

#[tokio::test]
async fn what_the_caller_has_is_not_sent_again() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let task = full_task(&ada).await;
    let get = |tags: &'static str| Reply::to(ada.request(Method::GET, &path(&task)).header("if-none-match", tags));
    for known in ["\"1\"", "W/\"1\"", "\"7\", \"1\"", "*"] {
        let reply = get(known).await.expect(304);
        assert_eq!((reply.header("etag"), reply.text.as_str()), ("\"1\"", ""), "{known}");
    }
    for unknown in ["\"2\"", "1", "\"x\""] {
        get(unknown).await.expect(200);
    }
}

#[tokio::test]
async fn a_head_is_a_get_without_its_body() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let task = full_task(&ada).await;
    let head = Reply::to(ada.request(Method::HEAD, &path(&task))).await.expect(200);
    assert_eq!((head.header("etag"), head.text.as_str()), ("\"1\"", ""));
    let missing = "/api/v1/tasks/00000000-0000-7000-8000-000000000000";
    assert_eq!(Reply::to(ada.request(Method::HEAD, missing)).await.expect(404).text, "");
}

#[tokio::test]
async fn options_say_what_can_be_done() {
    let app = App::spawn().await;
    let reply = Reply::to(app.nobody().request(Method::OPTIONS, "/api/v1/tasks"))
        .await
        .expect(204);
    let mut allowed: Vec<&str> = reply.header("allow").split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
}
