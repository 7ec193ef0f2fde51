//! State stores: values under keys, written only if they are still what the writer has seen.
//!
//! Here are the trait, which a store outside of the platform can implement, and the database as one. What the values
//! mean is the business of whoever keeps them (`conversation`). Keys that hold a user's data begin with a kind and
//! the user, and are made by whoever keeps them from the user that asks: no key comes from outside.

use std::fmt;
use std::time::Duration;

use serde_json::Value;
use sqlx::PgPool;
use todo_events::BoxFuture;
use uuid::Uuid;

/// The version of a stored value, as its store names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(pub String);

/// A stored value and its version.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The value.
    pub value: Value,
    /// Its version.
    pub etag: Etag,
}

/// When a write is to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Whatever is there.
    Always,
    /// Only if nothing is there.
    Absent,
    /// Only if this version is there.
    Matches(Etag),
}

/// Why a store did nothing, or may not have.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It is away, or did not answer in time. A write may have had its effect.
    #[error("the state store is not available: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What is there is not what the condition says.
    #[error("the stored value is another one")]
    Mismatch,
    /// It will not do this now or later.
    #[error("the state store refused: {0}")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database, as a store, failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

/// A store of values under keys.
pub trait StateStore: fmt::Debug + Send + Sync {
    /// What is under a key.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StateError>>;

    /// Writes a value, to be kept for `ttl` (whole seconds), or for ever.
    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Value,
        condition: Condition,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), StateError>>;

    /// Deletes what is under a key: if it is this version, or whatever it is. That nothing is there is no error
    /// without a version.
    fn delete<'a>(&'a self, key: &'a str, etag: Option<&'a Etag>) -> BoxFuture<'a, Result<(), StateError>>;
}

/// The database as a store.
#[derive(Clone, Debug)]
pub struct DatabaseState {
    pool: PgPool,
}

impl DatabaseState {
    /// A store in this database.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The keys with this beginning that follow on `after`, in the order of their bytes, at most `limit`.
    pub async fn keys(&self, beginning: &str, after: &str, limit: i64) -> Result<Vec<String>, StateError> {
        let keys = sqlx::query_scalar!(
            r#"
            SELECT key
            FROM state
            WHERE key > GREATEST($1, $2) COLLATE "C"
                AND starts_with(key, $1)
                AND (expires_at IS NULL OR expires_at > now())
            ORDER BY key
            LIMIT $3
            "#,
            beginning,
            after,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(keys)
    }

    async fn write(&self, key: &str, value: Value, ttl: Option<Duration>) -> Result<(), StateError> {
        sqlx::query!(
            r#"
            INSERT INTO state (key, value, expires_at)
            VALUES ($1, $2, now() + make_interval(secs => $3))
            ON CONFLICT (key) DO UPDATE
            SET value = EXCLUDED.value,
                etag = EXCLUDED.etag,
                updated_at = EXCLUDED.updated_at,
                expires_at = EXCLUDED.expires_at
            "#,
            key,
            value,
            ttl.map(whole_seconds) as _,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn write_first(&self, key: &str, value: Value, ttl: Option<Duration>) -> Result<(), StateError> {
        let written = sqlx::query!(
            r#"
            INSERT INTO state (key, value, expires_at)
            VALUES ($1, $2, now() + make_interval(secs => $3))
            ON CONFLICT (key) DO UPDATE
            SET value = EXCLUDED.value,
                etag = EXCLUDED.etag,
                updated_at = EXCLUDED.updated_at,
                expires_at = EXCLUDED.expires_at
            WHERE state.expires_at <= now()
            "#,
            key,
            value,
            ttl.map(whole_seconds) as _,
        )
        .execute(&self.pool)
        .await?;
        at_least_one(written.rows_affected())
    }

    async fn write_over(&self, key: &str, value: Value, seen: &Etag, ttl: Option<Duration>) -> Result<(), StateError> {
        let written = sqlx::query!(
            r#"
            UPDATE state
            SET value = $2,
                etag = gen_random_uuid(),
                updated_at = now(),
                expires_at = now() + make_interval(secs => $4)
            WHERE key = $1
                AND etag = $3
                AND (expires_at IS NULL OR expires_at > now())
            "#,
            key,
            value,
            parse(seen)?,
            ttl.map(whole_seconds) as _,
        )
        .execute(&self.pool)
        .await?;
        at_least_one(written.rows_affected())
    }
}

impl StateStore for DatabaseState {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StateError>> {
        Box::pin(async move {
            let row = sqlx::query!(
                r#"
                SELECT value, etag
                FROM state
                WHERE key = $1
                    AND (expires_at IS NULL OR expires_at > now())
                "#,
                key,
            )
            .fetch_optional(&self.pool)
            .await?;
            Ok(row.map(|row| Stored {
                value: row.value,
                etag: Etag(row.etag.to_string()),
            }))
        })
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Value,
        condition: Condition,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), StateError>> {
        Box::pin(async move {
            match condition {
                Condition::Always => self.write(key, value, ttl).await,
                Condition::Absent => self.write_first(key, value, ttl).await,
                Condition::Matches(seen) => self.write_over(key, value, &seen, ttl).await,
            }
        })
    }

    fn delete<'a>(&'a self, key: &'a str, etag: Option<&'a Etag>) -> BoxFuture<'a, Result<(), StateError>> {
        Box::pin(async move {
            let deleted = sqlx::query!(
                r#"
                DELETE FROM state
                WHERE key = $1
                    AND ($2::uuid IS NULL OR (etag = $2 AND (expires_at IS NULL OR expires_at > now())))
                "#,
                key,
                etag.map(parse).transpose()?,
            )
            .execute(&self.pool)
            .await?;
            match etag {
                Some(_) => at_least_one(deleted.rows_affected()),
                None => Ok(()),
            }
        })
    }
}

/// Removes what has expired, at most `limit` values, and says how many.
pub async fn forget_expired(pool: &PgPool, limit: i64) -> Result<u64, StateError> {
    let forgotten = sqlx::query!(
        r#"
        DELETE FROM state
        WHERE key IN (
            SELECT key
            FROM state
            WHERE expires_at <= now()
            ORDER BY expires_at
            LIMIT $1
            FOR UPDATE SKIP LOCKED
        )
        "#,
        limit,
    )
    .execute(pool)
    .await?;
    Ok(forgotten.rows_affected())
}

/// A version that this store never gave is not the current one.
fn parse(etag: &Etag) -> Result<Uuid, StateError> {
    etag.0.parse().map_err(|_| StateError::Mismatch)
}

fn at_least_one(rows: u64) -> Result<(), StateError> {
    if rows > 0 { Ok(()) } else { Err(StateError::Mismatch) }
}

/// Rounded up, as other stores do: zero would be gone before it is there.
#[allow(
    clippy::cast_precision_loss,
    reason = "a time that does not fit a float's 52 bits is 142 million years"
)]
fn whole_seconds(ttl: Duration) -> f64 {
    (ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(1) as f64
}
