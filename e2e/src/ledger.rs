//! What the API acknowledged, and whether it holds.
//!
//! A task's state is known by (task, version): every answer that shows one is kept, and must be what the event of that
//! version says. A write whose answer was lost may have happened or not: those are counted, and there may be no more
//! writes without an answer than that.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::RngExt;
use rand::rngs::StdRng;
use reqwest::StatusCode;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::client::Client;

/// What was acknowledged so far. Shared by all clients of a load.
#[derive(Debug, Default)]
pub struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tasks: BTreeMap<Uuid, Known>,
    by_user: HashMap<usize, Vec<Uuid>>,
    shown: HashMap<(Uuid, i64), Value>,
    lost_answers: u64,
    lost_creates: u64,
    slowest: Duration,
    violations: Vec<String>,
}

/// What is known of a task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    user: usize,
    /// The highest version that was shown.
    pub version: i64,
    /// Somebody has asked for its deletion.
    pub may_be_deleted: bool,
    /// The deletion was acknowledged.
    pub is_deleted: bool,
}

/// What a ledger that holds has in it.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// States of tasks that were acknowledged, and are there.
    pub acknowledged: usize,
    /// Writes that happened although their answer was lost.
    pub unacknowledged: u64,
    /// Requests whose answer was lost.
    pub lost_answers: u64,
    /// The longest that a client was kept from its answer, with all its attempts.
    pub slowest: Duration,
}

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        // A client that panicked fails the test by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a task that the API showed.
    pub fn shown(&self, user: usize, task: &Value) {
        let id = task["id"].as_str().and_then(|id| id.parse().ok());
        let (Some(id), Some(version)) = (id, task["version"].as_i64()) else {
            return self.violated(format!("this is no task: {task}"));
        };
        let mut state = self.state();
        match state.shown.entry((id, version)) {
            Entry::Occupied(before) if before.get() != task => {
                let violation = format!("one version has two contents: {} and {task}", before.get());
                state.violations.push(violation);
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(vacant) => {
                vacant.insert(task.clone());
            }
        }
        let State { tasks, by_user, .. } = &mut *state;
        let known = tasks.entry(id).or_insert_with(|| {
            by_user.entry(user).or_default().push(id);
            Known {
                user,
                ..Known::default()
            }
        });
        known.version = known.version.max(version);
    }

    /// What is known of a task of this user, picked at random.
    pub fn pick(&self, user: usize, random: &mut StdRng) -> Option<(Uuid, Known)> {
        let state = self.state();
        let tasks = state.by_user.get(&user)?;
        let id = tasks[random.random_range(0..tasks.len())];
        state.tasks.get(&id).map(|known| (id, *known))
    }

    /// A deletion is about to be asked for.
    pub fn deleting(&self, id: Uuid) {
        if let Some(known) = self.state().tasks.get_mut(&id) {
            known.may_be_deleted = true;
        }
    }

    /// A deletion was acknowledged.
    pub fn deleted(&self, id: Uuid) {
        if let Some(known) = self.state().tasks.get_mut(&id) {
            known.is_deleted = true;
        }
    }

    /// Whether a task may be gone.
    pub fn may_be_deleted(&self, id: Uuid) -> bool {
        self.state().tasks.get(&id).is_some_and(|known| known.may_be_deleted)
    }

    /// A request was sent and its answer did not come.
    pub fn lost_answer(&self) {
        self.state().lost_answers += 1;
    }

    /// The lost answer was that of a creation which cannot be asked for again.
    pub fn lost_create(&self) {
        self.state().lost_creates += 1;
    }

    /// A client had to be so patient for an answer.
    pub fn answered_after(&self, patience: Duration) {
        let mut state = self.state();
        state.slowest = state.slowest.max(patience);
    }

    /// The API broke a promise.
    pub fn violated(&self, violation: String) {
        self.state().violations.push(violation);
    }

    /// Holds database and API to what was acknowledged. `clients` are the users' clients, by the user's number.
    pub async fn check(&self, pool: &PgPool, clients: &[Client]) -> Result<Held> {
        let state = std::mem::take(&mut *self.state());
        ensure!(
            state.violations.is_empty(),
            "{} broken promises, the first: {}",
            state.violations.len(),
            state.violations[0]
        );
        let events = read_events(pool).await?;
        let last: HashMap<Uuid, &Change> = events.iter().map(|change| (change.task, change)).collect();
        acknowledged_is_kept(&state, &events)?;
        for (id, known) in &state.tasks {
            let last = last
                .get(id)
                .with_context(|| format!("task {id} was acknowledged and has no event"))?;
            let is_deleted = last.event_type == "deleted";
            ensure!(
                is_deleted || !known.is_deleted,
                "task {id} was deleted, but ends with {}",
                last.event_type
            );
            ensure!(
                known.may_be_deleted || !is_deleted,
                "nobody asked for the deletion of task {id}"
            );
            let client = &clients[known.user];
            if is_deleted {
                let status = client.status_of(&format!("/tasks/{id}")).await?;
                ensure!(
                    status == StatusCode::NOT_FOUND,
                    "deleted task {id} is answered {status}"
                );
            } else {
                let task = client.get(&format!("/tasks/{id}")).await?;
                ensure!(
                    task == last.data,
                    "task {id} is {task}, its last event says {}",
                    last.data
                );
            }
        }
        let unacknowledged = nothing_happened_by_itself(&state, &events)?;
        Ok(Held {
            acknowledged: state.shown.len(),
            unacknowledged,
            lost_answers: state.lost_answers,
            slowest: state.slowest,
        })
    }
}

