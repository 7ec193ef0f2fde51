//! Pages and cursors.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use crate::app::{App, Reply, id};

#[tokio::test]
async fn a_walk_repeats_and_loses_nothing_while_tasks_are_added() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let mut making = tokio::task::JoinSet::new();
    for worker in 0..5 {
        let ada = ada.clone();
        making.spawn(async move {
            let mut made = Vec::new();
            for number in 0..100 {
                let mut task = json!({
                    "title": format!("task {worker} {number}"),
                    "priority": (["low", "medium", "high", "critical"][number % 4]),
                });
                if number % 3 > 0 {
                    // Many at the same instant: the id decides between them.
                    task["due"] = json!({"at": format!("2031-01-{:02}T12:00:00Z", 1 + number % 7)});
                }
                made.push(id(&ada.task(&task).await).to_owned());
            }
            made
        });
    }
    let made: BTreeSet<String> = making.join_all().await.into_iter().flatten().collect();
    assert_eq!(made.len(), 500);

    for order in ["sort=created_at", "sort=due_at", "sort=priority"] {
        for direction in ["asc", "desc"] {
            let mut walked = BTreeSet::new();
            let mut path = format!("/api/v1/tasks?{order}&direction={direction}&limit=37");
            loop {
                let page = ada.get(&path).await.expect(200);
                for task in page.body["items"].as_array().unwrap() {
                    assert!(
                        walked.insert(id(task).to_owned()),
                        "{order} {direction}: {task} came twice"
                    );
                }
                let link = page.header("link");
                let Some(cursor) = page.body["next_cursor"].as_str() else {
                    assert_eq!(link, "");
                    break;
                };
                let next = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
                assert!(next.contains(cursor) && next.contains("limit=37"), "{next}");
                next.clone_into(&mut path);
                let due = json!({"at": "2031-01-04T12:00:00Z"});
                ada.task(&json!({"title": "meanwhile", "priority": "high", "due": due}))
                    .await;
            }
            assert!(walked.is_superset(&made), "{order} {direction}: some were lost");
        }
    }
}

#[tokio::test]
async fn a_page_is_as_large_as_was_asked_for() {
    let app = App::spawn_with(todo_api::ApiConfig {
        max_page_size: 100,
        ..crate::app::config()
    })
    .await;
    let ada = app.user("ada");
    for number in 0..55 {
        ada.task(&json!({"title": format!("task {number}")})).await;
    }
    let count = |reply: &Reply| reply.body["items"].as_array().unwrap().len();
    assert_eq!(count(&ada.get("/api/v1/tasks").await.expect(200)), 50);
    assert_eq!(count(&ada.get("/api/v1/tasks?limit=1").await.expect(200)), 1);
    let all = ada.get("/api/v1/tasks?limit=55").await.expect(200);
    assert_eq!(count(&all), 55);
    assert!(all.body["next_cursor"].is_null(), "a full last page is the last page");
    ada.get("/api/v1/tasks?limit=100").await.expect(200);
    for limit in ["0", "101", "-1", "65536", "ten"] {
        let refused = ada.get(&format!("/api/v1/tasks?limit={limit}")).await.expect(422);
        assert_eq!(refused.fields(), ["limit"], "{limit}");
    }
}

#[tokio::test]
async fn a_cursor_of_another_list_is_refused() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    for number in 0..3 {
        ada.task(&json!({"title": format!("task {number}")})).await;
        let schedule = json!({
            "name": format!("schedule {number}"),
            "schedule": {"cron": "0 9 * * 1", "time_zone": "UTC"},
            "template": {"title": "again"},
        });
        ada.schedule(&schedule).await;
    }
    let task = ada.get("/api/v1/tasks?limit=1").await.body;
    let schedule = ada.get("/api/v1/schedules?limit=1").await.body;
    let (of_tasks, of_schedules) = (
        task["next_cursor"].as_str().unwrap(),
        schedule["next_cursor"].as_str().unwrap(),
    );
    let history = format!("/api/v1/tasks/{}/history", id(&task["items"][0]));
    for path in [
        format!("/api/v1/tasks?cursor={of_schedules}"),
        format!("/api/v1/tasks?sort=due_at&cursor={of_tasks}"),
        format!("/api/v1/tasks?direction=asc&cursor={of_tasks}"),
        format!("/api/v1/schedules?cursor={of_tasks}"),
        format!("/api/v1/notifications?cursor={of_schedules}"),
        format!("{history}?cursor={of_tasks}"),
        "/api/v1/tasks?cursor=".to_owned() + "!!!",
        "/api/v1/tasks?cursor=e30".to_owned(),
        "/api/v1/tasks?cursor=bm90IGpzb24".to_owned(),
    ] {
        let refused = ada.get(&path).await.expect(422);
        assert_eq!(
            (refused.problem(), refused.fields()),
            ("invalid", vec!["cursor"]),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_link_keeps_the_query_that_it_continues() {
    let app = App::spawn().await;
    let ada = app.user("auth0|ada");
    for number in 0..3 {
        ada.task(&json!({"title": format!("50% off {number}"), "tags": ["a b"]}))
            .await;
    }
    let path = "/api/auth0%7Cada/tasks?q=50%25&tag=a+b&limit=2";
    let page = Reply::to(ada.request(Method::GET, path)).await.expect(200);
    let link = page.header("link");
    assert!(
        link.starts_with("</api/auth0%7Cada/tasks?q=50%25&tag=a+b&limit=2&cursor="),
        "{link}"
    );
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    assert_eq!(
        ada.get(next).await.expect(200).body["items"].as_array().unwrap().len(),
        1
    );
}
