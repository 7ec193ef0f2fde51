//! `/api/{user_id}/…`: the same routes, for the token's user only.

use insta::assert_json_snapshot;
use reqwest::Method;
use serde_json::json;

use crate::app::{App, Reply, id};

#[tokio::test]
async fn a_user_has_the_same_tasks_under_their_own_id() {
    let app = App::spawn().await;
    for (user, segment) in [
        ("ada", "ada"),
        ("auth0|x", "auth0%7Cx"),
        ("a/b c", "a%2Fb%20c"),
        ("ünï", "%C3%BCn%C3%AF"),
        ("v1", "v1"),
    ] {
        let ada = app.user(user);
        let created = ada
            .post(&format!("/api/{segment}/tasks"), &json!({"title": "mine"}))
            .await
            .expect(201);
        assert_eq!(created.body["user_id"], user);
        assert_eq!(
            created.header("location"),
            format!("/api/{segment}/tasks/{}", id(&created.body))
        );
        ada.get(created.header("location")).await.expect(200);
        ada.get(&format!("/api/v1/tasks/{}", id(&created.body)))
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn another_users_id_is_forbidden() {
    let app = App::spawn().await;
    let ada = app.user("ada");
    for segment in ["bob", "Ada", "ada%20", "%61da%00", "ad"] {
        let refused = ada.get(&format!("/api/{segment}/tasks")).await.expect(403);
        assert_eq!(refused.problem(), "forbidden", "{segment}");
    }
    ada.get("/api/%61da/tasks").await.expect(200);
    let refused = app
        .user("bob")
        .post("/api/ada/tasks", &json!({"title": "forged"}))
        .await
        .expect(403);
    assert_json_snapshot!("forbidden", refused.body, {".instance" => "[id]"});
    assert_eq!(ada.get("/api/ada/tasks").await.body["items"], json!([]));
}

#[tokio::test]
async fn an_id_that_is_not_text_leads_nowhere() {
    let app = App::spawn().await;
    let reply = Reply::to(app.user("ada").request(Method::GET, "/api/%FF%FE/tasks")).await;
    assert!(reply.status.is_client_error(), "{reply:?}");
    reply.problem();
}
