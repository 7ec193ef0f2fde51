//! A collector that is away costs nothing but its spans.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use todo_e2e::scene::{Scene, free_port};
use todo_e2e::{client, database, wait_for};

use crate::metrics::scrape;

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_is_mentioned_once_and_stops_nothing() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    let endpoint = format!("http://127.0.0.1:{}", free_port()?);
    let mut up = scene.up("up", &url, &["--otlp-endpoint", &endpoint]).await?;
    let alice = scene.client(&up.base, "alice").await?;
    let began = Instant::now();
    let mut made = 0;
    // Longer than it takes to send a batch twice.
    while began.elapsed() < Duration::from_secs(12) {
        alice.post("/tasks", &json!({"title": "on time"})).await?;
        made += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let lost = wait_for("spans to be counted as lost", Duration::from_secs(20), || async {
        let page = scrape(&up.base).await?;
        Ok(page
            .value("todo_trace_spans_total", &[("outcome", "lost")])
            .filter(|lost| *lost > 0.0))
    })
    .await?;
    assert_eq!(alice.list("/tasks").await?.len(), made);
    assert!(client::is_ready(&up.base).await);
    let stopping = Instant::now();
    assert!(up.process.stop().await?.success());
    assert!(stopping.elapsed() < Duration::from_secs(10), "{:?}", stopping.elapsed());
    let said = up.process.stderr();
    assert_eq!(
        said.matches("the collector does not take them").count(),
        1,
        "{lost} lost: {said}"
    );
    Ok(())
}
