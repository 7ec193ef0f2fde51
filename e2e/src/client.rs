//! The API as a user calls it.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde_json::Value;

use crate::wait_for;

/// One pool of connections for everything that speaks HTTP here.
pub static HTTP: LazyLock<reqwest::Client> = LazyLock::new(|| {
    // reqwest is built without a provider of its own; that one is installed already is fine.
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .timeout(Duration::from_secs(20))
        .build()
        .expect("a client without special wishes can be built")
});

/// How long a client that is told to slow down goes on trying.
const PATIENCE: Duration = Duration::from_mins(1);

/// A user of an API, who comes again later when the API says so (429). [`Client::request`] gives what to send by hand.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    token: String,
}

/// An answer whose status is a success.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body as JSON; `null` when there is none.
    pub body: Value,
}

impl Client {
    /// A user who has this token.
    pub fn new(base: &str, token: &str) -> Result<Self> {
        ensure!(!token.is_empty(), "the token is empty");
        Ok(Self {
            base: base.to_owned(),
            token: token.to_owned(),
        })
    }

    /// A request to a path below `/api/v1`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        HTTP.request(method, format!("{}/api/v1{path}", self.base))
            .bearer_auth(&self.token)
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Result<Value> {
        Ok(send(self.request(Method::GET, path)).await?.body)
    }

    /// Reads only the status.
    pub async fn status_of(&self, path: &str) -> Result<StatusCode> {
        Ok(answer(self.request(Method::GET, path)).await?.status())
    }

    /// Posts a document.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        Ok(send(self.request(Method::POST, path).json(body)).await?.body)
    }

    /// Posts without a body.
    pub async fn act(&self, path: &str) -> Result<Value> {
        Ok(send(self.request(Method::POST, path)).await?.body)
    }

    /// Patches.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self
            .request(Method::PATCH, path)
            .header(header::CONTENT_TYPE, "application/merge-patch+json");
        Ok(send(request.body(body.to_string())).await?.body)
    }

    /// Every item of a list, page after page.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut next = format!("{path}{separator}limit=200");
        let mut items = Vec::new();
        loop {
            let page = self.get(&next).await?;
            items.extend(
                page["items"]
                    .as_array()
                    .context("a list without items")?
                    .iter()
                    .cloned(),
            );
            let Some(cursor) = page["next_cursor"].as_str() else {
                return Ok(items);
            };
            next = format!("{path}{separator}limit=200&cursor={cursor}");
        }
    }
}

/// The answer, after as many attempts as the user's rate limit makes necessary: a machine may be fast enough to meet it.
async fn answer(request: RequestBuilder) -> Result<Response> {
    let began = Instant::now();
    loop {
        let attempt = request.try_clone().context("the body can be sent only once")?;
        let response = attempt.send().await?;
        if response.status() != StatusCode::TOO_MANY_REQUESTS || began.elapsed() > PATIENCE {
            return Ok(response);
        }
        let wait = response.headers().get(header::RETRY_AFTER);
        let wait = wait.context("429 without Retry-After")?.to_str()?;
        tokio::time::sleep(Duration::from_secs(wait.parse()?)).await;
    }
}

async fn send(request: RequestBuilder) -> Result<Answer> {
    let response = answer(request).await?;
    let (status, url) = (response.status(), response.url().clone());
    let text = response.text().await?;
    if !status.is_success() {
        bail!("{url} answered {status}: {text}");
    }
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text)?
    };
    Ok(Answer { status, body })
}

/// Waits until the API at `base` says that it is ready.
pub async fn wait_until_ready(base: &str) -> Result<()> {
    wait_for("the API to be ready", Duration::from_secs(30), || async {
        Ok(is_ready(base).await.then_some(()))
    })
    .await
}

/// Whether the API at `base` says that it is ready.
pub async fn is_ready(base: &str) -> bool {
    let answered = HTTP
        .get(format!("{base}/readyz"))
        .timeout(Duration::from_secs(2))
        .send()
        .await;
    answered.is_ok_and(|response| response.status().is_success())
}

/// The text of a JSON field.
pub fn text<'a>(document: &'a Value, field: &str) -> Result<&'a str> {
    document[field]
        .as_str()
        .with_context(|| format!("no text {field:?} in {document}"))
}
