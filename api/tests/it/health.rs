//! `/healthz` and `/readyz`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use todo_api::Readiness;

use crate::app::{App, config};

#[tokio::test]
async fn readiness_needs_the_database_and_life_does_not() {
    let app = App::spawn().await;
    app.nobody().get("/readyz").await.expect(200);
    app.db.pool.close().await;
    let unready = app.nobody().get("/readyz").await.expect(503);
    assert_eq!(unready.problem(), "unavailable");
    assert_eq!(unready.header("retry-after"), "1");
    let alive = app.nobody().get("/healthz").await.expect(200);
    assert_eq!(alive.text, "ok\n");
}

#[tokio::test]
async fn readiness_asks_the_process_too() {
    let ending = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ending);
    let app = App::spawn_state(config(), |state| {
        state.ready_when(move || {
            let answer = if seen.load(Ordering::Relaxed) {
                Readiness::NotReady("shutting down".to_owned())
            } else {
                Readiness::Ready
            };
            Box::pin(async move { answer })
        })
    })
    .await;
    app.nobody().get("/readyz").await.expect(200);
    ending.store(true, Ordering::Relaxed);
    let unready = app.nobody().get("/readyz").await.expect(503);
    assert!(unready.body["detail"].as_str().unwrap().contains("shutting down"));
}
