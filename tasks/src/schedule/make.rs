//! Due occurrences become tasks.
//!
//! One transaction claims the schedules, makes their tasks with events, reminders and occurrence rows, and moves the
//! cursors. Any number of workers may do so side by side: `SKIP LOCKED` gives each its own schedules, and the
//! primary key of `occurrences` refuses a double whatever happens.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use todo_events::EventType;
use todo_recurrence::Schedule as Rule;
use uuid::Uuid;

use super::catch_up::decide;
use super::input::zone_of;
use super::query::{SELECT_SCHEDULES, ScheduleRow};
use super::{Overlap, Schedule};
use crate::caller::Caller;
use crate::error::{Error, Invalid, Result};
use crate::task::{NewTask, insert};

/// The most tasks that one transaction makes; what is left waits for the next.
const MAX_TASKS: usize = 5_000;

/// What one pass did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Schedules that were dealt with.
    pub schedules: usize,
    /// Tasks that were made.
    pub tasks: usize,
    /// Occurrences that were missed.
    pub missed: u64,
    /// Occurrences that were skipped because a task was open.
    pub skipped: u64,
    /// Schedules that were stopped because this version cannot read them.
    pub problems: usize,
    /// The most seconds that a task was made after its occurrence.
    pub worst_delay_seconds: i64,
}

/// Makes the tasks of up to `limit` schedules that are due. Call in a transaction, commit after.
pub async fn make_due(conn: &mut PgConnection, limit: i64) -> Result<Made> {
    let mut query = QueryBuilder::<Postgres>::new(SELECT_SCHEDULES);
    query.push(
        " WHERE next_at <= now()
            AND NOT suspended
            AND problem IS NULL
            AND deleted_at IS NULL
        ORDER BY next_at
        LIMIT ",
    );
    query.push_bind(limit).push(" FOR UPDATE SKIP LOCKED");
    let rows: Vec<ScheduleRow> = query.build_query_as().fetch_all(&mut *conn).await?;
    let schedules: Vec<Schedule> = rows.into_iter().map(Schedule::from).collect();
    make(conn, schedules).await
}

/// How long until the next schedule is due, by the database's clock; `None` when none is.
pub async fn until_next(conn: &mut PgConnection) -> Result<Option<Duration>> {
    let seconds = sqlx::query_scalar!(
        r#"
        SELECT EXTRACT(epoch FROM min(next_at) - now())::double precision
        FROM schedules
        WHERE next_at IS NOT NULL
            AND NOT suspended
            AND problem IS NULL
            AND deleted_at IS NULL
        "#,
    )
    .fetch_one(conn)
    .await?;
    Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()))
}

/// Makes what is due of these schedules, whose rows the transaction has locked.
pub(super) async fn make(conn: &mut PgConnection, schedules: Vec<Schedule>) -> Result<Made> {
    let mut made = Made::default();
    if schedules.is_empty() {
        return Ok(made);
    }
    let now = database_now(conn).await?;
    let busy = with_open_tasks(conn, &schedules).await?;
    let mut tasks = Vec::new();
    let mut progress = Progress::default();
    for schedule in schedules {
        if tasks.len() >= MAX_TASKS {
            break;
        }
        made.schedules += 1;
        match plan(&schedule, now, busy.contains(&schedule.id.0)) {
            Ok(plan) => {
                made.missed += plan.missed;
                made.skipped += plan.skipped;
                progress.push(&schedule, &plan);
                tasks.extend(plan.tasks);
            }
            Err(problem) => {
                made.problems += 1;
                stop(conn, &schedule, &problem).await?;
            }
        }
    }
    let tasks = without_made_before(conn, tasks).await?;
    progress.count_made(&tasks);
    made.tasks = tasks.len();
    made.worst_delay_seconds = tasks
        .iter()
        .filter_map(|new| new.task.occurrence_at)
        .map(|occurrence| now.as_second() - occurrence.as_second())
        .max()
        .unwrap_or_default();
    if !tasks.is_empty() {
        // Tasks of many users in one statement: the caller only names the actor.
        let actor = Caller::system("recurring", tasks[0].task.user_id.clone()).actor;
        insert(conn, &tasks, EventType::RecurringSpawn, &actor, None).await?;
        record_occurrences(conn, &tasks).await?;
    }
    progress.write(conn).await?;
    Ok(made)
}

