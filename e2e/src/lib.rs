//! What the end-to-end tests are made of.
//!
//! Here is everything that a test needs to treat the platform as a stranger would: start the built `todo`, call its
//! API, kill it, and judge what it left. Nothing here knows the platform's crates: what an instant is, `todo next`
//! says; what was acknowledged, HTTP says; what is kept, SQL says.
//!
//! How a fault test walks through: a [`scene`] has a folder and starts [`process`]es → a [`client`] speaks for a user →
//! the [`load`] writes at random through faults, and keeps a [`ledger`] of what was acknowledged → when all is quiet,
//! [`check`] holds the database to the platform's promises, with the [`oracle`] for schedules, and the ledger holds the
//! API to what it said.
//!
//! The platform that a test starts is one process, or a [`stack`]: each part a process of its own, over Dapr and Kafka,
//! which [`todo_test_tools`] finds or builds. Or it is what the operator makes on a real Kubernetes: a [`cluster`].

pub mod bare;
pub mod check;
pub mod client;
pub mod cluster;
pub mod database;
pub mod figures;
pub mod image;
pub mod ledger;
pub mod load;
pub mod oracle;
pub mod process;
pub mod scene;
pub mod stack;

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Asks again and again until `ask` has an answer. Fails after `within`, saying what was waited for.
pub async fn wait_for<T, F>(what: &str, within: Duration, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await.with_context(|| format!("while waiting for {what}"))? {
            return Ok(answer);
        }
        anyhow::ensure!(began.elapsed() < within, "{what}: not within {within:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
