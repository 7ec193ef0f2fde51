//! Single roles as processes of their own: whether they live, whether they are ready, and how they stop.
//!
//! The sidecar is a stand-in that says that it is there and keeps secrets. With the real one everything runs in
//! `stack`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use todo_e2e::client::{Client, HTTP};
use todo_e2e::process::{Process, todo};
use todo_e2e::scene::{Scene, free_port};
use todo_e2e::{database, wait_for};
use tokio::task::JoinHandle;
use uuid::Uuid;

pub(crate) const SECRET: &str = "a secret of at least thirty-two bytes";
const PATIENCE: Duration = Duration::from_secs(30);

/// Something that looks like a sidecar to a process. Gone when it is dropped.
pub(crate) struct StandIn {
    server: JoinHandle<()>,
}

/// The one secret that a stand-in keeps, under any name, as the key `value`.
pub(crate) type Kept = Arc<Mutex<String>>;

impl StandIn {
    pub(crate) async fn start(port: u16, secret: Kept) -> Result<Self> {
        let router = Router::new()
            .route("/v1.0/healthz/outbound", get(|| async { StatusCode::NO_CONTENT }))
            .route("/v1.0/secrets/{store}/{name}", get(secret_of))
            .fallback(post(|| async { StatusCode::NO_CONTENT }))
            .with_state(secret);
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("the stand-in serves");
        });
        Ok(Self { server })
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn secret_of(State(secret): State<Kept>, Path((_store, _name)): Path<(String, String)>) -> Json<Value> {
    let secret = secret.lock().expect("nobody panics with it").clone();
    Json(json!({"value": secret}))
}

/// A migrated database, and where a process will listen.
async fn prepared(scene: &Scene) -> Result<(String, SocketAddr)> {
    let url = database::fresh().await?;
    scene.run_well(["migrate", "--database-url", &url]).await?;
    Ok((url, SocketAddr::from(([127, 0, 0, 1], free_port()?))))
}

/// Starts `todo` with this environment.
pub(crate) fn start(scene: &Scene, name: &str, args: &[&str], environment: &[(&str, &str)]) -> Result<Process> {
    let mut command = todo(args);
    command.envs(environment.iter().copied());
    Process::start(command, &scene.path(""), name)
}

