//! A server in this process that answers as a sidecar did, and remembers what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, Response, StatusCode};
use serde_json::Value;
use todo_dapr::{Client, Settings};
use todo_events::backoff::Backoff;
use url::Url;

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// As it stood in the request, escapes included.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    delay: Duration,
}

impl Reply {
    pub(crate) fn empty(status: u16) -> Self {
        Self::text(status, "")
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: vec![],
            body: body.to_owned(),
            delay: Duration::ZERO,
        }
    }

    /// An error in Dapr's form.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({"errorCode": code, "message": message, "details": []});
        Self::text(status, &body.to_string()).header("content-type", "application/json")
    }

    /// What daprd answers to a path that it does not have: it takes it for a call of another app.
    pub(crate) fn unknown_path() -> Self {
        Self::error(
            404,
            "ERR_DIRECT_INVOKE",
            "failed getting app id either from the URL path or the header dapr-app-id",
        )
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

pub(crate) struct Sidecar {
    address: Url,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Sidecar {
    /// Gives these answers in their order, and the last one from then on.
    pub(crate) async fn answering(replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies = Mutex::new(replies.into_iter().collect::<VecDeque<_>>());
        Self::deciding(move |_| {
            let mut replies = replies.lock().unwrap();
            if replies.len() > 1 {
                replies.pop_front().unwrap()
            } else {
                replies.front().unwrap().clone()
            }
        })
        .await
    }

    /// Answers what the function says.
    pub(crate) async fn deciding(decide: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let remembered = Arc::clone(&asked);
        let decide = Arc::new(decide);
        let router = Router::new().fallback(move |request: Request| {
            let (asked, decide) = (Arc::clone(&remembered), Arc::clone(&decide));
            async move {
                let (parts, body) = request.into_parts();
                let question = Asked {
                    method: parts.method,
                    target: parts.uri.to_string(),
                    headers: parts.headers,
                    body: to_bytes(body, usize::MAX).await.unwrap().to_vec(),
                };
                let reply = decide(&question);
                asked.lock().unwrap().push(question);
                tokio::time::sleep(reply.delay).await;
                let mut response = Response::builder().status(StatusCode::from_u16(reply.status).unwrap());
                for (name, value) in reply.headers {
                    response = response.header(name, value);
                }
                response.body(Body::from(reply.body)).unwrap()
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = address(&listener);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, asked }
    }

    pub(crate) fn client(&self) -> Client {
        client_at(self.address.clone())
    }

    pub(crate) fn settings(&self) -> Settings {
        impatient(self.address.clone())
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The only thing that it was asked.
    pub(crate) fn only(&self) -> Asked {
        let [only] = <[Asked; 1]>::try_from(self.asked()).unwrap();
        only
    }

    /// The method and target of each request.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.asked()
            .iter()
            .map(|asked| format!("{} {}", asked.method, asked.target))
            .collect()
    }
}

fn address(listener: &tokio::net::TcpListener) -> Url {
    Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap()
}

/// Quick, so that tests are.
pub(crate) fn impatient(address: Url) -> Settings {
    Settings {
        backoff: Backoff {
            first: Duration::from_millis(1),
            max: Duration::from_millis(5),
        },
        ..Settings::at(address)
    }
}

pub(crate) fn client_at(address: Url) -> Client {
    Client::new(impatient(address)).unwrap()
}

/// An address where nothing listens.
pub(crate) async fn nowhere() -> Url {
    address(&tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap())
}

/// A server that takes each connection, reads a request and hangs up; and how often it did.
pub(crate) async fn hanging_up() -> (Url, Arc<Mutex<u32>>) {
    use tokio::io::AsyncReadExt;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = address(&listener);
    let calls: Arc<Mutex<u32>> = Arc::default();
    let counted = Arc::clone(&calls);
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            if connection.read(&mut request).await.unwrap() > 0 {
                *counted.lock().unwrap() += 1;
            }
        }
    });
    (address, calls)
}
