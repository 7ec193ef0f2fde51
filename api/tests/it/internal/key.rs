//! Who may use the internal routes.

use reqwest::Method;

use super::{KEY, UID, minutely, put, spawn};
use crate::app::{App, Reply, config};

const SCHEDULES: &str = "/internal/v1/schedules";

#[tokio::test]
async fn without_an_internal_key_there_are_no_internal_routes() {
    let app = App::spawn().await;
    for caller in [app.user("ada"), app.bearer(KEY.to_owned()), app.nobody()] {
        let reply = caller.get(SCHEDULES).await.expect(404);
        assert_eq!(reply.problem(), "not-found");
        put(&caller, UID, &minutely("tick")).await.expect(404);
    }
}

#[tokio::test]
async fn only_the_whole_key_opens_them_and_it_opens_nothing_else() {
    let (app, operator) = spawn().await;
    operator.get(SCHEDULES).await.expect(200);
    let longer = format!("{KEY}x");
    for wrong in [&KEY[..KEY.len() - 1], &longer, "", "key"] {
        let caller = app.bearer(wrong.to_owned());
        let reply = caller.get(SCHEDULES).await.expect(401);
        assert_eq!(reply.problem(), "unauthorized");
        assert!(reply.header("www-authenticate").starts_with("Bearer"));
        put(&caller, UID, &minutely("tick")).await.expect(401);
        caller.delete(&format!("{SCHEDULES}/{UID}")).await.expect(401);
    }
    app.user("ada").get(SCHEDULES).await.expect(401);
    app.nobody().get(SCHEDULES).await.expect(401);
    let in_query = format!("{SCHEDULES}?key={}", KEY.replace(' ', "%20"));
    app.nobody().get(&in_query).await.expect(401);
    operator.get("/api/v1/tasks").await.expect(401);
    assert_eq!(super::count(&app.db.pool, "schedules").await, 0);
}

#[tokio::test]
async fn a_key_that_changes_is_taken_and_the_former_still_is() {
    const NEW: &str = "another internal key for tests, of 32 bytes or more";
    let mut keys = None;
    let app = App::spawn_state(config(), |state| {
        let state = state.with_internal_key(KEY.as_bytes()).unwrap();
        keys = state.internal_keys().cloned();
        state
    })
    .await;
    let (old, new) = (app.bearer(KEY.to_owned()), app.bearer(NEW.to_owned()));
    new.get(SCHEDULES).await.expect(401);
    let keys = keys.unwrap();
    assert!(
        keys.change(b"short")
            .unwrap_err()
            .to_string()
            .contains("at least 32 bytes")
    );
    keys.change(NEW.as_bytes()).unwrap();
    new.get(SCHEDULES).await.expect(200);
    old.get(SCHEDULES).await.expect(200);
}

#[tokio::test]
async fn users_are_not_told_of_them_and_a_body_is_bounded() {
    let (app, operator) = spawn().await;
    let document = app.nobody().get("/openapi.json").await.expect(200);
    assert!(!document.text.contains("internal/v1"));

    let path = format!("{SCHEDULES}/{UID}");
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(300 * 1024));
    let sent = operator
        .request(Method::PUT, &path)
        .header("content-type", "application/json")
        .body(large);
    assert_eq!(Reply::to(sent).await.expect(413).problem(), "body-too-large");
    let sent = operator.request(Method::PUT, &path).body("{}");
    assert_eq!(Reply::to(sent).await.expect(415).problem(), "unsupported-media-type");
    let reply = operator.get(SCHEDULES).await.expect(200);
    assert_eq!(reply.header("cache-control"), "no-store");
}
