//! Random writes over many users, by clients that do not give up.
//!
//! Users are shared among the clients, so that writes of one task meet. A client sends a request again until it has an
//! answer: a POST under its Idempotency-Key, or one whose repetition changes nothing. Only a creation without a key
//! cannot be sent again; whether it happened stays unknown, and the ledger counts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::Client;
use crate::ledger::{Known, Ledger};

/// How long one request is sent again and again.
const STUBBORNNESS: Duration = Duration::from_mins(1);
/// Between two requests of a client, so that a test's data stays of a size that it can check.
const THINK: Duration = Duration::from_millis(10);

const TAGS: [&str; 6] = ["home", "work", "garden", "errand", "later", "music"];
const PRIORITIES: [&str; 4] = ["low", "medium", "high", "critical"];

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    ledger: Arc<Ledger>,
    users: Arc<Vec<Client>>,
    stop: Arc<AtomicBool>,
    running: JoinSet<Result<()>>,
}

impl Load {
    /// Begins `clients` clients over these users. The same seed makes the same choices.
    pub fn start(users: Vec<Client>, clients: u64, seed: u64) -> Self {
        Self::paced(users, clients, seed, THINK)
    }

    /// The same with clients that think for so long between two requests.
    pub fn paced(users: Vec<Client>, clients: u64, seed: u64, think: Duration) -> Self {
        let ledger = Arc::new(Ledger::default());
        let users = Arc::new(users);
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = JoinSet::new();
        for number in 0..clients {
            let worker = Worker {
                ledger: Arc::clone(&ledger),
                users: Arc::clone(&users),
                stop: Arc::clone(&stop),
                think,
                random: StdRng::seed_from_u64(seed.wrapping_add(number)),
            };
            running.spawn(worker.run());
        }
        Self {
            ledger,
            users,
            stop,
            running,
        }
    }

    /// Lets each client finish what it is at, and gives the ledger and the users' clients.
    pub async fn finish(mut self) -> Result<(Arc<Ledger>, Arc<Vec<Client>>)> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.running.join_next().await {
            ended??;
        }
        Ok((self.ledger, self.users))
    }
}

