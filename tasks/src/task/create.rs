//! Making tasks: by a user, by a schedule, by a task that repeats. All go through [`insert`]: one statement that
//! writes the rows, their tags and reminders, and one event each.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde_json::Value;
use sqlx::PgConnection;
use todo_events::{EventType, NewEvent};
use uuid::Uuid;

use super::input::{ReminderFields, check_reminders_have_a_due_date, series_start};
use super::parent::check_parent;
use super::{ReminderInput, Status, Task, TaskFields, TaskReminder};
use crate::caller::Caller;
use crate::clock;
use crate::error::{Error, Invalid, Result};
use crate::id::{ReminderId, ScheduleId, TaskId, UserId};

/// A task that is about to be written, and what its reminders mean.
pub(crate) struct NewTask {
    pub(crate) task: Task,
    pub(crate) reminders: Vec<(ReminderId, ReminderFields)>,
}

impl NewTask {
    /// A new open task with these fields, at version 1.
    pub(crate) fn new(user: UserId, fields: TaskFields, now: Timestamp) -> Self {
        let reminders: Vec<_> = fields
            .reminders
            .into_iter()
            .map(|fields| (ReminderId::new(), fields))
            .collect();
        let task = Task {
            id: TaskId::new(),
            user_id: user,
            title: fields.title,
            description: fields.description,
            status: Status::Open,
            priority: fields.priority,
            category: fields.category,
            tags: fields.tags,
            completed_at: None,
            parent_id: fields.parent_id,
            schedule_id: None,
            occurrence_at: None,
            series_start: series_start(fields.recurrence.as_ref(), fields.due.as_ref(), None),
            recurrence: fields.recurrence,
            due: fields.due,
            previous_id: None,
            reminders: reminders
                .iter()
                .map(|(id, fields)| TaskReminder {
                    id: *id,
                    when: ReminderInput::from(fields),
                })
                .collect(),
            version: 1,
            created_at: now,
            updated_at: now,
        };
        Self { task, reminders }
    }

    /// The same, made by a schedule for one of its occurrences.
    pub(crate) fn of_schedule(mut self, schedule: ScheduleId, occurrence: Timestamp) -> Self {
        self.task.schedule_id = Some(schedule);
        self.task.occurrence_at = Some(occurrence);
        self
    }
}

/// Makes a task, and its `created` event.
///
/// One statement, so that it needs no transaction of its own: pass a plain connection, or one in a transaction
/// when more belongs to it.
pub async fn create(conn: &mut PgConnection, caller: &Caller, fields: TaskFields) -> Result<Task> {
    if fields.status != Status::Open {
        return Err(Invalid::new("status", "a new task is open; complete it once it is there").into());
    }
    check_reminders_have_a_due_date(&fields.reminders, fields.due.as_ref())?;
    let new = NewTask::new(caller.user.clone(), fields, clock::now());
    if let Some(parent) = new.task.parent_id {
        check_parent(conn, &caller.user, new.task.id, parent).await?;
    }
    insert(
        conn,
        std::slice::from_ref(&new),
        EventType::Created,
        &caller.actor,
        caller.traceparent.as_deref(),
    )
    .await?;
    Ok(new.task)
}

/// Writes tasks, their tags and reminders, and an event of type `event_type` for each. One statement: all or nothing.
pub(crate) async fn insert(
    conn: &mut PgConnection,
    new: &[NewTask],
    event_type: EventType,
    actor: &str,
    traceparent: Option<&str>,
) -> Result<()> {
    let mut columns = Columns::with_capacity(new.len());
    for new in new {
        columns.push(new, event_type, actor, traceparent);
    }
    sqlx::query_scalar!(
        r#"
        WITH task AS (
            INSERT INTO tasks (
                id, user_id, title, description, priority, category, due_local, due_zone, due_at, parent_id,
                schedule_id, occurrence_at, recurrence, series_start, previous_id, created_at, updated_at
            )
            SELECT
                n.id, n.user_id, n.title, n.description, n.priority::task_priority, n.category,
                n.due_local, n.due_zone, n.due_at, n.parent_id, n.schedule_id, n.occurrence_at,
                n.recurrence, n.series_start, n.previous_id, n.created_at, n.created_at
            FROM UNNEST(
                $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamp[],
                $8::text[], $9::timestamptz[], $10::uuid[], $11::uuid[], $12::timestamptz[], $13::jsonb[],
                $14::timestamp[], $15::uuid[], $16::timestamptz[]
            ) AS n (
                id, user_id, title, description, priority, category, due_local, due_zone, due_at, parent_id,
                schedule_id, occurrence_at, recurrence, series_start, previous_id, created_at
            )
        ), known_tag AS (
            INSERT INTO tags (user_id, name)
            SELECT DISTINCT n.user_id, n.tag
            FROM UNNEST($17::text[], $18::text[]) AS n (user_id, tag)
            ORDER BY n.user_id, n.tag
            ON CONFLICT DO NOTHING
        ), task_tag AS (
            INSERT INTO task_tags (user_id, tag, task_id)
            SELECT n.user_id, n.tag, n.task_id
            FROM UNNEST($17::text[], $18::text[], $19::uuid[]) AS n (user_id, tag, task_id)
        ), reminder AS (
            INSERT INTO reminders (id, user_id, task_id, before_seconds, at_local, at_zone, fire_at)
            SELECT n.id, n.user_id, n.task_id, n.before_seconds, n.at_local, n.at_zone, n.fire_at
            FROM UNNEST(
                $20::uuid[], $21::text[], $22::uuid[], $23::bigint[], $24::timestamp[], $25::text[],
                $26::timestamptz[]
            ) AS n (id, user_id, task_id, before_seconds, at_local, at_zone, fire_at)
        )
        SELECT append_events($27, $28, $1, $2, $29, $30, $31, NULL, $32)
        "#,
        &columns.id,
        &columns.user_id,
        &columns.title,
        &columns.description,
        &columns.priority,
        &columns.category as _,
        &columns.due_local as _,
        &columns.due_zone as _,
        &columns.due_at as _,
        &columns.parent_id as _,
        &columns.schedule_id as _,
        &columns.occurrence_at as _,
        &columns.recurrence as _,
        &columns.series_start as _,
        &columns.previous_id as _,
        &columns.created_at as _,
        &columns.tag_user,
        &columns.tag,
        &columns.tag_task,
        &columns.reminder_id,
        &columns.reminder_user,
        &columns.reminder_task,
        &columns.reminder_before as _,
        &columns.reminder_local as _,
        &columns.reminder_zone as _,
        &columns.reminder_fire_at as _,
        &columns.event_id,
        &columns.event_type,
        &columns.version,
        &columns.actor,
        &columns.data as _,
        &columns.traceparent as _,
    )
    .fetch_one(conn)
    .await
    .map_err(constraint_to_error)?;
    Ok(())
}

