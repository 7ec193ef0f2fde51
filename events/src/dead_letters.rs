//! Events that a consumer could not apply, and those of the same task that wait behind one.
//!
//! While a task has dead letters for a consumer, its later events join the queue instead of being
//! handled, so that the order per task holds also when somebody replays them. Rows are locked so that
//! the two never miss each other: a delivery holds the rows that it parks behind, a replay holds the row
//! that it takes away.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sqlx::{Acquire, PgConnection, PgPool};
use uuid::Uuid;

use crate::consumer::{Consumer, HandleError};
use crate::host;
use crate::{CloudEvent, Error, Event};

/// The most that is kept of an error's text, in characters.
const ERROR_LENGTH: usize = 2000;

/// An event that was not applied.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeadLetter {
    /// The consumer that could not apply it.
    pub consumer: String,
    /// The event.
    pub event_id: Uuid,
    /// The task.
    pub subject: Uuid,
    /// The task's version after the change.
    pub version: i64,
    /// Its place in the queue; pages go by it.
    pub arrival: i64,
    /// The whole event, as a [`CloudEvent`] in JSON.
    pub event: Value,
    /// Why it failed last, or that it waits.
    pub error: String,
    /// How often it was tried.
    pub attempts: i32,
    /// The failed event of the same task that it waits for; `None` when it failed itself.
    pub parked_behind: Option<Uuid>,
    /// When it came here.
    pub first_failed_at: Timestamp,
    /// When it was tried last.
    pub last_failed_at: Timestamp,
}

/// Which dead letters. The default is all of them.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// Those of this consumer.
    pub consumer: Option<String>,
    /// Those of this task.
    pub subject: Option<Uuid>,
    /// This event.
    pub event_id: Option<Uuid>,
}

/// A page of a list in the order of arrival.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// The last `arrival` of the page before; 0 for the first page.
    pub after: i64,
    /// The most rows to return.
    pub limit: i64,
}

/// What a replay did, in events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Applied and no longer dead letters.
    pub applied: u64,
    /// Tried and failed again.
    pub failed: u64,
}

/// Dead letters in the order in which they came.
pub async fn list(pool: &PgPool, selector: &Selector, page: Page) -> Result<Vec<DeadLetter>, Error> {
    let letters = sqlx::query_as!(
        DeadLetter,
        "SELECT consumer, event_id, subject, version, arrival, event, error, attempts, parked_behind,
                first_failed_at, last_failed_at
         FROM dead_letters
         WHERE ($1::text IS NULL OR consumer = $1)
           AND ($2::uuid IS NULL OR subject = $2)
           AND ($3::uuid IS NULL OR event_id = $3)
           AND arrival > $4
         ORDER BY arrival
         LIMIT $5",
        selector.consumer.as_deref(),
        selector.subject,
        selector.event_id,
        page.after,
        page.limit,
    )
    .fetch_all(pool)
    .await?;
    Ok(letters)
}

/// How many there are, for all consumers.
pub async fn count(pool: &PgPool) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM dead_letters"#)
        .fetch_one(pool)
        .await?)
}

/// Tries dead letters again, task by task, each task from its first one on, until one fails or none is
/// left. An event cannot jump the queue: selecting one that is parked replays its task from the front.
///
/// Stops at a transient failure with [`Error::Interrupted`]; what was applied stays so.
pub async fn replay(pool: &PgPool, consumers: &[Arc<dyn Consumer>], selector: &Selector) -> Result<Replayed, Error> {
    let queues = sqlx::query!(
        "SELECT consumer, subject
         FROM dead_letters
         WHERE ($1::text IS NULL OR consumer = $1)
           AND ($2::uuid IS NULL OR subject = $2)
           AND ($3::uuid IS NULL OR event_id = $3)
         GROUP BY consumer, subject
         ORDER BY min(arrival)",
        selector.consumer.as_deref(),
        selector.subject,
        selector.event_id,
    )
    .fetch_all(pool)
    .await?;
    let queues = queues
        .into_iter()
        .map(|queue| {
            let consumer = consumers.iter().find(|consumer| consumer.name() == queue.consumer);
            consumer
                .map(|consumer| (consumer, queue.subject))
                .ok_or(Error::UnknownConsumer(queue.consumer))
        })
        .collect::<Result<Vec<_>, _>>()?;

    let mut replayed = Replayed::default();
    for (consumer, subject) in queues {
        loop {
            match replay_first(pool, consumer.as_ref(), subject).await? {
                First::Applied => replayed.applied += 1,
                First::Failed => {
                    replayed.failed += 1;
                    break;
                }
                First::None => break,
            }
        }
    }
    Ok(replayed)
}

enum First {
    Applied,
    Failed,
    None,
}