/// The clock that decides what is due: the database's, at the transaction's start.
pub(super) async fn database_now(conn: &mut PgConnection) -> Result<Timestamp> {
    Ok(sqlx::query_scalar!(r#"SELECT now() AS "now!""#)
        .fetch_one(conn)
        .await?
        .to_jiff())
}

/// Those of the schedules that skip while a task is open and have one.
async fn with_open_tasks(conn: &mut PgConnection, schedules: &[Schedule]) -> Result<HashSet<Uuid>> {
    let skipping: Vec<Uuid> = schedules
        .iter()
        .filter(|schedule| schedule.overlap == Overlap::Skip)
        .map(|schedule| schedule.id.0)
        .collect();
    if skipping.is_empty() {
        return Ok(HashSet::new());
    }
    let busy = sqlx::query_scalar!(
        r#"
        SELECT DISTINCT schedule_id AS "schedule_id!"
        FROM tasks
        WHERE schedule_id = ANY ($1)
            AND status = 'open'
            AND deleted_at IS NULL
        "#,
        &skipping,
    )
    .fetch_all(conn)
    .await?;
    Ok(busy.into_iter().collect())
}

/// What one schedule's turn comes to.
struct Plan {
    tasks: Vec<NewTask>,
    missed: u64,
    skipped: u64,
    cursor: Timestamp,
    next: Option<Timestamp>,
}

/// Plans a schedule's turn, or says why this version cannot.
fn plan(schedule: &Schedule, now: Timestamp, has_open_task: bool) -> Result<Plan, String> {
    if let Some(unreadable) = &schedule.problem {
        return Err(unreadable.clone());
    }
    let rule = Rule::new(&schedule.schedule, schedule.anchor_at)
        .map_err(|wrong| Invalid::new(wrong.field, wrong.message).under("schedule").to_string())?;
    let mut decision = decide(&rule, schedule.catch_up, schedule.cursor_at, now);
    let mut skipped = 0;
    if schedule.overlap == Overlap::Skip {
        // The latest is the one that matters; once it is made, it is the open one.
        let keep = usize::from(!has_open_task);
        let excess = decision.make.len().saturating_sub(keep);
        decision.make.drain(..excess);
        skipped = excess as u64;
    }
    let zone = zone_of(&schedule.schedule);
    let first = u64::try_from(schedule.made).unwrap_or_default() + 1;
    let tasks = (first..)
        .zip(decision.make)
        .map(|(n, occurrence)| {
            let fields = schedule
                .template
                .task(&occurrence.to_zoned(zone.clone()), n)
                .map_err(|wrong| {
                    let wrong = wrong.into_iter().map(|wrong| wrong.under("template"));
                    Error::Invalid(wrong.collect()).to_string()
                })?;
            let new = NewTask::new(schedule.user_id.clone(), fields, now);
            Ok(new.of_schedule(schedule.id, occurrence))
        })
        .collect::<Result<_, String>>()?;
    Ok(Plan {
        tasks,
        missed: decision.missed,
        skipped,
        cursor: decision.cursor,
        next: decision.next,
    })
}

/// Stops a schedule that this version cannot read, and says why, so that it does not stand in the way of others.
async fn stop(conn: &mut PgConnection, schedule: &Schedule, problem: &str) -> Result<()> {
    sqlx::query!(
        r#"
        UPDATE schedules
        SET problem = $2
        WHERE id = $1
        "#,
        schedule.id.0,
        problem,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Leaves out occurrences that have their task already: a cursor may have been set back, a task is never doubled.
async fn without_made_before(conn: &mut PgConnection, tasks: Vec<NewTask>) -> Result<Vec<NewTask>> {
    let (schedules, occurrences) = occurrence_columns(&tasks);
    let before = sqlx::query!(
        r#"
        SELECT o.schedule_id, o.scheduled_for
        FROM UNNEST($1::uuid[], $2::timestamptz[]) AS n (schedule_id, scheduled_for)
        JOIN occurrences AS o USING (schedule_id, scheduled_for)
        "#,
        &schedules,
        &occurrences as _,
    )
    .fetch_all(conn)
    .await?;
    let before: HashSet<(Uuid, Timestamp)> = before
        .into_iter()
        .map(|row| (row.schedule_id, row.scheduled_for.to_jiff()))
        .collect();
    let is_new = |new: &NewTask| match (new.task.schedule_id, new.task.occurrence_at) {
        (Some(schedule), Some(occurrence)) => !before.contains(&(schedule.0, occurrence)),
        _ => true,
    };
    Ok(tasks.into_iter().filter(is_new).collect())
}

async fn record_occurrences(conn: &mut PgConnection, tasks: &[NewTask]) -> Result<()> {
    let (schedules, occurrences) = occurrence_columns(tasks);
    let ids: Vec<Uuid> = tasks.iter().map(|new| new.task.id.0).collect();
    sqlx::query!(
        r#"
        INSERT INTO occurrences (schedule_id, scheduled_for, task_id)
        SELECT n.schedule_id, n.scheduled_for, n.task_id
        FROM UNNEST($1::uuid[], $2::timestamptz[], $3::uuid[]) AS n (schedule_id, scheduled_for, task_id)
        "#,
        &schedules,
        &occurrences as _,
        &ids,
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn occurrence_columns(tasks: &[NewTask]) -> (Vec<Uuid>, Vec<jiff_sqlx::Timestamp>) {
    tasks
        .iter()
        .filter_map(|new| Some((new.task.schedule_id?.0, new.task.occurrence_at?.to_sqlx())))
        .unzip()
}

/// How far each schedule got, as arrays of one length.
#[derive(Default)]
struct Progress {
    id: Vec<Uuid>,
    cursor: Vec<jiff_sqlx::Timestamp>,
    next: Vec<Option<jiff_sqlx::Timestamp>>,
    last: Vec<Option<jiff_sqlx::Timestamp>>,
    made: Vec<i64>,
    missed: Vec<i64>,
    skipped: Vec<i64>,
}

impl Progress {
    fn push(&mut self, schedule: &Schedule, plan: &Plan) {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.id.push(schedule.id.0);
        self.cursor.push(plan.cursor.to_sqlx());
        self.next.push(plan.next.map(ToSqlx::to_sqlx));
        self.last.push(
            plan.tasks
                .last()
                .and_then(|new| new.task.occurrence_at)
                .map(ToSqlx::to_sqlx),
        );
        self.made.push(0);
        self.missed.push(count(plan.missed));
        self.skipped.push(count(plan.skipped));
    }

    /// Counts the tasks that are made, each for its schedule.
    fn count_made(&mut self, tasks: &[NewTask]) {
        let mut counts: HashMap<Uuid, i64> = HashMap::new();
        for schedule in tasks.iter().filter_map(|new| new.task.schedule_id) {
            *counts.entry(schedule.0).or_default() += 1;
        }
        for (made, id) in self.made.iter_mut().zip(&self.id) {
            *made = counts.get(id).copied().unwrap_or_default();
        }
    }

    async fn write(&self, conn: &mut PgConnection) -> Result<()> {
        sqlx::query!(
            r#"
            UPDATE schedules AS s
            SET cursor_at = n.cursor_at,
                next_at = n.next_at,
                last_at = COALESCE(n.last_at, s.last_at),
                made = s.made + n.made,
                missed = s.missed + n.missed,
                skipped = s.skipped + n.skipped
            FROM UNNEST(
                $1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::bigint[], $6::bigint[],
                $7::bigint[]
            ) AS n (id, cursor_at, next_at, last_at, made, missed, skipped)
            WHERE s.id = n.id
            "#,
            &self.id,
            &self.cursor as _,
            &self.next as _,
            &self.last as _,
            &self.made,
            &self.missed,
            &self.skipped,
        )
        .execute(conn)
        .await?;
        Ok(())
    }
}
