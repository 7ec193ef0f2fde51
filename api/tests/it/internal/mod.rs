//! `/internal/v1`, laid out like its URLs.

mod changes;
mod key;
mod schedules;
mod schedules_uid;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{App, Reply, User, config};

pub(super) const KEY: &str = "an internal key for tests, of 32 bytes or more";

pub(super) const UID: &str = "6a1f0f0e-0001-4c55-9a53-3c648e0b7d21";
pub(super) const OTHER_UID: &str = "6a1f0f0e-0002-4c55-9a53-3c648e0b7d21";

/// The API with internal routes, and somebody who has the key.
pub(super) async fn spawn() -> (App, User) {
    let app = App::spawn_state(config(), |state| state.with_internal_key(KEY.as_bytes()).unwrap()).await;
    let operator = app.bearer(KEY.to_owned());
    (app, operator)
}

/// What the operator sends for a resource `team/NAME` that makes a task of ada's each minute.
pub(super) fn minutely(name: &str) -> Value {
    json!({
        "origin": format!("team/{name}"),
        "adopt": [format!("manifest/home/{name}"), format!("manifest/home/default-{name}")],
        "hash": "h1",
        "user": "ada",
        "name": name,
        "schedule": {"cron": "* * * * *", "time_zone": "UTC"},
        "template": {"title": "tick {{n}}", "description": "", "priority": "medium", "category": null, "tags": [],
            "due_in": null, "reminders": []},
        "overlap": "allow",
        "catch_up": {"policy": "all", "window": "30d", "max": 1000},
        "suspended": false,
    })
}

/// The same with some fields replaced.
pub(super) fn with(mut declaration: Value, fields: &Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        declaration[name] = value.clone();
    }
    declaration
}

pub(super) async fn put(operator: &User, uid: &str, body: &Value) -> Reply {
    let path = format!("/internal/v1/schedules/{uid}");
    Reply::to(operator.request(Method::PUT, &path).json(body)).await
}

/// Lets all schedules have slept for a while, and then be looked at, as the worker does.
pub(super) async fn wake_after(pool: &PgPool, minutes: i32) {
    sqlx::query(
        "UPDATE schedules
         SET cursor_at = date_trunc('minute', now()) - make_interval(mins => $1),
             next_at = date_trunc('minute', now()) - make_interval(mins => $1 - 1)
         WHERE next_at IS NOT NULL",
    )
    .bind(minutes)
    .execute(pool)
    .await
    .unwrap();
    let mut tx = pool.begin().await.unwrap();
    todo_tasks::schedule::make_due(&mut tx, 1000).await.unwrap();
    tx.commit().await.unwrap();
}

/// How many rows a table has that fulfil a condition.
pub(super) async fn count(pool: &PgPool, what: &'static str) -> i64 {
    let query = format!("SELECT count(*) FROM {what}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(query))
        .fetch_one(pool)
        .await
        .unwrap()
}
