//! Tasks under tasks: a tree, never a ring, and of bounded depth. Called wherever a task gets a parent.

use sqlx::PgConnection;

use crate::error::{Invalid, Result};
use crate::id::{TaskId, UserId};

/// How many tasks may be above one.
const MAX_DEPTH: i32 = 10;

/// Lets one move at a time into the user's tree: two at once could each pass [`check_parent`] and together make a ring.
pub(super) async fn lock_tree(conn: &mut PgConnection, user: &UserId) -> Result<()> {
    sqlx::query!(
        r#"
        SELECT pg_advisory_xact_lock(hashtextextended('todo tree ' || $1, 0))
        "#,
        user.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A parent must be a task of the same user that is not deleted, nor `id` itself or below it, and nothing may come to
/// lie deeper than [`MAX_DEPTH`].
pub(super) async fn check_parent(conn: &mut PgConnection, user: &UserId, id: TaskId, parent: TaskId) -> Result<()> {
    let place = sqlx::query!(
        r#"
        WITH RECURSIVE above AS (
            SELECT t.id, t.parent_id, 1 AS depth
            FROM tasks AS t
            WHERE t.user_id = $1
                AND t.id = $2
                AND t.deleted_at IS NULL
            UNION ALL
            SELECT t.id, t.parent_id, a.depth + 1
            FROM above AS a
            JOIN tasks AS t ON t.user_id = $1 AND t.id = a.parent_id
            WHERE a.depth <= $4
        ), below AS (
            SELECT t.id, 1 AS height
            FROM tasks AS t
            WHERE t.user_id = $1
                AND t.parent_id = $3
            UNION ALL
            SELECT t.id, b.height + 1
            FROM below AS b
            JOIN tasks AS t ON t.user_id = $1 AND t.parent_id = b.id
            WHERE b.height <= $4
        )
        SELECT
            max(depth) AS depth,
            COALESCE(bool_or(id = $3), FALSE) AS "is_below!",
            (SELECT COALESCE(max(height), 0) FROM below) AS "height!"
        FROM above
        "#,
        user.as_str(),
        parent.0,
        id.0,
        MAX_DEPTH,
    )
    .fetch_one(conn)
    .await?;
    let refused = match place.depth {
        None => "no such task".to_owned(),
        Some(_) if place.is_below => "must not be the task itself or one below it".to_owned(),
        Some(depth) if depth + place.height > MAX_DEPTH => format!("tasks nest at most {MAX_DEPTH} levels deep"),
        Some(_) => return Ok(()),
    };
    Err(Invalid::new("parent_id", refused).into())
}