/// The status and the body of a page; `None` while nobody listens.
pub(crate) async fn page(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let answer = HTTP.get(format!("http://{address}{path}")).send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

/// Waits until `/readyz` answers with this status, and returns what it says.
pub(crate) async fn readiness(address: SocketAddr, status: u16) -> Result<String> {
    wait_for(&format!("/readyz of {address} to be {status}"), PATIENCE, || async {
        Ok(page(address, "/readyz")
            .await
            .filter(|(answered, _)| *answered == status)
            .map(|(_, said)| said))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_over_dapr_lives_at_once_and_is_ready_when_its_sidecar_is() -> Result<()> {
    let scene = Scene::new()?;
    let (url, address) = prepared(&scene).await?;
    let port = free_port()?;
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("TODO_BUS", "dapr"),
        ("TODO_LISTEN", &address.to_string()),
        ("DAPR_HTTP_PORT", &port.to_string()),
    ];
    let mut worker = start(&scene, "audit", &["worker", "audit"], &environment)?;
    let said = wait_for("the worker to name the sidecar", PATIENCE, || async {
        let said = readiness(address, 503).await?;
        Ok(said.contains("sidecar").then_some(said))
    })
    .await?;
    ensure!(said.starts_with("not ready: "), "{said}");
    ensure!(
        page(address, "/healthz").await == Some((200, "ok\n".to_owned())),
        "it does not live"
    );
    ensure!(worker.stdout().is_empty(), "it said {}", worker.stdout());

    let sidecar = StandIn::start(port, Kept::default()).await?;
    let line = worker.line_with("is ready", PATIENCE).await?;
    ensure!(
        line == format!("todo worker audit is ready at http://{address}"),
        "{line}"
    );
    ensure!(readiness(address, 200).await? == "ok\n", "it is not quite ready");
    ensure!(deliver(address).await? == "SUCCESS", "it does not take events");
    let (status, metrics) = page(address, "/metrics").await.context("no metrics")?;
    ensure!(
        status == 200 && metrics.contains("todo_delivered_messages_total"),
        "{metrics}"
    );
    ensure!(
        page(address, "/dapr/subscribe").await == Some((200, "[]".to_owned())),
        "subscriptions are for manifests to declare"
    );

    drop(sidecar);
    readiness(address, 503).await?;
    ensure!(
        worker.stop().await?.success(),
        "it did not stop well: {}",
        worker.stderr()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_announces_its_subscriptions_where_no_manifest_does() -> Result<()> {
    let scene = Scene::new()?;
    let (url, address) = prepared(&scene).await?;
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("TODO_BUS", "dapr"),
        ("TODO_PUBSUB", "kafka"),
        ("TODO_SUBSCRIPTIONS", "announced"),
        ("TODO_LISTEN", &address.to_string()),
    ];
    let mut worker = start(&scene, "recurring", &["worker", "recurring"], &environment)?;
    // Asked as soon as the port is open, it answers when it can.
    let said = wait_for("the subscriptions", PATIENCE, || async {
        Ok(page(address, "/dapr/subscribe").await)
    })
    .await?;
    let subscriptions: Value = serde_json::from_str(&said.1)?;
    ensure!(
        subscriptions[0]["pubsubname"] == "kafka" && subscriptions[0]["topic"] == "task-events",
        "{subscriptions}"
    );
    ensure!(worker.stop().await?.success(), "{}", worker.stderr());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_waits_for_a_database_that_is_not_there_yet() -> Result<()> {
    let scene = Scene::new()?;
    let (url, address) = prepared(&scene).await?;
    let port = free_port()?;
    let real: PgConnectOptions = url.parse()?;
    let away = real.clone().port(port).to_url_lossy().to_string();
    let environment = [("DATABASE_URL", away.as_str()), ("TODO_LISTEN", &address.to_string())];
    let mut worker = start(&scene, "worker", &["worker"], &environment)?;
    let said = wait_for("the worker to name the database", PATIENCE, || async {
        Ok(Some(readiness(address, 503).await?).filter(|said| said.contains("cannot connect to the database")))
    })
    .await?;
    ensure!(said.starts_with("not ready: starting: "), "{said}");
    ensure!(
        page(address, "/healthz").await == Some((200, "ok\n".to_owned())),
        "it does not live"
    );
    let mut stopped = start(&scene, "stopped", &["worker", "--listen", "127.0.0.1:0"], &environment)?;
    wait_for("another to wait, too", PATIENCE, || async {
        Ok(stopped.stderr().contains("waiting").then_some(()))
    })
    .await?;
    ensure!(
        stopped.stop().await?.success(),
        "it cannot be stopped while it waits: {}",
        stopped.stderr()
    );

    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let server = (real.get_host().to_owned(), real.get_port());
    let forwarding = tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(server).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    worker.line_with("is ready", PATIENCE).await?;
    ensure!(worker.stop().await?.success(), "{}", worker.stderr());
    forwarding.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_serves_without_its_sidecar_and_says_so() -> Result<()> {
    let scene = Scene::new()?;
    let (url, address) = prepared(&scene).await?;
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("TODO_BUS", "dapr"),
        ("TODO_TOKEN_SECRET", SECRET),
        ("TODO_LISTEN", &address.to_string()),
        ("DAPR_HTTP_PORT", &free_port()?.to_string()),
    ];
    let mut api = start(&scene, "api", &["api"], &environment)?;
    api.line_with(&format!("todo api is ready at http://{address}"), PATIENCE)
        .await?;
    let said = readiness(address, 200).await?;
    ensure!(said.starts_with("degraded: ") && said.contains("sidecar"), "{said}");
    let token = scene.run_well(["token", "--user", "ada", "--secret", SECRET]).await?;
    let ada = Client::new(&format!("http://{address}"), token.trim())?;
    ada.post("/tasks", &json!({"title": "Water the plants"})).await?;
    ensure!(api.stop().await?.success(), "it did not stop well: {}", api.stderr());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_finishes_what_it_has_and_lets_the_rest_come_again() -> Result<()> {
    let scene = Scene::new()?;
    let (url, address) = prepared(&scene).await?;
    let port = free_port()?;
    let _sidecar = StandIn::start(port, Kept::default()).await?;
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("TODO_BUS", "dapr"),
        ("TODO_LISTEN", &address.to_string()),
        ("DAPR_HTTP_PORT", &port.to_string()),
    ];
    let mut worker = start(&scene, "audit", &["worker", "audit"], &environment)?;
    worker.line_with("is ready", PATIENCE).await?;

    // The inbox is busy: a delivery waits in its transaction.
    let mut holder = sqlx::PgConnection::connect(&url).await?;
    sqlx::raw_sql("BEGIN; LOCK TABLE inbox IN ACCESS EXCLUSIVE MODE")
        .execute(&mut holder)
        .await?;
    let first = tokio::spawn(deliver(address));
    let pool = database::open(&url).await?;
    wait_for("the delivery to wait for the inbox", PATIENCE, || async {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO inbox%'",
        )
        .fetch_one(&pool)
        .await?;
        Ok((waiting > 0).then_some(()))
    })
    .await?;
    let rest = async {
        ensure!(readiness(address, 503).await?.contains("stopping"), "it is still ready");
        ensure!(deliver(address).await? == "RETRY", "it took more");
        tokio::time::sleep(Duration::from_secs(2)).await;
        ensure!(!first.is_finished(), "it left a delivery behind");
        sqlx::raw_sql("COMMIT").execute(&mut holder).await?;
        ensure!(first.await?? == "SUCCESS", "what ran was not settled");
        Ok(())
    };
    let (status, rest) = tokio::join!(worker.stop(), rest);
    rest?;
    ensure!(status?.success(), "it did not stop well: {}", worker.stderr());
    let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM audit")
        .fetch_one(&pool)
        .await?;
    ensure!(applied == 1, "{applied} events were applied");
    Ok(())
}

/// Delivers a new event as a sidecar does; returns the status in the answer.
async fn deliver(address: SocketAddr) -> Result<String> {
    let id = Uuid::now_v7();
    let event = json!({
        "specversion": "1.0",
        "id": id,
        "source": "/todoplatform.dev/tasks",
        "type": "dev.todoplatform.task.created.v1",
        "subject": id,
        "time": "2026-11-21T08:30:00Z",
        "datacontenttype": "application/json",
        "partitionkey": "ada",
        "sequence": "1",
        "data": {
            "event_id": id, "event_type": "created", "task_id": id, "user_id": "ada", "version": 1, "actor": "ada",
            "timestamp": "2026-11-21T08:30:00Z", "task_data": {"title": "x"},
        },
    });
    let answer: Value = HTTP
        .post(format!("http://{address}/events/task-events"))
        .json(&event)
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    Ok(answer["status"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_over_dapr_cannot_be_is_refused_by_name() -> Result<()> {
    let scene = Scene::new()?;
    for (args, words) in [
        (&["worker", "--bus", "dapr"][..], &["name the role", "TODO_BUS"][..]),
        (
            &["worker", "audit", "recurring", "--bus", "dapr"],
            &["audit and recurring"],
        ),
        (
            &["worker", "audit", "--bus", "dapr", "--listen", "0.0.0.0:0"],
            &["0.0.0.0:0", "APP_API_TOKEN"],
        ),
        (
            &["worker", "reminders", "--alarms", "true", "--listen", "0.0.0.0:0"],
            &["APP_API_TOKEN"],
        ),
    ] {
        let output = scene
            .run([args, &["--database-url", "postgres://nobody@127.0.0.1:1/none"]].concat())
            .await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(2),
            "{args:?} ended with {}: {said}",
            output.status
        );
        ensure!(said.lines().count() == 1, "{args:?} said {said}");
        for word in words {
            ensure!(said.contains(word), "{word:?} is not in {said:?}");
        }
    }
    Ok(())
}
