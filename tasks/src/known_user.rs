//! Who has ever used the API.
//!
//! A schedule may be declared for any `sub`, also for one that is misspelt and that nobody has. Only this tells. Whose
//! schedules were declared before is noted as a change of these, for whoever follows them.

use sqlx::{PgConnection, PgPool};

use crate::error::Result;
use crate::id::UserId;

/// The first key of the advisory locks of users ("todu" in ASCII).
const USER_LOCK: i32 = 0x746f_6475;

/// Notes that the user has used the API. Again and again it costs one look.
pub async fn record(pool: &PgPool, user: &UserId) -> Result<()> {
    let is_known = sqlx::query_scalar!(
        r#"
        SELECT EXISTS (
            SELECT
            FROM known_users
            WHERE user_id = $1
        ) AS "is_known!"
        "#,
        user.as_str(),
    )
    .fetch_one(pool)
    .await?;
    if is_known {
        return Ok(());
    }
    let mut tx = pool.begin().await?;
    hold(&mut tx, user).await?;
    sqlx::query!(
        r#"
        WITH new AS (
            INSERT INTO known_users (user_id)
            VALUES ($1)
            ON CONFLICT (user_id) DO NOTHING
            RETURNING user_id
        )
        UPDATE schedules
        SET changed_xid = pg_current_xact_id()
        FROM new
        WHERE schedules.user_id = new.user_id
            AND origin IS NOT NULL
        "#,
        user.as_str(),
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// Until the end of the transaction the user does not become known while a schedule is declared for them, nor the
/// other way round: one of the two would not see the other.
pub(crate) async fn hold(conn: &mut PgConnection, user: &UserId) -> Result<()> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock($1, hashtext($2))",
        USER_LOCK,
        user.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
