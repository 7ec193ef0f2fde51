//! What the tests share: callers, inputs, commands in a transaction of their own, and the outbox in commit order.

use std::future::Future;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use serde_json::Value;
use sqlx::PgPool;
use todo_recurrence::{Schedule as Rule, ScheduleSpec};
use todo_tasks::schedule::{self, Schedule, ScheduleInput, TaskTemplate};
use todo_tasks::task::{self, ReminderInput, Task, TaskInput};
use todo_tasks::{Caller, DueInput, Error, ScheduleId, TaskId, UserId};
use tokio::task::JoinSet;

/// What a test ends with.
pub(crate) type Outcome = anyhow::Result<()>;

/// Runs a command in a transaction of its own, as the API does: committed when it succeeds.
macro_rules! commit {
    ($pool:expr, |$tx:ident| $command:expr) => {{
        let mut $tx = $pool.begin().await?;
        let outcome = $command.await;
        if outcome.is_ok() {
            $tx.commit().await?;
        }
        outcome
    }};
}

pub(crate) fn caller(user: &str) -> Caller {
    Caller::user(UserId::parse(user).unwrap(), None)
}

pub(crate) fn ada() -> Caller {
    caller("ada")
}

pub(crate) fn due_local(local: &str, time_zone: &str) -> DueInput {
    DueInput {
        local: Some(local.parse().unwrap()),
        time_zone: Some(time_zone.to_owned()),
        at: None,
    }
}

pub(crate) fn due_at(at: Timestamp) -> DueInput {
    DueInput {
        local: None,
        time_zone: None,
        at: Some(at),
    }
}

pub(crate) fn before(span: &str) -> ReminderInput {
    ReminderInput {
        before: Some(span.parse().unwrap()),
        at: None,
    }
}

pub(crate) fn at(due: DueInput) -> ReminderInput {
    ReminderInput {
        before: None,
        at: Some(due),
    }
}

/// Now, in whole seconds, as due dates are.
pub(crate) fn this_second() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap()
}

pub(crate) async fn create(pool: &PgPool, caller: &Caller, input: TaskInput) -> anyhow::Result<Task> {
    let fields = input.parse().map_err(Error::Invalid)?;
    Ok(task::create(&mut *pool.acquire().await?, caller, fields).await?)
}

pub(crate) async fn get(pool: &PgPool, caller: &Caller, id: TaskId) -> anyhow::Result<Task> {
    Ok(task::get(&mut *pool.acquire().await?, &caller.user, id).await?)
}

pub(crate) async fn edit(
    pool: &PgPool,
    caller: &Caller,
    id: TaskId,
    edit: impl FnOnce(TaskInput) -> TaskInput,
) -> anyhow::Result<Task> {
    Ok(commit!(pool, |tx| task::change(&mut tx, caller, id, None, |input| {
        Ok::<_, Error>(edit(input))
    }))?)
}

pub(crate) async fn complete(pool: &PgPool, caller: &Caller, id: TaskId) -> anyhow::Result<Task> {
    Ok(commit!(pool, |tx| task::complete(&mut tx, caller, id, None))?)
}

pub(crate) async fn reopen(pool: &PgPool, caller: &Caller, id: TaskId) -> anyhow::Result<Task> {
    Ok(commit!(pool, |tx| task::reopen(&mut tx, caller, id, None))?)
}

/// An event as the outbox keeps it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub(crate) struct Logged {
    pub(crate) event_type: String,
    pub(crate) user_id: String,
    pub(crate) actor: String,
    pub(crate) version: i64,
    pub(crate) data: Value,
    pub(crate) previous: Option<Value>,
}

/// A task's events, in the order in which the relay delivers them.
pub(crate) async fn events(pool: &PgPool, id: TaskId) -> anyhow::Result<Vec<Logged>> {
    Ok(sqlx::query_as(
        "SELECT event_type, user_id, actor, version, data, previous
        FROM outbox
        WHERE subject = $1
        ORDER BY xid, seq",
    )
    .bind(id.0)
    .fetch_all(pool)
    .await?)
}