/// One transaction for the first dead letter of a task: apply and delete it, or record why it failed.
async fn replay_first(pool: &PgPool, consumer: &dyn Consumer, subject: Uuid) -> Result<First, Error> {
    let mut transaction = pool.begin().await?;
    host::lock_shared(&mut transaction, consumer).await?;
    let first = sqlx::query!(
        "SELECT event_id, arrival, event
         FROM dead_letters
         WHERE consumer = $1
           AND subject = $2
         ORDER BY arrival
         LIMIT 1
         FOR UPDATE",
        consumer.name(),
        subject,
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(first) = first else {
        return Ok(First::None);
    };
    let cloud: CloudEvent = serde_json::from_value(first.event).map_err(|error| Error::Malformed(error.to_string()))?;
    let event = Event::try_from(cloud)?;

    let mut savepoint = transaction.begin().await?;
    let new = host::record(&mut savepoint, consumer, std::slice::from_ref(&event)).await?;
    let handled = if new.is_empty() {
        Ok(())
    } else {
        host::handle(&mut savepoint, consumer, std::slice::from_ref(&event)).await
    };
    match handled {
        Ok(()) => {
            savepoint.commit().await?;
            sqlx::query!(
                "DELETE FROM dead_letters
                 WHERE consumer = $1
                   AND event_id = $2",
                consumer.name(),
                event.id,
            )
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(First::Applied)
        }
        Err(HandleError::Transient(error)) => Err(Error::Interrupted(error.to_string())),
        Err(error) => {
            savepoint.rollback().await?;
            // One that was parked has now failed itself, and the others wait for it.
            sqlx::query!(
                "UPDATE dead_letters
                 SET attempts = attempts + CASE WHEN event_id = $3 THEN 1 ELSE 0 END,
                     error = CASE WHEN event_id = $3 THEN $4 ELSE error END,
                     last_failed_at = CASE WHEN event_id = $3 THEN clock_timestamp() ELSE last_failed_at END,
                     parked_behind = CASE WHEN event_id = $3 THEN NULL ELSE $3 END
                 WHERE consumer = $1
                   AND subject = $2",
                consumer.name(),
                subject,
                event.id,
                bounded(&error.to_string()),
            )
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(First::Failed)
        }
    }
}

/// The tasks of these events that have dead letters, each with the first of them. Holds all of them, so
/// that no replay takes the last one away before this transaction has parked something behind it.
pub(crate) async fn blocking(
    connection: &mut PgConnection,
    consumer: &str,
    events: &[Event],
) -> Result<HashMap<Uuid, Uuid>, sqlx::Error> {
    let subjects: Vec<Uuid> = events.iter().map(|event| event.subject).collect();
    let letters = sqlx::query!(
        "SELECT subject, event_id
         FROM dead_letters
         WHERE consumer = $1
           AND subject = ANY($2)
         ORDER BY arrival DESC
         FOR SHARE",
        consumer,
        &subjects,
    )
    .fetch_all(connection)
    .await?;
    // The first of each task comes last, and stays.
    Ok(letters
        .into_iter()
        .map(|letter| (letter.subject, letter.event_id))
        .collect())
}

/// Puts events of tasks that have dead letters into the queue, each behind its task's first.
pub(crate) async fn park(
    connection: &mut PgConnection,
    consumer: &str,
    events: &[&Event],
    behind: &HashMap<Uuid, Uuid>,
) -> Result<(), sqlx::Error> {
    for event in events {
        // A dead letter that is delivered once more is already in its place.
        sqlx::query!(
            "INSERT INTO dead_letters
                 (consumer, event_id, subject, version, event, event_time, error, attempts, parked_behind)
             VALUES ($1, $2, $3, $4, $5, $6, 'waits for an earlier event of the same task', 0, $7)
             ON CONFLICT DO NOTHING",
            consumer,
            event.id,
            event.subject,
            event.version,
            sqlx::types::Json(CloudEvent::from(*event)) as _,
            jiff_sqlx::Timestamp::from(event.time),
            behind.get(&event.subject),
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Makes an event that failed a dead letter.
pub(crate) async fn bury(
    connection: &mut PgConnection,
    consumer: &str,
    event: &Event,
    error: &str,
    attempts: u32,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO dead_letters (consumer, event_id, subject, version, event, event_time, error, attempts)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (consumer, event_id) DO UPDATE
         SET error = excluded.error,
             attempts = dead_letters.attempts + excluded.attempts,
             last_failed_at = excluded.last_failed_at",
        consumer,
        event.id,
        event.subject,
        event.version,
        sqlx::types::Json(CloudEvent::from(event)) as _,
        jiff_sqlx::Timestamp::from(event.time),
        bounded(error),
        i32::try_from(attempts).unwrap_or(i32::MAX),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// An error's text as PostgreSQL can keep it: bounded, and without the NUL that no `text` may hold.
fn bounded(error: &str) -> String {
    error
        .chars()
        .filter(|&character| character != '\0')
        .take(ERROR_LENGTH)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_error_fits_its_column() {
        assert_eq!(bounded(&"é\0".repeat(10_000)), "é".repeat(ERROR_LENGTH));
        assert_eq!(bounded("short"), "short");
    }
}
