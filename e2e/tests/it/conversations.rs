//! Conversations in the sidecar's state stores, PostgreSQL and Redis, while those are killed and frozen.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;
use todo_e2e::client::{Client, text};
use todo_e2e::scene::Scene;
use todo_e2e::stack::{Options, Part, Role, Stack};
use todo_e2e::{database, wait_for};

const PATIENCE: Duration = Duration::from_mins(1);

/// The API with this state store, and nothing else that works.
struct Trial {
    stack: Stack,
    scene: Scene,
    alice: Client,
    pool: PgPool,
}

impl Trial {
    async fn start(store: &'static str) -> Result<Self> {
        let scene = Scene::new()?;
        let workers = [Role::Relay, Role::Recurring, Role::Reminders, Role::Audit];
        let options = workers
            .into_iter()
            .fold(Options::default(), |options, role| options.copies(role, 0))
            .alarms(false)
            .set_for(Role::Api, "TODO_STATE_STORE", store);
        let options = if store.ends_with("redis") {
            options.with_redis()
        } else {
            options
        };
        let stack = Stack::start(&scene, options).await?;
        let alice = stack.client(&scene, "alice").await?;
        let pool = database::open(&stack.database_url()?).await?;
        Ok(Self {
            stack,
            scene,
            alice,
            pool,
        })
    }

    async fn begin(&self) -> Result<String> {
        let begun = self.alice.act("/conversations").await?;
        Ok(format!("/conversations/{}/messages", text(&begun, "id")?))
    }

    /// Says something, and returns whether the answer was degraded.
    async fn say(&self, path: &str, content: &str) -> Result<bool> {
        let message = json!({"role": "user", "content": content});
        let said = self.alice.post(path, &message).await?;
        said["degraded"].as_bool().context("an answer without degraded")
    }

    /// What was said, and whether the answer was degraded.
    async fn heard(&self, path: &str) -> Result<(Vec<String>, bool)> {
        let history = self.alice.get(path).await?;
        let items = history["items"].as_array().context("a history without items")?;
        let contents = items.iter().map(|item| Ok(text(item, "content")?.to_owned()));
        let degraded = history["degraded"].as_bool().context("an answer without degraded")?;
        Ok((contents.collect::<Result<_>>()?, degraded))
    }

    /// How many values the database keeps while the store is away.
    async fn standing_in(&self) -> Result<i64> {
        Ok(sqlx::query_scalar("SELECT count(*) FROM state")
            .fetch_one(&self.pool)
            .await?)
    }

    /// Waits until everything that waited has been merged, without anybody asking for it.
    async fn wait_until_merged(&self) -> Result<()> {
        wait_for("what waited to be merged", PATIENCE, || async {
            Ok((self.standing_in().await? == 0).then_some(()))
        })
        .await
    }

    async fn wait_until_degraded(&self, path: &str, expected: bool) -> Result<()> {
        wait_for("the answers to change", PATIENCE, || async {
            Ok((self.heard(path).await?.1 == expected).then_some(()))
        })
        .await
    }

    async fn stop(self) -> Result<()> {
        self.pool.close().await;
        self.stack.stop().await?;
        drop(self.scene);
        Ok(())
    }

    /// What holds of every store.
    async fn keeps_conversations(&self) -> Result<()> {
        let path = self.begin().await?;
        for number in 0..103 {
            ensure!(!self.say(&path, &format!("message {number}")).await?, "degraded");
        }
        let expected: Vec<String> = (3..103).map(|number| format!("message {number}")).collect();
        ensure!(self.heard(&path).await? == (expected, false), "not the last hundred");
        ensure!(self.standing_in().await? == 0, "it is not in the store");

        let bob = self.stack.client(&self.scene, "bob").await?;
        ensure!(bob.status_of(&path).await? == 404, "another's conversation is there");

        // Those who speak at once are all heard, whoever had to begin again.
        let crowded = self.begin().await?;
        let speakers = (0..8).map(|speaker| {
            let (alice, path) = (self.alice.clone(), crowded.clone());
            tokio::spawn(async move {
                let mut degraded = 0;
                for number in 0..5 {
                    let message = json!({"role": "user", "content": format!("{speaker} says {number}")});
                    let said = alice.post(&path, &message).await?;
                    degraded += u32::from(said["degraded"] == json!(true));
                }
                anyhow::Ok(degraded)
            })
        });
        let mut degraded = 0;
        for speaker in speakers.collect::<Vec<_>>() {
            degraded += speaker.await??;
        }
        println!("of 40 messages at once {degraded} were kept in the database first");
        self.wait_until_merged().await?;
        let (heard, _) = self.heard(&crowded).await?;
        let distinct: BTreeSet<_> = heard.iter().collect();
        ensure!(heard.len() == 40 && distinct.len() == 40, "{} of 40 heard", heard.len());

        self.delete(&crowded).await?;
        ensure!(self.alice.status_of(&crowded).await? == 404, "it is still there");
        self.what_is_deleted_stays_so().await
    }

