//! What holds for every route: the loops go over the OpenAPI document, so that a new route is in them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{App, Reply, User, id};

/// A route, with a body that its handler would accept.
struct Route {
    method: Method,
    path: String,
    body: Option<Value>,
}

fn routes() -> Vec<Route> {
    let document = serde_json::to_value(todo_api::openapi()).unwrap();
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let Ok(method) = method.to_uppercase().parse() else {
                continue;
            };
            let body = operation.get("requestBody").map(|_| body(&method, path));
            routes.push(Route {
                method,
                path: path.clone(),
                body,
            });
        }
    }
    assert!(routes.len() >= 26, "only {} routes", routes.len());
    routes
}

fn body(method: &Method, path: &str) -> Value {
    if *method == Method::PATCH {
        json!({})
    } else if path.ends_with("/reminders") {
        json!({"at": {"at": "2031-01-01T12:00:00Z"}})
    } else if path.ends_with("/messages") {
        json!({"role": "user", "content": "hello"})
    } else if path.contains("/schedules") {
        json!({
            "name": "weekly",
            "schedule": {"cron": "0 9 * * 1", "time_zone": "UTC"},
            "template": {"title": "again"},
        })
    } else {
        json!({"title": "a task"})
    }
}

async fn call(user: &User, route: &Route, path: &str) -> Reply {
    let mut request = user.request(route.method.clone(), path);
    if let Some(body) = &route.body {
        let media_type = if route.method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        request = request.header("content-type", media_type).body(body.to_string());
    }
    Reply::to(request).await
}

/// One of each kind of thing, and their paths.
async fn belongings(app: &App, user: &User) -> impl Fn(&str) -> String + use<> {
    let soon = json!({"at": {"at": "2026-01-01T08:00:00Z"}});
    let task = user.task(&json!({"title": "secret", "reminders": [soon]})).await;
    for number in 0..5 {
        user.task(&json!({"title": format!("secret {number}"), "reminders": [soon]}))
            .await;
    }
    let schedule = user.schedule(&body(&Method::POST, "/schedules")).await;
    let conversation = user.call("/api/v1/conversations").await.expect(201).body;
    let messages = format!("/api/v1/conversations/{}/messages", id(&conversation));
    user.post(&messages, &json!({"role": "user", "content": "a secret"}))
        .await
        .expect(201);
    app.send_reminders().await;
    let digest = user.get("/api/v1/notifications").await.body["items"][0].clone();
    let (task_id, reminder_id) = (id(&task).to_owned(), id(&task["reminders"][0]).to_owned());
    let (schedule_id, digest_id) = (id(&schedule).to_owned(), id(&digest).to_owned());
    let conversation_id = id(&conversation).to_owned();
    move |template: &str| {
        let own = if template.contains("/schedules") {
            &schedule_id
        } else if template.contains("/notifications") {
            &digest_id
        } else if template.contains("/conversations") {
            &conversation_id
        } else {
            &task_id
        };
        template.replace("{id}", own).replace("{reminder_id}", &reminder_id)
    }
}

#[tokio::test]
async fn another_users_things_are_not_there() {
    let app = App::spawn().await;
    let (ada, bob) = (app.user("ada"), app.user("bob"));
    let path_of = belongings(&app, &ada).await;
    for route in routes() {
        let path = path_of(&route.path);
        let reply = call(&bob, &route, &path).await;
        assert!(!mentions_ada(&reply), "{} {path}: {reply:?}", route.method);
        if route.path.contains('{') {
            assert_eq!(reply.status, 404, "{} {path}: {reply:?}", route.method);
            assert_eq!(reply.problem(), "not-found");
        } else if route.method == Method::GET {
            assert_eq!(reply.expect(200).body["items"], json!([]), "{path}");
        }
    }
    let parent = path_of("{id}");
    let refused = bob
        .post("/api/v1/tasks", &json!({"title": "child", "parent_id": parent}))
        .await
        .expect(422);
    assert_eq!(refused.fields(), ["parent_id"]);
    let all = ada.get("/api/v1/tasks").await.body;
    assert_eq!(
        all["items"].as_array().unwrap().len(),
        6,
        "and nothing of hers has changed"
    );
    assert!(all["items"].as_array().unwrap().iter().all(|task| task["version"] == 1));
}

/// In quotes: an id may well have `ada` among its digits.
fn mentions_ada(reply: &Reply) -> bool {
    reply.text.contains("\"ada\"") || reply.text.contains("secret")
}

#[tokio::test]
async fn ones_own_things_are_there() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let path_of = belongings(&app, &ada).await;
    app.record_history().await;
    // Deleting last, or the others would find nothing.
    let mut routes = routes();
    routes.sort_by_key(|route| (route.method == Method::DELETE, std::cmp::Reverse(route.path.len())));
    for route in routes {
        let path = path_of(&route.path);
        let reply = call(&ada, &route, &path).await;
        assert!(reply.status.is_success(), "{} {path}: {reply:?}", route.method);
    }
}

#[tokio::test]
async fn no_route_is_open_without_a_token() {
    let app = App::spawn().await;
    for route in routes() {
        let path = route.path.replace("{id}", "0").replace("{reminder_id}", "0");
        for path in [path.clone(), path.replacen("/api/v1", "/api/ada", 1)] {
            let refused = call(&app.nobody(), &route, &path).await.expect(401);
            assert_eq!(refused.problem(), "unauthorized");
            assert!(refused.header("www-authenticate").starts_with("Bearer"), "{path}");
        }
    }
}

#[tokio::test]
async fn every_route_refuses_a_foreign_user_id() {
    let app = App::spawn().await;
    let (ada, bob) = (app.user("ada"), app.user("bob"));
    let path_of = belongings(&app, &ada).await;
    for route in routes() {
        let path = path_of(&route.path).replacen("/api/v1", "/api/ada", 1);
        assert_eq!(
            call(&bob, &route, &path).await.expect(403).problem(),
            "forbidden",
            "{} {path}",
            route.method
        );
    }
}

#[tokio::test]
async fn every_route_knows_its_parameters() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    let path_of = belongings(&app, &ada).await;
    for route in routes()
        .into_iter()
        .filter(|route| route.method == Method::GET && !route.path.ends_with("/reminders"))
    {
        if route.path.ends_with("/{id}") {
            continue;
        }
        let refused = call(&ada, &route, &format!("{}?colour=red", path_of(&route.path)))
            .await
            .expect(422);
        assert_eq!(refused.fields(), ["colour"], "{}", route.path);
    }
}

#[tokio::test]
async fn what_cannot_be_an_id_is_the_id_of_nothing() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    for route in routes().iter().filter(|route| route.path.contains('{')) {
        for wrong in ["0", "x", "%00", "00000000-0000-7000-8000-000000000000"] {
            let path = route.path.replace("{id}", wrong).replace("{reminder_id}", wrong);
            assert_eq!(
                call(&ada, route, &path).await.expect(404).problem(),
                "not-found",
                "{} {path}",
                route.method
            );
        }
    }
}
