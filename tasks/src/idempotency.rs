//! `Idempotency-Key`: a repeated POST gets the first one's answer, and its effect happens once.
//!
//! The key's row is written in the effect's own transaction: there is either the effect with its answer, or
//! neither. A second request with the key waits for the first one's transaction, and then finds its answer.

use serde_json::Value;
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::error::{Error, Invalid, Result};
use crate::id::{TaskId, UserId};
use crate::task;

/// The namespace of [`Key::derived_id`] (RFC 9562, section 5.5).
const DERIVED_IDS: Uuid = Uuid::from_u128(0x019a_a5f1_5d0c_7c3e_9a44_6f0e_2b7d_c1a8);

/// How long an answer is kept, in hours.
pub const KEPT_HOURS: i32 = 48;

/// A key, and what tells whether a second request with it is the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    key: String,
    fingerprint: Vec<u8>,
}

impl Key {
    /// A key as the caller chose it (1 to 255 visible ASCII characters) for a request with this digest of method,
    /// path and body.
    pub fn parse(key: &str, fingerprint: impl Into<Vec<u8>>) -> Result<Self, Invalid> {
        if !(1..=255).contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Invalid::new(
                "Idempotency-Key",
                "must be 1 to 255 visible ASCII characters",
            ));
        }
        Ok(Self {
            key: key.to_owned(),
            fingerprint: fingerprint.into(),
        })
    }

    /// An id for what the request makes: the same for each try, so that an effect which cannot share a transaction
    /// with the key is not had twice.
    pub fn derived_id(&self) -> Uuid {
        let name = [self.key.as_bytes(), b"\n", &self.fingerprint].concat();
        Uuid::new_v5(&DERIVED_IDS, &name)
    }
}

/// An answer as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Headers of the answer, by name.
    pub headers: Value,
    /// The body, to the byte; empty for none.
    pub body: String,
}

/// How a request with a key begins.
#[derive(Debug)]
pub enum Begun {
    /// The first with its key: do the work in this transaction, then [`finish`].
    Fresh(Work),
    /// Done before: send this.
    Replay(StoredAnswer),
}

/// The transaction that the effect and its answer share.
#[derive(Debug)]
pub struct Work {
    /// For the effect.
    pub tx: Transaction<'static, Postgres>,
    user: UserId,
    key: Option<Key>,
}

/// Opens a transaction for a request. With `lock_task`, that task's lock is its first statement, as the outbox
/// demands of everything that changes a task. Without a key it is just a transaction.
pub async fn begin(pool: &PgPool, user: &UserId, key: Option<Key>, lock_task: Option<TaskId>) -> Result<Begun> {
    let mut tx = pool.begin().await?;
    if let Some(task) = lock_task {
        // A task that is gone may still have an answer kept under the key.
        match task::lock(&mut tx, user, task).await {
            Ok(()) | Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    if let Some(key) = &key {
        let inserted = sqlx::query!(
            r#"
            INSERT INTO idempotency_keys (user_id, key, fingerprint)
            VALUES ($1, $2, $3)
            ON CONFLICT DO NOTHING
            "#,
            user.as_str(),
            key.key,
            key.fingerprint,
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if inserted == 0 {
            return replay(&mut tx, user, key).await.map(Begun::Replay);
        }
    }
    Ok(Begun::Fresh(Work {
        tx,
        user: user.clone(),
        key,
    }))
}

async fn replay(tx: &mut Transaction<'static, Postgres>, user: &UserId, key: &Key) -> Result<StoredAnswer> {
    let row = sqlx::query!(
        r#"
        SELECT fingerprint, status AS "status!", headers AS "headers!", body AS "body!"
        FROM idempotency_keys
        WHERE user_id = $1
            AND key = $2
        "#,
        user.as_str(),
        key.key,
    )
    .fetch_one(&mut **tx)
    .await?;
    if row.fingerprint != key.fingerprint {
        return Err(Error::IdempotencyKeyReused);
    }
    let status = u16::try_from(row.status).unwrap_or(200);
    Ok(StoredAnswer {
        status,
        headers: row.headers,
        body: row.body,
    })
}

/// Keeps the answer under the key, if there is one, and commits the effect with it.
pub async fn finish(mut work: Work, answer: &StoredAnswer) -> Result<()> {
    if let Some(key) = &work.key {
        sqlx::query!(
            r#"
            UPDATE idempotency_keys
            SET status = $3,
                headers = $4,
                body = $5
            WHERE user_id = $1
                AND key = $2
            "#,
            work.user.as_str(),
            key.key,
            i16::try_from(answer.status).unwrap_or(200),
            answer.headers,
            answer.body,
        )
        .execute(&mut *work.tx)
        .await?;
    }
    work.tx.commit().await?;
    Ok(())
}

/// Forgets answers older than [`KEPT_HOURS`], at most `limit` of them, and says how many it forgot.
pub async fn forget_old(pool: &PgPool, limit: i64) -> Result<u64> {
    let forgotten = sqlx::query!(
        r#"
        DELETE FROM idempotency_keys
        WHERE (user_id, key) IN (
            SELECT user_id, key
            FROM idempotency_keys
            WHERE created_at < now() - make_interval(hours => $1)
            ORDER BY created_at
            LIMIT $2
            FOR UPDATE SKIP LOCKED
        )
        "#,
        KEPT_HOURS,
        limit,
    )
    .execute(pool)
    .await?
    .rows_affected();
    Ok(forgotten)
}
