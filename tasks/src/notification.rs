//! A user's notifications feed: what the platform told them, newest first.

use jiff::Timestamp;
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::id::{NotificationId, ReminderId, TaskId, UserId};
use crate::task::Page;

/// What a notification tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = NotificationKind)]
pub enum Kind {
    /// One reminder.
    Reminder,
    /// Many reminders that came due while the platform was away.
    Digest,
}

/// A row of the feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Notification {
    /// The notification.
    pub id: NotificationId,
    /// What it tells of.
    pub kind: Kind,
    /// One line: the task's title, or a digest's count.
    pub title: String,
    /// The task; `null` for a digest.
    pub task_id: Option<TaskId>,
    /// The reminder; `null` for a digest.
    pub reminder_id: Option<ReminderId>,
    /// When it was to go out.
    pub scheduled_for: Timestamp,
    /// It went out more than 60 seconds after that.
    pub late: bool,
    /// How many reminders it stands for.
    pub reminder_count: i32,
    /// When the user read it.
    pub read_at: Option<Timestamp>,
    /// When it went out.
    pub created_at: Timestamp,
}

struct Row {
    id: Uuid,
    kind: String,
    title: String,
    task_id: Option<Uuid>,
    reminder_id: Option<Uuid>,
    scheduled_for: Timestamp,
    late: bool,
    reminder_count: i32,
    read_at: Option<jiff_sqlx::Timestamp>,
    created_at: Timestamp,
}

impl From<Row> for Notification {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.into(),
            kind: if row.kind == "digest" {
                Kind::Digest
            } else {
                Kind::Reminder
            },
            title: row.title,
            task_id: row.task_id.map(Into::into),
            reminder_id: row.reminder_id.map(Into::into),
            scheduled_for: row.scheduled_for,
            late: row.late,
            reminder_count: row.reminder_count,
            read_at: row.read_at.map(jiff_sqlx::Timestamp::to_jiff),
            created_at: row.created_at,
        }
    }
}

/// A page of the feed, newest first. The reminders behind a digest are read with [`digest`].
pub async fn list(
    conn: &mut PgConnection,
    user: &UserId,
    unread_only: bool,
    after: Option<NotificationId>,
    limit: u16,
) -> Result<Page<Notification, NotificationId>> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        SELECT
            id, kind, title, task_id, reminder_id, scheduled_for, late, reminder_count, read_at, created_at
        FROM notifications
        WHERE user_id = $1
            AND digest_id IS NULL
            AND ($2::uuid IS NULL OR id < $2)
            AND (NOT $3 OR read_at IS NULL)
        ORDER BY id DESC
        LIMIT $4
        "#,
        user.as_str(),
        after.map(|after| after.0),
        unread_only,
        i64::from(limit) + 1,
    )
    .fetch_all(conn)
    .await?;
    Ok(page(rows, limit))
}

/// A page of the reminders that a digest stands for, the earliest first.
pub async fn digest(
    conn: &mut PgConnection,
    user: &UserId,
    digest: NotificationId,
    after: Option<NotificationId>,
    limit: u16,
) -> Result<Page<Notification, NotificationId>> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        SELECT
            id, kind, title, task_id, reminder_id, scheduled_for, late, reminder_count, read_at, created_at
        FROM notifications
        WHERE user_id = $1
            AND digest_id = $2
            AND ($3::uuid IS NULL OR id > $3)
        ORDER BY id
        LIMIT $4
        "#,
        user.as_str(),
        digest.0,
        after.map(|after| after.0),
        i64::from(limit) + 1,
    )
    .fetch_all(conn)
    .await?;
    if rows.is_empty() && after.is_none() {
        return Err(Error::NotFound("digest"));
    }
    Ok(page(rows, limit))
}

/// Marks a notification as read; one that was read keeps its time.
pub async fn mark_read(conn: &mut PgConnection, user: &UserId, id: NotificationId) -> Result<Notification> {
    let row = sqlx::query_as!(
        Row,
        r#"
        UPDATE notifications
        SET read_at = COALESCE(read_at, now())
        WHERE user_id = $1
            AND id = $2
        RETURNING
            id, kind, title, task_id, reminder_id, scheduled_for, late, reminder_count, read_at, created_at
        "#,
        user.as_str(),
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Notification::from).ok_or(Error::NotFound("notification"))
}

fn page(rows: Vec<Row>, limit: u16) -> Page<Notification, NotificationId> {
    let mut items: Vec<Notification> = rows.into_iter().map(Notification::from).collect();
    let has_more = items.len() > usize::from(limit);
    items.truncate(usize::from(limit));
    let next = items.last().filter(|_| has_more).map(|last| last.id);
    Page { items, next }
}
