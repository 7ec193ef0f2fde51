//! How far the consumers of a broker are behind what was published to it.
//!
//! A broker tells how many messages a group of readers has not confirmed, and that says nothing of a reader that
//! confirms what nobody applied, nor, in one number, of a single partition that stands still. So this looks at the
//! effect: the oldest published event that a consumer has neither applied nor among its dead letters, and for how
//! long. Consumers in this process need none of it: there the relay's own place is the consumer's.
//!
//! What it costs: one look at the last [`WINDOW`] published events for each consumer, each an index probe. The event
//! that was found is remembered, and as long as it is not settled nothing else is looked at: what stands still is seen
//! to stand still for as long as it does, however much is published behind it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::consumer::Consumer;
use crate::{Error, EventType};

/// How many of the events that were published last are looked at.
const WINDOW: i64 = 2_000;

/// How often to look.
const EVERY: Duration = Duration::from_secs(15);

/// Measures consumers behind a broker.
pub struct LagMeter {
    pool: PgPool,
    cursor: &'static str,
    watched: Vec<Watched>,
}

struct Watched {
    consumer: Arc<dyn Consumer>,
    /// The names of the event types that it subscribes to.
    types: Vec<&'static str>,
    /// The event that it was found to be behind with, and when that was written.
    behind: Option<(Uuid, Timestamp)>,
}

impl LagMeter {
    /// Measures these consumers against what the relay with this cursor has published.
    pub fn new(pool: PgPool, cursor: &'static str, consumers: Vec<Arc<dyn Consumer>>) -> Self {
        let watched = consumers
            .into_iter()
            .map(|consumer| Watched {
                types: types_of(consumer.as_ref()),
                consumer,
                behind: None,
            })
            .collect();
        Self { pool, cursor, watched }
    }

    /// Measures until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut due = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = due.tick() => {}
            }
            if let Err(error) = self.measure().await {
                tracing::debug!(%error, "the consumers' lag was not measured");
            }
        }
    }

    /// Measures once, into `todo_consumer_lag_seconds`.
    pub async fn measure(&mut self) -> Result<(), Error> {
        for watched in &mut self.watched {
            let name = watched.consumer.name();
            let still_behind = match watched.behind {
                Some((event, _)) => is_unsettled(&self.pool, name, event).await?,
                None => false,
            };
            if !still_behind {
                watched.behind = oldest_unsettled(&self.pool, self.cursor, name, &watched.types).await?;
            }
            let lag = watched.behind.map_or(0.0, |(_, written)| {
                Timestamp::now().duration_since(written).as_secs_f64().max(0.0)
            });
            metrics::gauge!("todo_consumer_lag_seconds", "consumer" => name).set(lag);
        }
        Ok(())
    }
}

fn types_of(consumer: &dyn Consumer) -> Vec<&'static str> {
    let subscribed = |event_type: &EventType| {
        let topics = event_type.topics();
        topics.iter().any(|topic| consumer.topics().contains(topic))
    };
    EventType::ALL
        .into_iter()
        .filter(subscribed)
        .map(EventType::as_str)
        .collect()
}

/// The counts are for the planner: an `EXISTS` might become a join that reads all of the inbox.
async fn oldest_unsettled(
    pool: &PgPool,
    cursor: &str,
    consumer: &str,
    types: &[&str],
) -> Result<Option<(Uuid, Timestamp)>, Error> {
    let row = sqlx::query!(
        r#"SELECT published.id AS "id!", published.created_at AS "created_at!"
           FROM relay_cursor
           CROSS JOIN LATERAL (
               SELECT outbox.id, outbox.event_type, outbox.created_at
               FROM outbox
               WHERE (outbox.xid, outbox.seq) <= (relay_cursor.xid, relay_cursor.seq)
               ORDER BY outbox.xid DESC, outbox.seq DESC
               LIMIT $4
           ) AS published
           WHERE relay_cursor.name = $1
             AND published.event_type = ANY($3)
             AND (SELECT count(*) FROM inbox WHERE consumer = $2 AND event_id = published.id) = 0
             AND (SELECT count(*) FROM dead_letters WHERE consumer = $2 AND event_id = published.id) = 0
           ORDER BY published.created_at
           LIMIT 1"#,
        cursor,
        consumer,
        types as _,
        WINDOW,
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| (row.id, row.created_at.to_jiff())))
}

async fn is_unsettled(pool: &PgPool, consumer: &str, event: Uuid) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (SELECT FROM inbox WHERE consumer = $1 AND event_id = $2)
              AND NOT EXISTS (SELECT FROM dead_letters WHERE consumer = $1 AND event_id = $2) AS "unsettled!""#,
        consumer,
        event,
    )
    .fetch_one(pool)
    .await?)
}
