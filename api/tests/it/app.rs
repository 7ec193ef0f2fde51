//! The API on a random port over a database of its own, and users who call it.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use sqlx::Row as _;
use todo_api::{ApiConfig, ApiState, AuthConfig, install_metrics, router, serve, token};
use todo_events::{Event, Waker};
use todo_tasks::{UserId, audit, reminder};
use todo_test_db::TestDb;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const SECRET: &[u8] = b"a secret for tests, of 32 bytes or more";

/// The recorder belongs to the process, and all tests share one.
pub(crate) fn metrics() -> PrometheusHandle {
    static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();
    METRICS.get_or_init(|| install_metrics().unwrap()).clone()
}

/// Accepts tokens of [`SECRET`], and no rate limit stands in a test's way.
pub(crate) fn config() -> ApiConfig {
    ApiConfig {
        rate_limit: None,
        ..ApiConfig::new(AuthConfig::Hs256 {
            secret: SECRET.to_vec(),
        })
    }
}

pub(crate) struct App {
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    /// What the API wakes others with.
    pub(crate) waker: Waker,
    pub(crate) shutdown: CancellationToken,
    pub(crate) server: JoinHandle<()>,
    /// Last, so that the database goes when nobody uses it.
    pub(crate) db: TestDb,
}

impl App {
    pub(crate) async fn spawn() -> Self {
        Self::spawn_with(config()).await
    }

    pub(crate) async fn spawn_with(config: ApiConfig) -> Self {
        Self::spawn_state(config, |state| state).await
    }

    pub(crate) async fn spawn_state(config: ApiConfig, adjust: impl FnOnce(ApiState) -> ApiState) -> Self {
        // Whichever test comes first has installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let db = TestDb::new().await;
        let waker = Waker::new();
        let state = ApiState::new(config, db.pool.clone(), waker.clone(), metrics()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, router(adjust(state)), shutdown.clone()));
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self {
            address,
            client,
            waker,
            shutdown,
            server,
            db,
        }
    }

    /// A user with a token of an hour.
    pub(crate) fn user(&self, name: &str) -> User {
        let user = UserId::parse(name).unwrap();
        self.bearer(token::sign(SECRET, &user, Duration::from_hours(1)).unwrap())
    }

    /// Somebody with this token.
    pub(crate) fn bearer(&self, token: String) -> User {
        User {
            address: self.address,
            client: self.client.clone(),
            token: Some(token),
        }
    }

    /// Somebody without a token.
    pub(crate) fn nobody(&self) -> User {
        User {
            address: self.address,
            client: self.client.clone(),
            token: None,
        }
    }

    /// Returns when a request waits for a row that somebody else holds.
    pub(crate) async fn somebody_waits(&self) {
        let waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')";
        for _ in 0..200 {
            if sqlx::query_scalar::<_, bool>(waiting)
                .fetch_one(&self.db.pool)
                .await
                .unwrap()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("nobody waits");
    }

    /// Does what the worker does: sends the reminders that are due.
    pub(crate) async fn send_reminders(&self) {
        let mut tx = self.db.pool.begin().await.unwrap();
        reminder::send_on_time(&mut tx, 1000).await.unwrap();
        reminder::send_late(&mut tx, 1000).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The events so far, in their order.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let rows = sqlx::query(
            "SELECT id, event_type, subject, user_id, version, actor, data, previous, traceparent
             FROM outbox
             ORDER BY xid, seq",
        )
        .fetch_all(&self.db.pool)
        .await
        .unwrap();
        rows.iter()
            .map(|row| Event {
                id: row.get("id"),
                event_type: row.get::<String, _>("event_type").parse().unwrap(),
                subject: row.get("subject"),
                user_id: row.get("user_id"),
                version: row.get("version"),
                actor: row.get("actor"),
                data: row.get("data"),
                previous: row.get("previous"),
                traceparent: row.get("traceparent"),
                time: jiff::Timestamp::now(),
            })
            .collect()
    }

    /// Does what the audit consumer does, once.
    pub(crate) async fn record_history(&self) {
        let mut conn = self.db.pool.acquire().await.unwrap();
        audit::record(&mut conn, &self.events().await).await.unwrap();
    }
}

/// Somebody who calls the API.
#[derive(Clone)]
pub(crate) struct User {
    address: SocketAddr,
    client: Client,
    token: Option<String>,
}

impl User {
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("http://{}{path}", self.address));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        Reply::to(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        Reply::to(self.request(Method::POST, path).json(body)).await
    }

    /// A POST without a body.
    pub(crate) async fn call(&self, path: &str) -> Reply {
        Reply::to(self.request(Method::POST, path)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Reply {
        Reply::to(self.patching(path, body)).await
    }

    pub(crate) fn patching(&self, path: &str, body: &Value) -> RequestBuilder {
        let request = self
            .request(Method::PATCH, path)
            .header("content-type", "application/merge-patch+json");
        request.body(body.to_string())
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        Reply::to(self.request(Method::DELETE, path)).await
    }

    /// Makes a task and returns it.
    pub(crate) async fn task(&self, body: &Value) -> Value {
        self.post("/api/v1/tasks", body).await.expect(201).body
    }

    /// Makes a schedule and returns it.
    pub(crate) async fn schedule(&self, body: &Value) -> Value {
        self.post("/api/v1/schedules", body).await.expect(201).body
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// Null when it is not JSON.
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) async fn to(request: RequestBuilder) -> Self {
        Self::read(request.send().await.unwrap()).await
    }

    async fn read(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_default();
        Self {
            status,
            headers,
            text,
            body,
        }
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{:?} {}", self.headers, self.text);
        self
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The last part of a problem's type. Also checks what every problem promises.
    #[track_caller]
    pub(crate) fn problem(&self) -> &str {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(self.body["status"], self.status.as_u16());
        assert_eq!(self.body["instance"], self.header("x-request-id"));
        for field in ["title", "detail"] {
            assert!(
                self.body[field].as_str().is_some_and(|text| !text.is_empty()),
                "{self:?}"
            );
        }
        let kind = self.body["type"].as_str().unwrap();
        kind.strip_prefix("https://todoplatform.dev/problems/").unwrap()
    }

    /// The fields that a problem names.
    pub(crate) fn fields(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().map(|error| error["field"].as_str().unwrap()).collect()
    }
}

/// The id of what an answer shows.
pub(crate) fn id(value: &Value) -> &str {
    value["id"].as_str().unwrap()
}
