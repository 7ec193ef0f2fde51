//! Secrets that change while a process runs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest::StatusCode;
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use todo_e2e::client::{Client, HTTP};
use todo_e2e::scene::{Scene, free_port};
use todo_e2e::stack::{Options, Part, Role, Stack};
use todo_e2e::{database, wait_for};
use uuid::Uuid;

use crate::processes::{Kept, SECRET, StandIn, page, readiness, start};

const PATIENCE: Duration = Duration::from_mins(1);

/// A migrated database and a role of its own, which may do in it what the platform does.
struct Database {
    admin: PgConnection,
    role: String,
    options: PgConnectOptions,
}

impl Database {
    async fn new(scene: &Scene) -> Result<Self> {
        let url = database::fresh().await?;
        scene.run_well(["migrate", "--database-url", &url]).await?;
        let options: PgConnectOptions = url.parse()?;
        let mut admin = PgConnection::connect_with(&options).await?;
        let role = format!("role_{}", Uuid::now_v7().simple());
        for statement in [
            format!("CREATE ROLE {role} LOGIN PASSWORD 'first'"),
            // It makes and drops partitions, which only an owner may.
            format!("GRANT {} TO {role}", options.get_username()),
            format!("ALTER ROLE {role} SET role = {}", options.get_username()),
        ] {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut admin).await?;
        }
        Ok(Self { admin, role, options })
    }

    fn url(&self, password: &str) -> String {
        let options = self.options.clone().username(&self.role).password(password);
        sqlx::ConnectOptions::to_url_lossy(&options).to_string()
    }

    async fn set_password(&mut self, password: &str) -> Result<()> {
        let statement = format!("ALTER ROLE {} PASSWORD '{password}'", self.role);
        sqlx::query(AssertSqlSafe(statement)).execute(&mut self.admin).await?;
        Ok(())
    }

    /// Ends the role's connections; returns how many.
    async fn terminate(&mut self) -> Result<u64> {
        let ended = sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1")
            .bind(&self.role)
            .execute(&mut self.admin)
            .await?;
        Ok(ended.rows_affected())
    }
}

/// Replaces a file as a cluster does with a mounted secret: at once, never half.
fn replace(path: &Path, content: &str) -> Result<()> {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, content)?;
    Ok(std::fs::rename(draft, path)?)
}