/// The one number that a query yields.
pub(crate) async fn number(pool: &PgPool, query: &'static str) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar(query).fetch_one(pool).await?)
}

/// The field that a refused command names first.
pub(crate) fn refused_field<T: std::fmt::Debug>(outcome: Result<T, Error>) -> String {
    match outcome {
        Err(Error::Invalid(wrong)) => wrong[0].field.clone(),
        other => panic!("not refused as invalid: {other:?}"),
    }
}

/// Runs all of them at the same time and gathers what they come to.
pub(crate) async fn at_once<T: Send + 'static>(
    futures: impl IntoIterator<Item = impl Future<Output = anyhow::Result<T>> + Send + 'static>,
) -> anyhow::Result<Vec<T>> {
    let mut set = JoinSet::new();
    for future in futures {
        set.spawn(future);
    }
    let mut outcomes = Vec::new();
    while let Some(outcome) = set.join_next().await {
        outcomes.push(outcome??);
    }
    Ok(outcomes)
}

pub(crate) fn template(title: &str) -> TaskTemplate {
    TaskTemplate {
        title: title.to_owned(),
        ..TaskTemplate::default()
    }
}

pub(crate) fn cron(expression: &str, time_zone: &str) -> ScheduleSpec {
    ScheduleSpec {
        cron: Some(expression.to_owned()),
        time_zone: time_zone.to_owned(),
        ..ScheduleSpec::default()
    }
}

pub(crate) fn schedule_input(spec: ScheduleSpec) -> ScheduleInput {
    ScheduleInput {
        name: "a schedule".to_owned(),
        schedule: spec,
        template: template("again"),
        overlap: schedule::Overlap::Allow,
        catch_up: schedule::CatchUpInput::default(),
        suspended: false,
    }
}

pub(crate) async fn create_schedule(pool: &PgPool, caller: &Caller, input: ScheduleInput) -> anyhow::Result<Schedule> {
    let fields = input.parse(Timestamp::now()).map_err(Error::Invalid)?;
    Ok(commit!(pool, |tx| schedule::create(&mut tx, caller, fields))?)
}

pub(crate) async fn get_schedule(pool: &PgPool, caller: &Caller, id: ScheduleId) -> anyhow::Result<Schedule> {
    Ok(schedule::get(&mut *pool.acquire().await?, &caller.user, id).await?)
}

/// Lets a schedule have slept since an instant: nothing after it is dealt with. Returns its rule.
pub(crate) async fn asleep_since(pool: &PgPool, schedule: &Schedule, since: Timestamp) -> anyhow::Result<Rule> {
    let rule = Rule::new(&schedule.schedule, since)?;
    sqlx::query("UPDATE schedules SET anchor_at = $2, cursor_at = $2, next_at = $3 WHERE id = $1")
        .bind(schedule.id.0)
        .bind(since.to_sqlx())
        .bind(rule.next_after(since).map(jiff_sqlx::ToSqlx::to_sqlx))
        .execute(pool)
        .await?;
    Ok(rule)
}

/// The instants for which a schedule made a task, in order.
pub(crate) async fn made_for(pool: &PgPool, id: ScheduleId) -> anyhow::Result<Vec<Timestamp>> {
    let times: Vec<jiff_sqlx::Timestamp> = sqlx::query_scalar(
        "SELECT o.scheduled_for
        FROM occurrences AS o
        JOIN tasks AS t ON t.id = o.task_id AND t.schedule_id = o.schedule_id AND t.occurrence_at = o.scheduled_for
        WHERE o.schedule_id = $1
        ORDER BY o.scheduled_for",
    )
    .bind(id.0)
    .fetch_all(pool)
    .await?;
    Ok(times.into_iter().map(jiff_sqlx::Timestamp::to_jiff).collect())
}
