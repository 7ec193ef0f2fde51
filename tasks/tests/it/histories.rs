//! Any sequence of commands leaves a history that adds up: versions count the events, and each event leads back to
//! the state before it.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::Value;
use sqlx::PgPool;
use todo_tasks::task::{self, Priority, TaskInput};
use todo_tasks::{Error, TaskId, reminder};
use todo_test_db::TestDb;

use crate::fixture::{ada, before, create, due_local, events};

/// How many tasks a sequence is about: few, so that its commands meet.
const TASKS: usize = 3;

#[derive(Debug, Clone)]
enum Command {
    Title(u8),
    Tags(Vec<u8>),
    Priority(bool),
    Due(Option<u8>),
    Repeat(bool),
    Parent(Option<usize>),
    AddReminder(u8),
    RemoveReminder(usize),
    Complete,
    Reopen,
    Delete,
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        (0..3_u8).prop_map(Command::Title),
        prop::collection::vec(0..4_u8, 0..4).prop_map(Command::Tags),
        any::<bool>().prop_map(Command::Priority),
        prop::option::weighted(0.7, 1..4_u8).prop_map(Command::Due),
        any::<bool>().prop_map(Command::Repeat),
        prop::option::weighted(0.7, 0..TASKS).prop_map(Command::Parent),
        (0..3_u8).prop_map(Command::AddReminder),
        (0..2_usize).prop_map(Command::RemoveReminder),
        Just(Command::Complete),
        Just(Command::Reopen),
        Just(Command::Delete),
    ]
}

/// Runs a command in a transaction of its own. That it is refused is fine; that it fails is not.
async fn run(pool: &PgPool, tasks: &[TaskId], which: usize, command: Command) -> anyhow::Result<()> {
    let (caller, id) = (ada(), tasks[which]);
    let mut tx = pool.begin().await?;
    let edited =
        |edit: Box<dyn FnOnce(TaskInput) -> TaskInput + Send>| move |input: TaskInput| Ok::<_, Error>(edit(input));
    let edit: Box<dyn FnOnce(TaskInput) -> TaskInput + Send> = match command {
        Command::Complete => return settle(task::complete(&mut tx, &caller, id, None).await.map(drop), tx).await,
        Command::Reopen => return settle(task::reopen(&mut tx, &caller, id, None).await.map(drop), tx).await,
        Command::Delete => return settle(task::delete(&mut tx, &caller, id, None).await.map(drop), tx).await,
        Command::AddReminder(hours) => {
            let added = reminder::add(&mut tx, &caller, id, before(&format!("{hours}h"))).await;
            return settle(added.map(drop), tx).await;
        }
        Command::RemoveReminder(place) => {
            let reminders = reminder::list(&mut tx, &caller.user, id).await.unwrap_or_default();
            let Some(reminder) = reminders.get(place) else {
                return Ok(());
            };
            // A command's first statement is its lock, so it gets a transaction without the list.
            tx = pool.begin().await?;
            return settle(reminder::remove(&mut tx, &caller, id, reminder.id).await, tx).await;
        }
        Command::Title(n) => Box::new(move |input| TaskInput {
            title: format!("title {n}"),
            ..input
        }),
        Command::Tags(tags) => {
            let tags = tags.iter().map(|n| format!("tag {n}")).collect();
            Box::new(move |input| TaskInput { tags, ..input })
        }
        Command::Priority(high) => {
            let priority = if high { Priority::High } else { Priority::Low };
            Box::new(move |input| TaskInput { priority, ..input })
        }
        Command::Due(day) => {
            let due = day.map(|day| due_local(&format!("2101-01-0{day}T09:00:00"), "Europe/Berlin"));
            Box::new(move |input| TaskInput { due, ..input })
        }
        Command::Repeat(repeats) => {
            let recurrence = repeats.then(|| serde_json::from_value(serde_json::json!({"every": "1d"})).unwrap());
            Box::new(move |input| TaskInput { recurrence, ..input })
        }
        Command::Parent(parent) => {
            let parent_id = parent.map(|parent| tasks[parent]);
            Box::new(move |input| TaskInput { parent_id, ..input })
        }
    };
    let changed = task::change(&mut tx, &caller, id, None, edited(edit)).await;
    settle(changed.map(drop), tx).await
}

async fn settle(outcome: todo_tasks::Result<()>, tx: sqlx::Transaction<'_, sqlx::Postgres>) -> anyhow::Result<()> {
    match outcome {
        Ok(()) => Ok(tx.commit().await?),
        Err(Error::Invalid(_) | Error::NotFound(_) | Error::Conflict(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A state without what every change changes.
fn comparable(state: &Value) -> Value {
    let mut state = state.clone();
    for field in ["version", "updated_at"] {
        state.as_object_mut().unwrap().remove(field);
    }
    state
}

async fn check(pool: &PgPool, id: TaskId) -> anyhow::Result<()> {
    let events = events(pool, id).await?;
    let (version, gone): (i64, bool) =
        sqlx::query_as("SELECT version, deleted_at IS NOT NULL FROM tasks WHERE id = $1")
            .bind(id.0)
            .fetch_one(pool)
            .await?;
    assert_eq!(version, i64::try_from(events.len())?, "a version for each event");
    for (event, expected) in events.iter().zip(1..) {
        assert_eq!(event.version, expected);
        assert_eq!(event.data["version"], expected);
    }
    for pair in events.windows(2) {
        let mut earlier = pair[1].data.clone();
        for (field, value) in pair[1].previous.as_ref().unwrap().as_object().unwrap() {
            assert_ne!(&earlier[field], value, "{field} did not change");
            earlier[field] = value.clone();
        }
        assert_eq!(comparable(&earlier), comparable(&pair[0].data));
    }
    if !gone {
        let mut conn = pool.acquire().await?;
        let task = task::get(&mut conn, &ada().user, id).await?;
        assert_eq!(serde_json::to_value(&task)?, events.last().unwrap().data);
    }
    Ok(())
}

async fn play(commands: Vec<(usize, Command)>) -> anyhow::Result<()> {
    let db = TestDb::new().await;
    let mut tasks = Vec::new();
    for n in 0..TASKS {
        tasks.push(
            create(&db.pool, &ada(), TaskInput::titled(format!("task {n}")))
                .await?
                .id,
        );
    }
    for (which, command) in commands {
        run(&db.pool, &tasks, which, command).await?;
    }
    for id in &tasks {
        check(&db.pool, *id).await?;
    }
    let parents: Vec<(uuid::Uuid, uuid::Uuid)> =
        sqlx::query_as("SELECT id, parent_id FROM tasks WHERE parent_id IS NOT NULL")
            .fetch_all(&db.pool)
            .await?;
    let parents: HashMap<_, _> = parents.into_iter().collect();
    for start in parents.keys() {
        let above = std::iter::successors(Some(start), |id| parents.get(*id));
        assert!(above.take(TASKS + 1).count() <= TASKS, "a ring");
    }
    Ok(())
}

#[test]
fn any_sequence_of_commands_leaves_a_history_that_adds_up() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config {
        cases: 40,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    };
    let sequences = prop::collection::vec((0..TASKS, command()), 1..30);
    TestRunner::new(config)
        .run(&sequences, |commands| {
            runtime
                .block_on(play(commands))
                .map_err(|error| TestCaseError::fail(format!("{error:#}")))
        })
        .unwrap();
}