/// An event that changed a task.
#[derive(sqlx::FromRow)]
struct Change {
    task: Uuid,
    version: i64,
    event_type: String,
    actor: String,
    data: Value,
}

/// All of them, a task's in the order of its versions.
async fn read_events(pool: &PgPool) -> Result<Vec<Change>> {
    Ok(sqlx::query_as(
        "SELECT subject AS task, version, event_type, actor, data
         FROM outbox
         WHERE event_type <> 'reminder'
         ORDER BY subject, version",
    )
    .fetch_all(pool)
    .await?)
}

fn acknowledged_is_kept(state: &State, events: &[Change]) -> Result<()> {
    let by_version: HashMap<(Uuid, i64), &Change> = events
        .iter()
        .map(|change| ((change.task, change.version), change))
        .collect();
    for (key, shown) in &state.shown {
        let change = by_version
            .get(key)
            .with_context(|| format!("acknowledged and lost: {shown}"))?;
        ensure!(
            change.data == *shown,
            "acknowledged was {shown}, its event says {}",
            change.data
        );
    }
    Ok(())
}

/// Nothing happened that nobody asked for: a change that no answer showed is one whose answer was lost.
fn nothing_happened_by_itself(state: &State, events: &[Change]) -> Result<u64> {
    let shown: HashSet<_> = state.shown.keys().collect();
    let deleted: BTreeSet<_> = state
        .tasks
        .iter()
        .filter(|(_, known)| known.is_deleted)
        .map(|(id, _)| *id)
        .collect();
    let unacknowledged: Vec<&Change> = events
        .iter()
        .filter(|change| !change.actor.starts_with("system:"))
        .filter(|change| match change.event_type.as_str() {
            "deleted" => !deleted.contains(&change.task),
            _ => !shown.contains(&(change.task, change.version)),
        })
        .collect();
    let created = unacknowledged
        .iter()
        .filter(|change| change.event_type == "created")
        .count() as u64;
    ensure!(
        created <= state.lost_creates,
        "{created} tasks were created without an answer, but only {} answers were lost",
        state.lost_creates
    );
    let count = unacknowledged.len() as u64;
    ensure!(
        count <= state.lost_answers,
        "{count} changes have no answer, but only {} answers were lost",
        state.lost_answers
    );
    Ok(count)
}