/// A parent that vanished between the check and the insert is the caller's to know of.
fn constraint_to_error(error: sqlx::Error) -> Error {
    match error.as_database_error().and_then(|error| error.constraint()) {
        Some("tasks_parent") => Invalid::new("parent_id", "no such task").into(),
        _ => error.into(),
    }
}

/// The columns of [`insert`], as arrays of one length each.
#[derive(Default)]
struct Columns {
    id: Vec<Uuid>,
    user_id: Vec<String>,
    title: Vec<String>,
    description: Vec<String>,
    priority: Vec<String>,
    category: Vec<Option<String>>,
    due_local: Vec<Option<jiff_sqlx::DateTime>>,
    due_zone: Vec<Option<String>>,
    due_at: Vec<Option<jiff_sqlx::Timestamp>>,
    parent_id: Vec<Option<Uuid>>,
    schedule_id: Vec<Option<Uuid>>,
    occurrence_at: Vec<Option<jiff_sqlx::Timestamp>>,
    recurrence: Vec<Option<Value>>,
    series_start: Vec<Option<jiff_sqlx::DateTime>>,
    previous_id: Vec<Option<Uuid>>,
    created_at: Vec<jiff_sqlx::Timestamp>,
    tag_user: Vec<String>,
    tag: Vec<String>,
    tag_task: Vec<Uuid>,
    reminder_id: Vec<Uuid>,
    reminder_user: Vec<String>,
    reminder_task: Vec<Uuid>,
    reminder_before: Vec<Option<i64>>,
    reminder_local: Vec<Option<jiff_sqlx::DateTime>>,
    reminder_zone: Vec<Option<String>>,
    reminder_fire_at: Vec<Option<jiff_sqlx::Timestamp>>,
    event_id: Vec<Uuid>,
    event_type: Vec<String>,
    version: Vec<i64>,
    actor: Vec<String>,
    data: Vec<Value>,
    traceparent: Vec<Option<String>>,
}

impl Columns {
    fn with_capacity(tasks: usize) -> Self {
        Self {
            id: Vec::with_capacity(tasks),
            title: Vec::with_capacity(tasks),
            data: Vec::with_capacity(tasks),
            ..Self::default()
        }
    }

    fn push(&mut self, new: &NewTask, event_type: EventType, actor: &str, traceparent: Option<&str>) {
        let task = &new.task;
        let user = task.user_id.as_str();
        let due = task.due.as_ref();
        self.id.push(task.id.0);
        self.user_id.push(user.to_owned());
        self.title.push(task.title.clone());
        self.description.push(task.description.clone());
        self.priority.push(task.priority.as_str().to_owned());
        self.category.push(task.category.clone());
        self.due_local.push(due.map(|due| due.local.to_sqlx()));
        self.due_zone.push(due.map(|due| due.time_zone.clone()));
        self.due_at.push(due.map(|due| due.at.to_sqlx()));
        self.parent_id.push(task.parent_id.map(Uuid::from));
        self.schedule_id.push(task.schedule_id.map(Uuid::from));
        self.occurrence_at.push(task.occurrence_at.map(ToSqlx::to_sqlx));
        self.recurrence
            .push(task.recurrence.as_ref().map(super::recurrence_json));
        self.series_start.push(task.series_start.map(ToSqlx::to_sqlx));
        self.previous_id.push(task.previous_id.map(Uuid::from));
        self.created_at.push(task.created_at.to_sqlx());
        for tag in &task.tags {
            self.tag_user.push(user.to_owned());
            self.tag.push(tag.clone());
            self.tag_task.push(task.id.0);
        }
        for (id, fields) in &new.reminders {
            let (before, local, zone) = fields.key();
            self.reminder_id.push(id.0);
            self.reminder_user.push(user.to_owned());
            self.reminder_task.push(task.id.0);
            self.reminder_before.push(before);
            self.reminder_local.push(local.map(ToSqlx::to_sqlx));
            self.reminder_zone.push(zone.map(str::to_owned));
            self.reminder_fire_at.push(fields.fire_at(due).map(ToSqlx::to_sqlx));
        }
        self.event_id.push(NewEvent::new_id());
        self.event_type.push(event_type.as_str().to_owned());
        self.version.push(task.version);
        self.actor.push(actor.to_owned());
        self.data.push(task.to_json());
        self.traceparent.push(traceparent.map(str::to_owned));
    }
}
