//! What comes due, told once.
//!
//! Claiming a reminder, its event and its row in the feed are one transaction: a crash leaves either all or none.
//! `SKIP LOCKED` lets any number of workers claim side by side. The database's clock decides what is due, so
//! none goes out early however wrong a worker's clock is.
//!
//! After downtime there may be thousands. What is due now goes first ([`send_on_time`]); what is late
//! ([`send_late`]) follows in batches that the worker paces. A user hears of the first few late ones one by
//! one, and of the rest in a digest that grows with each batch instead of ringing again.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde_json::{Value, json};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use todo_events::{EventType, NewEvent, outbox};
use uuid::Uuid;

use crate::error::Result;
use crate::id::NotificationId;
use crate::task::{SELECT_TASKS, Task, TaskRow};

/// From this many seconds after its instant on, a reminder is late and says so.
pub const LATE_AFTER: i32 = 60;

/// How many late reminders an hour a user is told of one by one.
const LATE_ONES_TOLD_SINGLY: i64 = 3;

/// What a batch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Reminders that went out.
    pub sent: usize,
    /// Digests that were begun or grew.
    pub digests: usize,
    /// The most seconds that one of them was behind its instant.
    pub worst_delay_seconds: i64,
}

struct Claimed {
    id: Uuid,
    user_id: String,
    task_id: Uuid,
    fire_at: Timestamp,
    now: Timestamp,
}

/// Sends up to `limit` reminders that are due and not late. Call in a transaction, commit after.
pub async fn send_on_time(conn: &mut PgConnection, limit: i64) -> Result<Sent> {
    let claimed = sqlx::query_as!(
        Claimed,
        r#"
        SELECT id, user_id, task_id, fire_at AS "fire_at!", now() AS "now!"
        FROM reminders
        WHERE sent_at IS NULL
            AND fire_at <= now()
            AND fire_at > now() - make_interval(secs => $2)
        ORDER BY fire_at
        LIMIT $1
        FOR UPDATE SKIP LOCKED
        "#,
        limit,
        f64::from(LATE_AFTER),
    )
    .fetch_all(&mut *conn)
    .await?;
    send(conn, claimed, &HashMap::new(), false).await
}

/// Sends up to `limit` reminders that are late, the longest waiting first. Call in a transaction, commit after.
pub async fn send_late(conn: &mut PgConnection, limit: i64) -> Result<Sent> {
    let claimed = sqlx::query_as!(
        Claimed,
        r#"
        SELECT id, user_id, task_id, fire_at AS "fire_at!", now() AS "now!"
        FROM reminders
        WHERE sent_at IS NULL
            AND fire_at <= now() - make_interval(secs => $2)
        ORDER BY fire_at
        LIMIT $1
        FOR UPDATE SKIP LOCKED
        "#,
        limit,
        f64::from(LATE_AFTER),
    )
    .fetch_all(&mut *conn)
    .await?;
    if claimed.is_empty() {
        // As a rule: nothing to look digests up for.
        return Ok(Sent::default());
    }
    let digests = digests(conn, &claimed).await?;
    send(conn, claimed, &digests, true).await
}

/// How long until the next reminder is due, by the database's clock; `None` when none waits.
pub async fn until_next(conn: &mut PgConnection) -> Result<Option<Duration>> {
    let seconds = sqlx::query_scalar!(
        r#"
        SELECT EXTRACT(epoch FROM min(fire_at) - now())::double precision
        FROM reminders
        WHERE sent_at IS NULL
            AND fire_at IS NOT NULL
        "#,
    )
    .fetch_one(conn)
    .await?;
    Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()))
}