async fn client(scene: &Scene, address: SocketAddr, secret: &str) -> Result<Client> {
    let token = scene.run_well(["token", "--user", "ada", "--secret", secret]).await?;
    Client::new(&format!("http://{address}"), token.trim())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_database_password_is_taken_while_requests_run() -> Result<()> {
    let scene = Scene::new()?;
    let mut database = Database::new(&scene).await?;
    let file = scene.write("database-url", &format!("{}\n", database.url("first")))?;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let file_name = file.display().to_string();
    let listen = address.to_string();
    let environment = [
        ("DATABASE_URL_FILE", file_name.as_str()),
        ("TODO_TOKEN_SECRET", SECRET),
        ("TODO_LISTEN", &listen),
    ];
    let mut api = start(&scene, "api", &["api"], &environment)?;
    let mut worker = start(&scene, "worker", &["worker", "--listen", "127.0.0.1:0"], &environment)?;
    api.line_with("is ready", PATIENCE).await?;
    worker.line_with("is ready", PATIENCE).await?;
    let ada = client(&scene, address, SECRET).await?;

    let stop = Arc::new(AtomicBool::new(false));
    let (made, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let load = tokio::spawn({
        let (ada, stop, made, failed) = (ada.clone(), Arc::clone(&stop), Arc::clone(&made), Arc::clone(&failed));
        async move {
            while !stop.load(Ordering::Relaxed) {
                let counter = if ada.post("/tasks", &json!({"title": "tick"})).await.is_ok() {
                    &made
                } else {
                    &failed
                };
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });

    // First the file, then the server: until both agree, the password in use stays.
    let wrong = database.url("second");
    replace(&file, &wrong)?;
    wait_for("the wrong password to be told", PATIENCE, || async {
        Ok(api.stderr().contains("cannot be used").then_some(()))
    })
    .await?;
    ensure!(
        failed.load(Ordering::Relaxed) == 0,
        "a wrong password in the file did harm"
    );
    database.set_password("second").await?;
    wait_for("both to take the new password", PATIENCE, || async {
        let took = |said: String| said.contains("took the secret");
        Ok((took(api.stderr()) && took(worker.stderr())).then_some(()))
    })
    .await?;
    ensure!(
        failed.load(Ordering::Relaxed) == 0,
        "requests failed before connections were ended"
    );

    let before = made.load(Ordering::Relaxed);
    ensure!(database.terminate().await? > 0, "there were no connections to end");
    wait_for("requests over new connections", PATIENCE, || async {
        Ok((made.load(Ordering::Relaxed) > before + 20).then_some(()))
    })
    .await?;
    stop.store(true, Ordering::Relaxed);
    load.await?;
    // Those whose connection was ended under them, and no others: one at a time ran.
    let failed = failed.load(Ordering::Relaxed);
    println!(
        "{} requests, {failed} failed when their connections were ended",
        made.load(Ordering::Relaxed)
    );
    ensure!(failed <= 20, "{failed} requests failed");

    let pool = database::open(&database.url("second")).await?;
    wait_for("the worker to go on", PATIENCE, || async {
        let behind: i64 = sqlx::query_scalar("SELECT (SELECT count(*) FROM outbox) - (SELECT count(*) FROM audit)")
            .fetch_one(&pool)
            .await?;
        Ok((behind == 0).then_some(()))
    })
    .await?;
    for process in [&mut api, &mut worker] {
        let said = process.stderr();
        ensure!(
            !said.contains("first@") && !said.contains(":second"),
            "a password was logged: {said}"
        );
        ensure!(process.stop().await?.success(), "it did not stop well: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_or_no_url_in_the_file_changes_nothing() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    scene.run_well(["migrate", "--database-url", &url]).await?;
    let other = database::fresh().await?;
    let file = scene.write("database-url", &url)?;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let environment = [
        ("DATABASE_URL_FILE", file.display().to_string()),
        ("TODO_LISTEN", address.to_string()),
    ];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut worker = start(&scene, "worker", &["worker"], &environment)?;
    worker.line_with("is ready", PATIENCE).await?;
    for (content, told) in [
        ("hunter2", "cannot be read"),
        ("", "is empty"),
        (other.as_str(), "another server or database"),
    ] {
        replace(&file, content)?;
        wait_for(told, PATIENCE, || async {
            Ok(worker.stderr().contains(told).then_some(()))
        })
        .await?;
        ensure!(readiness(address, 200).await? == "ok\n", "it lost its database");
    }
    ensure!(!worker.stderr().contains("hunter2"), "{}", worker.stderr());
    ensure!(worker.stop().await?.success(), "{}", worker.stderr());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_secret_is_taken_at_once_and_the_former_for_a_while() -> Result<()> {
    const NEW: &str = "another secret of at least thirty-two bytes";
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    scene.run_well(["migrate", "--database-url", &url]).await?;
    let file = scene.write("token-secret", SECRET)?;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let environment = [
        ("DATABASE_URL", url),
        ("TODO_TOKEN_SECRET_FILE", file.display().to_string()),
        ("TODO_LISTEN", address.to_string()),
    ];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut api = start(&scene, "api", &["api"], &environment)?;
    api.line_with("is ready", PATIENCE).await?;
    let by_file = ["token", "--user", "ada", "--secret-file", &file.display().to_string()];
    let token = scene.run_well(by_file).await?;
    let old = Client::new(&format!("http://{address}"), token.trim())?;
    let new = client(&scene, address, NEW).await?;
    ensure!(
        old.status_of("/tasks").await? == StatusCode::OK,
        "the secret is not taken"
    );
    ensure!(
        new.status_of("/tasks").await? == StatusCode::UNAUTHORIZED,
        "any secret is taken"
    );

    replace(&file, "short")?;
    wait_for("the short secret to be told", PATIENCE, || async {
        Ok(api.stderr().contains("at least 32 bytes").then_some(()))
    })
    .await?;
    replace(&file, NEW)?;
    wait_for("the new secret", PATIENCE, || async {
        Ok((new.status_of("/tasks").await? == StatusCode::OK).then_some(()))
    })
    .await?;
    ensure!(
        old.status_of("/tasks").await? == StatusCode::OK,
        "tokens of the former secret are refused at once"
    );
    ensure!(!api.stderr().contains(NEW), "{}", api.stderr());
    ensure!(api.stop().await?.success(), "{}", api.stderr());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_waits_for_its_secret_store_and_takes_what_changes_there() -> Result<()> {
    let scene = Scene::new()?;
    let mut database = Database::new(&scene).await?;
    let port = free_port()?;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let environment = [
        ("DATABASE_URL_REF", "vault/todo/value".to_owned()),
        ("DAPR_HTTP_PORT", port.to_string()),
        ("TODO_LISTEN", address.to_string()),
    ];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut worker = start(&scene, "worker", &["worker"], &environment)?;
    ensure!(
        readiness(address, 503).await?.contains("starting"),
        "it does not say that it starts"
    );
    ensure!(
        page(address, "/healthz").await == Some((200, "ok\n".to_owned())),
        "it does not live"
    );

    let secret = Kept::default();
    *secret.lock().expect("nobody panics with it") = database.url("first");
    let _sidecar = StandIn::start(port, Kept::clone(&secret)).await?;
    worker.line_with("is ready", PATIENCE).await?;

    database.set_password("second").await?;
    *secret.lock().expect("nobody panics with it") = database.url("second");
    wait_for("the worker to take the new password", PATIENCE, || async {
        Ok(worker.stderr().contains("took the secret").then_some(()))
    })
    .await?;
    database.terminate().await?;
    wait_for("new connections", PATIENCE, || async {
        Ok(page(address, "/readyz").await.filter(|(status, _)| *status == 200))
    })
    .await?;
    ensure!(worker.stop().await?.success(), "{}", worker.stderr());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_has_its_secret_from_the_store_of_a_real_sidecar() -> Result<()> {
    let scene = Scene::new()?;
    let options = Options::default().set_for(Role::Api, "TODO_TOKEN_SECRET_REF", "secrets/tokens/secret");
    let stack = Stack::start(&scene, options).await?;
    let ada = stack.client(&scene, "ada").await?;
    ada.post("/tasks", &json!({"title": "Water the plants"})).await?;

    // Both come back at once: the API waits for its sidecar, and the sidecar for the API's port.
    for part in [Part::Service(Role::Api, 0), Part::Sidecar(Role::Api, 0)] {
        stack.kill(part).await?;
    }
    stack.begin(Part::Service(Role::Api, 0))?;
    wait_for("the API to live without its secret", PATIENCE, || async {
        let page = HTTP.get(format!("{}/healthz", stack.api_base())).send().await;
        Ok(page.is_ok_and(|page| page.status().is_success()).then_some(()))
    })
    .await?;
    ensure!(
        !stack.is_ready(Part::Service(Role::Api, 0)).await?,
        "it is ready without its secret"
    );
    stack.begin(Part::Sidecar(Role::Api, 0))?;
    stack.wait_until_ready().await?;
    ensure!(ada.list("/tasks").await?.len() == 1, "the task is not there");
    stack.stop().await?;
    Ok(())
}