/// The platform's seed for this run: `TODO_E2E_SEED`, or a random one. It is printed, so that a failure can be repeated.
pub fn seed(test: &str) -> u64 {
    let given = std::env::var("TODO_E2E_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| rand::rng().random());
    println!("{test}: TODO_E2E_SEED={seed}");
    seed
}

struct Worker {
    ledger: Arc<Ledger>,
    users: Arc<Vec<Client>>,
    stop: Arc<AtomicBool>,
    think: Duration,
    random: StdRng,
}

/// An answer that came.
struct Reply {
    status: StatusCode,
    body: Value,
}

/// What became of one sending of a request.
enum Sent {
    Answered(Reply),
    /// It never left, or was turned away: it had no effect.
    NotTaken,
    /// It may have had its effect.
    Lost,
}

impl Worker {
    async fn run(mut self) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let user = self.random.random_range(0..self.users.len());
            match self.random.random_range(0..100) {
                0..34 => self.create(user).await?,
                34..56 => self.change(user).await?,
                56..72 => self.post(user, "complete").await?,
                72..80 => self.post(user, "reopen").await?,
                80..88 => self.delete(user).await?,
                88..94 => self.read(user).await?,
                _ => self.complete_one_of_a_schedule(user).await?,
            }
            tokio::time::sleep(self.think).await;
        }
        Ok(())
    }

    async fn create(&mut self, user: usize) -> Result<()> {
        let body = self.new_task();
        let key = self.random.random_bool(0.6).then(|| self.key());
        let client = self.users[user].clone();
        let request = || {
            let request = client.request(Method::POST, "/tasks").json(&body);
            match &key {
                Some(key) => request.header("Idempotency-Key", key),
                None => request,
            }
        };
        let reply = if key.is_some() {
            self.until_answered(request).await?
        } else if let Some(reply) = self.until_taken(request).await? {
            reply
        } else {
            self.ledger.lost_create();
            return Ok(());
        };
        if reply.status == StatusCode::CREATED {
            self.ledger.shown(user, &reply.body);
        } else {
            self.ledger
                .violated(format!("a creation was answered {}: {}", reply.status, reply.body));
        }
        Ok(())
    }

    async fn change(&mut self, user: usize) -> Result<()> {
        let Some((id, known)) = self.ledger.pick(user, &mut self.random) else {
            return Ok(());
        };
        let patch = match self.random.random_range(0..5) {
            0 => json!({"title": format!("renamed {}", self.random.random::<u32>())}),
            1 => json!({"tags": self.tags(), "category": "changed"}),
            2 => json!({"priority": PRIORITIES[self.random.random_range(0..PRIORITIES.len())]}),
            // A merge patch merges objects: the civil time that is there has to go.
            3 => json!({"due": {"at": self.soon(), "time_zone": "UTC", "local": null}}),
            _ => json!({"reminders": [{"at": {"at": self.soon(), "time_zone": "UTC"}}]}),
        };
        let if_match = self.if_match(known);
        let client = self.users[user].clone();
        let reply = self
            .until_answered(|| {
                let request = client
                    .request(Method::PATCH, &format!("/tasks/{id}"))
                    .header(header::CONTENT_TYPE, "application/merge-patch+json")
                    .body(patch.to_string());
                conditional(request, if_match.as_deref())
            })
            .await?;
        self.settle(user, id, &reply, if_match.is_some(), "a change");
        Ok(())
    }

    async fn post(&mut self, user: usize, action: &str) -> Result<()> {
        let Some((id, known)) = self.ledger.pick(user, &mut self.random) else {
            return Ok(());
        };
        let if_match = self.if_match(known);
        self.post_to(user, id, action, if_match).await
    }

    async fn post_to(&mut self, user: usize, id: Uuid, action: &str, if_match: Option<String>) -> Result<()> {
        let key = self.random.random_bool(0.5).then(|| self.key());
        let client = self.users[user].clone();
        let reply = self
            .until_answered(|| {
                let mut request = client.request(Method::POST, &format!("/tasks/{id}/{action}"));
                if let Some(key) = &key {
                    request = request.header("Idempotency-Key", key);
                }
                conditional(request, if_match.as_deref())
            })
            .await?;
        self.settle(user, id, &reply, if_match.is_some(), action);
        Ok(())
    }

    async fn delete(&mut self, user: usize) -> Result<()> {
        let Some((id, known)) = self.ledger.pick(user, &mut self.random) else {
            return Ok(());
        };
        let if_match = self.if_match(known);
        self.ledger.deleting(id);
        let client = self.users[user].clone();
        let reply = self
            .until_answered(|| {
                conditional(
                    client.request(Method::DELETE, &format!("/tasks/{id}")),
                    if_match.as_deref(),
                )
            })
            .await?;
        if reply.status == StatusCode::NO_CONTENT {
            self.ledger.deleted(id);
        } else {
            self.settle(user, id, &reply, if_match.is_some(), "a deletion");
        }
        Ok(())
    }

    /// What was acknowledged before the question must be in its answer.
    async fn read(&mut self, user: usize) -> Result<()> {
        let Some((id, known)) = self.ledger.pick(user, &mut self.random) else {
            return Ok(());
        };
        let client = self.users[user].clone();
        let Some(reply) = self
            .until_taken(|| client.request(Method::GET, &format!("/tasks/{id}")))
            .await?
        else {
            return Ok(());
        };
        if reply.status == StatusCode::OK && (known.is_deleted || reply.body["version"].as_i64() < Some(known.version))
        {
            self.ledger
                .violated(format!("{known:?} was acknowledged, then {} was read", reply.body));
        }
        self.settle(user, id, &reply, false, "a question");
        Ok(())
    }

    /// So that a schedule that skips while a task is open makes more than one.
    async fn complete_one_of_a_schedule(&mut self, user: usize) -> Result<()> {
        let client = self.users[user].clone();
        let Some(reply) = self
            .until_taken(|| client.request(Method::GET, "/tasks?status=open&limit=200"))
            .await?
        else {
            return Ok(());
        };
        let items = reply.body["items"].as_array().cloned().unwrap_or_default();
        let made = items.iter().filter(|task| task["schedule_id"].is_string());
        for task in made.take(5) {
            if let Some(id) = task["id"].as_str().and_then(|id| id.parse().ok()) {
                self.ledger.shown(user, task);
                self.post_to(user, id, "complete", None).await?;
            }
        }
        Ok(())
    }

    /// Keeps what an answer about a task says.
    fn settle(&self, user: usize, id: Uuid, reply: &Reply, was_conditional: bool, what: &str) {
        match reply.status {
            StatusCode::OK => self.ledger.shown(user, &reply.body),
            StatusCode::NOT_FOUND if self.ledger.may_be_deleted(id) => {}
            StatusCode::PRECONDITION_FAILED if was_conditional => {}
            status => self
                .ledger
                .violated(format!("{what} of task {id} was answered {status}: {}", reply.body)),
        }
    }

    /// Sends until there is an answer.
    async fn until_answered(&self, request: impl Fn() -> RequestBuilder) -> Result<Reply> {
        let began = Instant::now();
        while began.elapsed() < STUBBORNNESS {
            match send(request()).await? {
                Sent::Answered(reply) => {
                    self.ledger.answered_after(began.elapsed());
                    return Ok(reply);
                }
                Sent::NotTaken => {}
                Sent::Lost => self.ledger.lost_answer(),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("no answer within {STUBBORNNESS:?}")
    }

    /// Sends until it may have had an effect; `None` when its answer was lost.
    async fn until_taken(&self, request: impl Fn() -> RequestBuilder) -> Result<Option<Reply>> {
        let began = Instant::now();
        while began.elapsed() < STUBBORNNESS {
            match send(request()).await? {
                Sent::Answered(reply) => return Ok(Some(reply)),
                Sent::NotTaken => tokio::time::sleep(Duration::from_millis(50)).await,
                Sent::Lost => {
                    self.ledger.lost_answer();
                    return Ok(None);
                }
            }
        }
        bail!("no way to the API within {STUBBORNNESS:?}")
    }

    fn new_task(&mut self) -> Value {
        let mut task = json!({
            "title": format!("task {}", self.random.random::<u32>()),
            "priority": PRIORITIES[self.random.random_range(0..PRIORITIES.len())],
            "tags": self.tags(),
        });
        let mut reminders = Vec::new();
        if self.random.random_bool(0.6) {
            task["due"] = json!({"at": self.soon(), "time_zone": "UTC"});
            if self.random.random_bool(0.7) {
                reminders.push(json!({"before": format!("{}s", self.random.random_range(1..4))}));
            }
            if self.random.random_bool(0.4) {
                task["recurrence"] = json!({"every": "1d", "mode": "from_due"});
            }
        }
        if self.random.random_bool(0.3) {
            reminders.push(json!({"at": {"at": self.soon(), "time_zone": "UTC"}}));
        }
        task["reminders"] = reminders.into();
        task
    }

    fn tags(&mut self) -> Vec<&'static str> {
        TAGS.into_iter().filter(|_| self.random.random_bool(0.3)).collect()
    }

    /// One to six seconds from now.
    fn soon(&mut self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(self.random.random_range(1..=6))
    }

    fn key(&mut self) -> String {
        Uuid::from_u128(self.random.random()).to_string()
    }

    fn if_match(&mut self, known: Known) -> Option<String> {
        self.random.random_bool(0.5).then(|| format!("\"{}\"", known.version))
    }
}

fn conditional(request: RequestBuilder, if_match: Option<&str>) -> RequestBuilder {
    match if_match {
        Some(tag) => request.header(header::IF_MATCH, tag),
        None => request,
    }
}

async fn send(request: RequestBuilder) -> Result<Sent> {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return Ok(Sent::NotTaken),
        Err(error) if error.is_builder() => return Err(error.into()),
        Err(_) => return Ok(Sent::Lost),
    };
    let status = response.status();
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Ok(Sent::NotTaken);
    }
    if status.is_server_error() {
        // The database may have committed before it went away.
        return Ok(Sent::Lost);
    }
    let Ok(text) = response.text().await else {
        return Ok(Sent::Lost);
    };
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text)?
    };
    Ok(Sent::Answered(Reply { status, body }))
}