/// The digest of each user who has more late reminders than are told singly: the one that is open, or a new one.
async fn digests(conn: &mut PgConnection, claimed: &[Claimed]) -> Result<HashMap<String, NotificationId>> {
    let mut late: HashMap<&str, i64> = HashMap::new();
    for reminder in claimed {
        *late.entry(&reminder.user_id).or_default() += 1;
    }
    let mut users: Vec<&str> = late.keys().copied().collect();
    users.sort_unstable();
    // Two workers with reminders of one user would each begin a digest: the lock lets the second find the first's.
    // Sorted, so that they cannot wait for each other.
    sqlx::query!(
        r#"
        SELECT pg_advisory_xact_lock(hashtextextended('todo digest ' || u.user_id, 0))
        FROM UNNEST($1::text[]) AS u (user_id)
        "#,
        &users as _,
    )
    .execute(&mut *conn)
    .await?;
    let recent = sqlx::query!(
        r#"
        SELECT
            n.user_id,
            (array_agg(n.id ORDER BY n.id DESC) FILTER (WHERE n.kind = 'digest' AND n.read_at IS NULL))[1] AS digest_id,
            count(*) FILTER (WHERE n.kind = 'reminder' AND n.late) AS "told!"
        FROM notifications AS n
        WHERE n.user_id = ANY ($1)
            AND n.digest_id IS NULL
            AND n.created_at > now() - interval '1 hour'
        GROUP BY n.user_id
        "#,
        &users as _,
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut digests = HashMap::new();
    let mut told: HashMap<&str, i64> = HashMap::new();
    for row in &recent {
        told.insert(&row.user_id, row.told);
        if let Some(digest) = row.digest_id {
            digests.insert(row.user_id.clone(), digest.into());
        }
    }
    for (user, late) in late {
        let told = told.get(user).copied().unwrap_or_default();
        if told + late > LATE_ONES_TOLD_SINGLY {
            digests.entry(user.to_owned()).or_insert_with(NotificationId::new);
        }
    }
    Ok(digests)
}

/// Records the claimed reminders: sent, an event each, a row in the feed each, and their digests.
async fn send(
    conn: &mut PgConnection,
    claimed: Vec<Claimed>,
    digests: &HashMap<String, NotificationId>,
    late: bool,
) -> Result<Sent> {
    if claimed.is_empty() {
        return Ok(Sent::default());
    }
    let tasks = read_tasks(conn, &claimed).await?;
    let mut rows = Rows::default();
    let mut counts: HashMap<&str, i32> = HashMap::new();
    let mut events = Vec::with_capacity(claimed.len());
    let mut outcome = Sent {
        sent: claimed.len(),
        ..Sent::default()
    };
    for reminder in &claimed {
        let delay = reminder.now.as_second() - reminder.fire_at.as_second();
        outcome.worst_delay_seconds = outcome.worst_delay_seconds.max(delay);
        let digest = digests.get(&reminder.user_id).copied();
        if digest.is_some() {
            *counts.entry(&reminder.user_id).or_default() += 1;
        }
        // Deleted tasks have no armed reminders, so the task is there.
        let Some(task) = tasks.get(&reminder.task_id) else {
            continue;
        };
        let notification = NotificationId::new();
        rows.push(notification, reminder, &task.title, digest);
        events.push(event(reminder, task, notification, digest, late));
    }
    outcome.digests = counts.len();
    begin_or_grow_digests(conn, digests, &counts, &claimed).await?;
    rows.write(conn, late).await?;
    outbox::append(conn, &events).await?;
    Ok(outcome)
}

async fn read_tasks(conn: &mut PgConnection, claimed: &[Claimed]) -> Result<HashMap<Uuid, Task>> {
    let mut ids: Vec<Uuid> = claimed.iter().map(|reminder| reminder.task_id).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut query = QueryBuilder::<Postgres>::new(SELECT_TASKS);
    query.push(" WHERE t.id = ANY (").push_bind(ids).push(")");
    let rows: Vec<TaskRow> = query.build_query_as().fetch_all(conn).await?;
    Ok(rows.into_iter().map(|row| (row.id, Task::from(row))).collect())
}

/// The `reminder` event: the task as it is, and which reminder of it came due.
fn event(
    reminder: &Claimed,
    task: &Task,
    notification: NotificationId,
    digest: Option<NotificationId>,
    late: bool,
) -> NewEvent {
    let mut data = task.to_json();
    if let Value::Object(fields) = &mut data {
        let about = json!({
            "id": reminder.id,
            "fire_at": reminder.fire_at,
            "late": late,
            "notification_id": notification,
            "digest_id": digest,
        });
        fields.insert("reminder".to_owned(), about);
    }
    NewEvent {
        id: NewEvent::new_id(),
        event_type: EventType::Reminder,
        subject: reminder.task_id,
        user_id: reminder.user_id.clone(),
        version: task.version,
        actor: "system:reminders".to_owned(),
        data,
        previous: None,
        traceparent: None,
    }
}

/// A digest's row, or its count raised. Before the rows that refer to it.
async fn begin_or_grow_digests(
    conn: &mut PgConnection,
    digests: &HashMap<String, NotificationId>,
    counts: &HashMap<&str, i32>,
    claimed: &[Claimed],
) -> Result<()> {
    let Some(now) = claimed.first().map(|reminder| reminder.now) else {
        return Ok(());
    };
    let mut ids = Vec::with_capacity(counts.len());
    let mut users = Vec::with_capacity(counts.len());
    let mut numbers = Vec::with_capacity(counts.len());
    for (user, count) in counts {
        if let Some(digest) = digests.get(*user) {
            ids.push(digest.0);
            users.push(*user);
            numbers.push(*count);
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        r#"
        INSERT INTO notifications (id, user_id, kind, title, scheduled_for, late, reminder_count)
        SELECT
            d.id, d.user_id, 'digest',
            d.count || CASE d.count WHEN 1 THEN ' reminder' ELSE ' reminders' END
                || ' came due while the platform was away',
            $4, TRUE, d.count
        FROM UNNEST($1::uuid[], $2::text[], $3::integer[]) AS d (id, user_id, count)
        ON CONFLICT (id) DO UPDATE
        SET reminder_count = notifications.reminder_count + EXCLUDED.reminder_count,
            title = (notifications.reminder_count + EXCLUDED.reminder_count)
                || ' reminders came due while the platform was away'
        "#,
        &ids,
        &users as _,
        &numbers,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The rows of a batch, as arrays of one length.
#[derive(Default)]
struct Rows {
    notification: Vec<Uuid>,
    reminder: Vec<Uuid>,
    user: Vec<String>,
    task: Vec<Uuid>,
    title: Vec<String>,
    fire_at: Vec<jiff_sqlx::Timestamp>,
    digest: Vec<Option<Uuid>>,
}

impl Rows {
    fn push(&mut self, id: NotificationId, reminder: &Claimed, title: &str, digest: Option<NotificationId>) {
        self.notification.push(id.0);
        self.reminder.push(reminder.id);
        self.user.push(reminder.user_id.clone());
        self.task.push(reminder.task_id);
        self.title.push(title.to_owned());
        self.fire_at.push(reminder.fire_at.to_sqlx());
        self.digest.push(digest.map(Uuid::from));
    }

    /// Marks the reminders sent and writes the feed. The feed's unique key (reminder, instant) refuses a second time.
    async fn write(&self, conn: &mut PgConnection, late: bool) -> Result<()> {
        sqlx::query!(
            r#"
            WITH sent AS (
                UPDATE reminders
                SET sent_at = now(),
                    late = $8
                WHERE id = ANY ($2)
            )
            INSERT INTO notifications (
                id, reminder_id, user_id, task_id, title, scheduled_for, digest_id, kind, late
            )
            SELECT n.id, n.reminder_id, n.user_id, n.task_id, n.title, n.scheduled_for, n.digest_id, 'reminder', $8
            FROM UNNEST(
                $1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::timestamptz[], $7::uuid[]
            ) AS n (id, reminder_id, user_id, task_id, title, scheduled_for, digest_id)
            "#,
            &self.notification,
            &self.reminder,
            &self.user,
            &self.task,
            &self.title,
            &self.fire_at as _,
            &self.digest as _,
            late,
        )
        .execute(conn)
        .await?;
        Ok(())
    }
}
