//! What became of the schedules that resources declare: the state of one, and of all that have changed.
//!
//! Changes are read in the order of the transactions that made them, and only those that no running transaction can
//! still come before: a reader that goes on from where it was misses none, however slow a commit is. A schedule that
//! changed several times is there once, as it is now.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::id::ScheduleId;

/// A declared schedule, as whoever declares it wants to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeclaredState {
    /// The UID of the resource.
    pub uid: String,
    /// The resource, `NAMESPACE/NAME`.
    pub origin: String,
    /// The content that is in force, as it was declared; `null` when somebody else has changed it since.
    pub hash: Option<String>,
    /// The schedule, for its user.
    pub id: ScheduleId,
    /// Its user has deleted it. Declaring it again brings it back.
    pub deleted: bool,
    /// Whether anybody with the user's `sub` has ever used the API.
    pub user_known: bool,
    /// It makes nothing because that was declared.
    pub suspended: bool,
    /// The rule has no further occurrence.
    pub ended: bool,
    /// Why it makes nothing although it should: this version cannot read it.
    pub problem: Option<String>,
    /// The next occurrence; `null` while there is none that would make a task.
    pub next_at: Option<Timestamp>,
    /// The last occurrence that made a task.
    pub last_at: Option<Timestamp>,
    /// Tasks that it made.
    pub made: i64,
    /// Occurrences that made none because nothing ran in time.
    pub missed: i64,
    /// Occurrences that made none because an earlier task was open.
    pub skipped: i64,
    /// Counts its changes by people and declarations, from 1.
    pub version: i64,
}

/// A place in the order of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedPosition {
    /// A PostgreSQL `xid8`; it does not reach 2^63.
    xid: i64,
    id: Uuid,
}

impl FeedPosition {
    /// Before all changes.
    const START: Self = Self {
        xid: 0,
        id: Uuid::nil(),
    };
}

/// What has changed after a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The schedules, each once.
    pub items: Vec<DeclaredState>,
    /// Where the next read goes on.
    pub position: FeedPosition,
    /// Whether there is more already.
    pub has_more: bool,
}

/// A schedule with its place.
struct Row {
    xid: i64,
    id: Uuid,
    uid: String,
    origin: String,
    hash: Option<String>,
    deleted: bool,
    user_known: bool,
    suspended: bool,
    problem: Option<String>,
    next_at: Option<jiff_sqlx::Timestamp>,
    last_at: Option<jiff_sqlx::Timestamp>,
    made: i64,
    missed: i64,
    skipped: i64,
    version: i64,
}

impl From<Row> for DeclaredState {
    fn from(row: Row) -> Self {
        let is_running = !row.suspended && !row.deleted && row.problem.is_none();
        let next_at = row.next_at.map(jiff_sqlx::Timestamp::to_jiff);
        Self {
            uid: row.uid,
            origin: row.origin,
            hash: row.hash,
            id: ScheduleId(row.id),
            deleted: row.deleted,
            user_known: row.user_known,
            suspended: row.suspended,
            ended: next_at.is_none(),
            problem: row.problem,
            next_at: next_at.filter(|_| is_running),
            last_at: row.last_at.map(jiff_sqlx::Timestamp::to_jiff),
            made: row.made,
            missed: row.missed,
            skipped: row.skipped,
            version: row.version,
        }
    }
}

/// The state of the schedule that the resource with this UID declares.
pub(super) async fn state_of(conn: &mut PgConnection, uid: &str) -> Result<DeclaredState> {
    let row = sqlx::query_as!(
        Row,
        r#"
        SELECT
            changed_xid::text::bigint AS "xid!", id, external_uid AS "uid!", origin AS "origin!",
            external_hash AS hash, deleted_at IS NOT NULL AS "deleted!", suspended, problem, next_at, last_at, made,
            missed, skipped, version,
            EXISTS (
                SELECT
                FROM known_users
                WHERE known_users.user_id = schedules.user_id
            ) AS "user_known!"
        FROM schedules
        WHERE external_uid = $1
            AND origin IS NOT NULL
        "#,
        uid,
    )
    .fetch_optional(conn)
    .await?;
    row.map(DeclaredState::from).ok_or(Error::NotFound("schedule"))
}

/// The schedules that have changed after a position, at most `limit`; all of them without one.
///
/// A position that this server has not reached yet comes from before a restore, and counts for none.
pub async fn changed_after(conn: &mut PgConnection, after: Option<FeedPosition>, limit: u16) -> Result<Changes> {
    let after = after.unwrap_or(FeedPosition::START);
    let limit = usize::from(limit);
    let rows = sqlx::query_as!(
        Row,
        r#"
        SELECT
            changed_xid::text::bigint AS "xid!", id, external_uid AS "uid!", origin AS "origin!",
            external_hash AS hash, deleted_at IS NOT NULL AS "deleted!", suspended, problem, next_at, last_at, made,
            missed, skipped, version,
            EXISTS (
                SELECT
                FROM known_users
                WHERE known_users.user_id = schedules.user_id
            ) AS "user_known!"
        FROM schedules
        WHERE origin IS NOT NULL
            AND (changed_xid, id) > (
                CASE
                    WHEN $1::bigint::text::xid8 < pg_snapshot_xmax(pg_current_snapshot()) THEN $1::bigint::text::xid8
                    ELSE '0'::xid8
                END,
                $2::uuid
            )
            AND changed_xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY changed_xid, id
        LIMIT $3
        "#,
        after.xid,
        after.id,
        i64::try_from(limit + 1).unwrap_or(i64::MAX),
    )
    .fetch_all(conn)
    .await?;
    let has_more = rows.len() > limit;
    let shown = &rows[..rows.len().min(limit)];
    let position = shown.last().map_or(after, |last| FeedPosition {
        xid: last.xid,
        id: last.id,
    });
    Ok(Changes {
        items: rows.into_iter().take(limit).map(DeclaredState::from).collect(),
        position,
        has_more,
    })
}

/// Has schedules whose last change is of a transaction that this server has not begun yet, because they were loaded
/// from another's dump, changed now; says how many. They would not be heard of for as long.
pub async fn rebase_after_restore(pool: &PgPool) -> Result<u64> {
    let changed = sqlx::query!(
        r#"
        UPDATE schedules
        SET changed_xid = pg_current_xact_id()
        WHERE changed_xid >= pg_snapshot_xmax(pg_current_snapshot())
        "#,
    )
    .execute(pool)
    .await?
    .rows_affected();
    Ok(changed)
}