    /// Deletes conversations while somebody speaks in them.
    async fn what_is_deleted_stays_so(&self) -> Result<()> {
        for _ in 0..10 {
            let path = self.begin().await?;
            let speakers: Vec<_> = (0..4)
                .map(|speaker| {
                    let request = self.alice.request(Method::POST, &path);
                    let message = json!({"role": "user", "content": format!("{speaker} says something")});
                    tokio::spawn(async move { anyhow::Ok(request.json(&message).send().await?.status()) })
                })
                .collect();
            self.delete(&path).await?;
            for speaker in speakers {
                let status = speaker.await??;
                ensure!(status == 201 || status == 404, "{status}");
            }
            ensure!(self.alice.status_of(&path).await? == 404, "it came back");
        }
        Ok(())
    }

    async fn delete(&self, messages: &str) -> Result<()> {
        let own = messages.trim_end_matches("/messages");
        let deleted = self.alice.request(Method::DELETE, own).send().await?;
        ensure!(deleted.status() == 204, "{}", deleted.status());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_are_kept_in_postgresql_through_the_sidecar() -> Result<()> {
    let trial = Trial::start("statestore").await?;
    trial.keeps_conversations().await?;
    let kept: i64 = trial.number("SELECT count(*) FROM todo_dapr_state").await?;
    ensure!(kept > 0, "they are somewhere else");
    trial.the_database_stands_in_for(Part::Sidecar(Role::Api, 0)).await?;
    trial.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_are_kept_in_redis_through_the_sidecar() -> Result<()> {
    let trial = Trial::start("statestore-redis").await?;
    trial.keeps_conversations().await?;
    trial.the_database_stands_in_for(Part::Sidecar(Role::Api, 0)).await?;
    trial.nothing_is_lost_while_it_is_frozen(Part::Redis).await?;
    trial.what_was_said_meanwhile_outlives_its_memory(Part::Redis).await?;
    trial.stop().await
}

impl Trial {
    async fn number(&self, query: &'static str) -> Result<i64> {
        Ok(sqlx::query_scalar(query).fetch_one(&self.pool).await?)
    }

    /// Kills what is on the way to the store, which keeps what it has.
    async fn the_database_stands_in_for(&self, part: Part) -> Result<()> {
        let path = self.begin().await?;
        ensure!(!self.say(&path, "before").await?, "degraded before anything happened");
        self.stack.kill(part).await?;
        ensure!(
            self.say(&path, "meanwhile").await?,
            "{part} is down, and nobody says so"
        );
        ensure!(self.heard(&path).await? == (vec!["meanwhile".to_owned()], true));
        let new = self.begin().await?;
        ensure!(self.say(&new, "new").await?, "{part} is down, and nobody says so");
        let metrics = self.stack.metrics(Role::Api, 0).await?;
        ensure!(metrics.contains("todo_state_fallback_total{"), "no metric says so");

        self.stack.restart(part).await?;
        self.wait_until_merged().await?;
        self.wait_until_degraded(&path, false).await?;
        let all = ["before", "meanwhile"].map(str::to_owned).to_vec();
        ensure!(
            self.heard(&path).await? == (all, false),
            "{:?}",
            self.heard(&path).await?
        );
        ensure!(self.heard(&new).await? == (vec!["new".to_owned()], false));
        Ok(())
    }

    /// Freezes the store while somebody goes on speaking.
    async fn nothing_is_lost_while_it_is_frozen(&self, part: Part) -> Result<()> {
        let path = self.begin().await?;
        let mut said = Vec::new();
        let mut slowest = Duration::ZERO;
        let mut degraded = 0;
        for number in 0..60 {
            match number {
                10 => self.stack.pause(part)?,
                40 => self.stack.resume(part)?,
                _ => {}
            }
            let content = format!("message {number}");
            let began = Instant::now();
            degraded += usize::from(self.say(&path, &content).await?);
            slowest = slowest.max(began.elapsed());
            said.push(content);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        println!("{part} frozen: {degraded} of 60 answers degraded, the slowest took {slowest:?}");
        ensure!(degraded >= 20, "only {degraded} answers said so");
        ensure!(slowest < Duration::from_secs(5), "an answer took {slowest:?}");
        self.wait_until_merged().await?;
        self.wait_until_degraded(&path, false).await?;
        let (heard, _) = self.heard(&path).await?;
        ensure!(heard == said, "lost, doubled or out of order: {heard:?}");
        Ok(())
    }

    /// Kills the store, which keeps nothing, while somebody goes on speaking.
    async fn what_was_said_meanwhile_outlives_its_memory(&self, part: Part) -> Result<()> {
        let path = self.begin().await?;
        self.stack.kill(part).await?;
        for number in 0..20 {
            ensure!(self.say(&path, &format!("message {number}")).await?, "{part} is down");
        }
        self.stack.restart(part).await?;
        self.wait_until_merged().await?;
        self.wait_until_degraded(&path, false).await?;
        let all: Vec<String> = (0..20).map(|number| format!("message {number}")).collect();
        ensure!(
            self.heard(&path).await? == (all, false),
            "{:?}",
            self.heard(&path).await?
        );
        ensure!(!self.say(&path, "and after").await?, "still degraded");
        Ok(())
    }
}
