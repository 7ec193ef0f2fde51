//! Days of the outbox and the inbox: made ahead of time, and dropped whole when they are old.
//!
//! Any number of processes may call these at once, at any time: an advisory lock makes one after the
//! other, and whoever comes second finds the work done. Nothing here makes users wait for long: a lock
//! that is not had within two seconds is left for the next call.
//!
//! Rows of a day that has no partition lie in the DEFAULT partition. Such a day gets no partition any
//! more, since PostgreSQL would have to move the rows; they are swept one by one when they are old.
//!
//! A cursor that stands still keeps every event beyond it, for ever. That of a consumer that was given up for
//! good should be removed ([`crate::cursors::remove`]); the log names the one that holds a partition.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Transaction};
use uuid::Uuid;

use crate::Error;
use crate::outbox::{self, Position};

/// How many days to keep, counted from the end of a day (UTC).
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Days of published events. A rebuild can go back so far.
    pub outbox_days: u16,
    /// Days of applied events' ids. More than any event can come late.
    pub inbox_days: u16,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            outbox_days: 14,
            inbox_days: 30,
        }
    }
}

/// What [`ensure`] did: names of partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ensured {
    /// Made now.
    pub created: Vec<String>,
    /// Not there and not made: rows of that day lie in the DEFAULT partition, or the table was busy.
    pub skipped: Vec<String>,
}

/// What [`drop_older`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Partitions that are gone.
    pub dropped: Vec<String>,
    /// Partitions that are old but stay: not all is published, or the table was busy.
    pub kept: Vec<String>,
    /// Rows deleted from the DEFAULT partitions.
    pub swept: u64,
}

/// Makes the partitions of today and of the next `days_ahead` days.
pub async fn ensure(pool: &PgPool, days_ahead: u16) -> Result<Ensured, Error> {
    let today = today(pool).await?;
    let mut ensured = Ensured::default();
    for ahead in 0..=days_ahead {
        let day = today.saturating_add(i64::from(ahead).days());
        for table in [Table::Outbox, Table::Inbox] {
            let name = table.partition(day);
            match create(pool, table, day).await {
                Ok(true) => ensured.created.push(name),
                Ok(false) => {}
                Err(error) if is_occupied(&error) => {
                    tracing::warn!(partition = name, %error, "partition not made, the default one serves");
                    ensured.skipped.push(name);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(ensured)
}

/// Drops partitions whose last instant is older than the retention and that nobody needs: a day of the
/// outbox goes when every cursor has passed all of it, a day of the inbox when no cursor has still to pass
/// an event of that day.
pub async fn drop_older(pool: &PgPool, retention: Retention) -> Result<Dropped, Error> {
    let today = today(pool).await?;
    let outbox_from = today.saturating_sub(i64::from(retention.outbox_days).days());
    let last = outbox::last_cursor(&mut *pool.acquire().await?).await?;
    let unpublished = match last {
        Some((name, _)) => outbox::oldest_beyond(pool, &name).await?.map_or(today, utc_day),
        None => today,
    };
    let inbox_from = today
        .saturating_sub(i64::from(retention.inbox_days).days())
        .min(unpublished);

    let mut report = Dropped::default();
    for (table, from) in [(Table::Outbox, outbox_from), (Table::Inbox, inbox_from)] {
        for (day, name) in partitions(pool, table).await? {
            if day >= from {
                continue;
            }
            match drop_partition(pool, table, day).await {
                Ok(true) => report.dropped.push(name),
                Ok(false) => report.kept.push(name),
                Err(error) if is_occupied(&error) => report.kept.push(name),
                Err(error) => return Err(error.into()),
            }
        }
        match sweep(pool, table, from).await {
            Ok(rows) => report.swept += rows,
            Err(error) if is_occupied(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(report)
}

#[derive(Debug, Clone, Copy)]
enum Table {
    Outbox,
    Inbox,
}

impl Table {
    const fn name(self) -> &'static str {
        match self {
            Self::Outbox => "outbox",
            Self::Inbox => "inbox",
        }
    }

    fn partition(self, day: Date) -> String {
        format!("{}_p{}", self.name(), day.strftime("%Y%m%d"))
    }

    /// The first value of a day's range, as SQL text.
    fn bound(self, day: Date) -> String {
        match self {
            Self::Outbox => format!("{day} 00:00:00+00"),
            Self::Inbox => first_id(day).to_string(),
        }
    }
}

/// The least UUIDv7 of a day: its first 48 bits are milliseconds since 1970 (RFC 9562, 5.7).
fn first_id(day: Date) -> Uuid {
    let milliseconds = u128::try_from(start(day).as_millisecond()).unwrap_or_default();
    Uuid::from_u128(milliseconds << 80)
}

fn start(day: Date) -> Timestamp {
    TimeZone::UTC
        .to_timestamp(day.at(0, 0, 0, 0))
        .expect("a day of this era is in the range of timestamps")
}

fn utc_day(timestamp: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(timestamp).date()
}

/// Today by the database's clock, which also writes `created_at`.
async fn today(pool: &PgPool) -> Result<Date, sqlx::Error> {
    let now = sqlx::query_scalar!(r#"SELECT now() AS "now!""#).fetch_one(pool).await?;
    Ok(utc_day(now.to_jiff()))
}

/// A transaction that holds the maintenance lock and does not wait long for any other.
async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    /// "todo" in ASCII, and 1.
    const MAINTENANCE_LOCK: i64 = 0x746f_646f_0000_0001;
    let mut transaction = pool.begin().await?;
    sqlx::query("SET LOCAL lock_timeout = '2s'")
        .execute(&mut *transaction)
        .await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(MAINTENANCE_LOCK)
        .execute(&mut *transaction)
        .await?;
    Ok(transaction)
}

/// Whether somebody holds a lock that we want (55P03, or a deadlock that we lost, 40P01), or the DEFAULT
/// partition holds rows of the day (23514).
fn is_occupied(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("55P03" | "40P01" | "23514"))
}

async fn exists(connection: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT to_regclass($1) IS NOT NULL AS "exists!""#, name)
        .fetch_one(connection)
        .await
}

/// Makes one partition, unless it is there. Made apart and then attached, because that does not lock out
/// those who write to the table meanwhile, as CREATE TABLE … PARTITION OF would.
async fn create(pool: &PgPool, table: Table, day: Date) -> Result<bool, sqlx::Error> {
    let name = table.partition(day);
    let mut transaction = begin(pool).await?;
    if exists(&mut transaction, &name).await? {
        return Ok(false);
    }
    let parent = table.name();
    let statements = [
        format!("CREATE TABLE {name} (LIKE {parent} INCLUDING ALL)"),
        format!(
            "ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ('{}') TO ('{}')",
            table.bound(day),
            table.bound(day.saturating_add(1.day())),
        ),
    ];
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(true)
}

/// The dated partitions of a table, the oldest first.
async fn partitions(pool: &PgPool, table: Table) -> Result<Vec<(Date, String)>, sqlx::Error> {
    let names = sqlx::query_scalar!(
        r#"SELECT relname::text AS "name!"
           FROM pg_inherits
           JOIN pg_class ON pg_class.oid = inhrelid
           WHERE inhparent = to_regclass($1)
           ORDER BY relname"#,
        table.name(),
    )
    .fetch_all(pool)
    .await?;
    Ok(names
        .into_iter()
        .filter_map(|name| {
            let day = name.strip_prefix(table.name())?.strip_prefix("_p")?;
            Some((Date::strptime("%Y%m%d", day).ok()?, name))
        })
        .collect())
}

/// Drops one partition, unless a relay still has to read from it.
async fn drop_partition(pool: &PgPool, table: Table, day: Date) -> Result<bool, sqlx::Error> {
    let name = table.partition(day);
    let mut transaction = begin(pool).await?;
    if !exists(&mut transaction, &name).await? {
        return Ok(true);
    }
    if matches!(table, Table::Outbox) {
        // With the table's lock nobody can still be writing to this day when we look.
        sqlx::query("LOCK TABLE ONLY outbox IN ACCESS EXCLUSIVE MODE")
            .execute(&mut *transaction)
            .await?;
        let (cursor, position) = last_cursor(&mut transaction).await?;
        if has_unpublished(&mut transaction, &name, position).await? {
            tracing::warn!(
                partition = name,
                cursor,
                "old partition kept, a relay has not passed all of it"
            );
            return Ok(false);
        }
        retain_from(&mut transaction, start(day.saturating_add(1.day()))).await?;
    }
    sqlx::query(AssertSqlSafe(format!("DROP TABLE {name}")))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(true)
}

/// The cursor that is farthest behind. While there is none, nobody has read anything.
async fn last_cursor(connection: &mut PgConnection) -> Result<(String, Position), sqlx::Error> {
    Ok(outbox::last_cursor(connection)
        .await?
        .unwrap_or_else(|| ("none".to_owned(), Position::START)))
}

async fn has_unpublished(connection: &mut PgConnection, name: &str, cursor: Position) -> Result<bool, sqlx::Error> {
    let statement =
        format!("SELECT EXISTS (SELECT FROM {name} WHERE (xid, seq) > ($1::bigint::text::xid8, $2::bigint))");
    sqlx::query_scalar(AssertSqlSafe(statement))
        .bind(cursor.xid)
        .bind(cursor.seq)
        .fetch_one(connection)
        .await
}

async fn retain_from(connection: &mut PgConnection, instant: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE outbox_retained
         SET retained_from = GREATEST(retained_from, $1)",
        jiff_sqlx::Timestamp::from(instant),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes from the DEFAULT partition what would have been dropped with its day.
async fn sweep(pool: &PgPool, table: Table, before: Date) -> Result<u64, sqlx::Error> {
    let mut transaction = begin(pool).await?;
    let swept = match table {
        Table::Outbox => {
            let (_, cursor) = last_cursor(&mut transaction).await?;
            let swept = sqlx::query!(
                "DELETE FROM outbox_default
                 WHERE created_at < $1
                   AND (xid, seq) <= ($2::bigint::text::xid8, $3::bigint)",
                jiff_sqlx::Timestamp::from(start(before)),
                cursor.xid,
                cursor.seq,
            )
            .execute(&mut *transaction)
            .await?
            .rows_affected();
            if swept > 0 {
                retain_from(&mut transaction, start(before)).await?;
            }
            swept
        }
        Table::Inbox => sqlx::query!("DELETE FROM inbox_default WHERE event_id < $1", first_id(before))
            .execute(&mut *transaction)
            .await?
            .rows_affected(),
    };
    transaction.commit().await?;
    Ok(swept)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;
    use uuid::Timestamp as UuidTimestamp;

    use super::*;

    proptest! {
        #[test]
        fn an_id_lies_in_the_range_of_the_day_it_was_made(milliseconds in 0_u64..4_102_444_800_000) {
            let seconds = milliseconds / 1000;
            let nanoseconds = u32::try_from(milliseconds % 1000).unwrap() * 1_000_000;
            let id = Uuid::new_v7(UuidTimestamp::from_unix(uuid::NoContext, seconds, nanoseconds));
            let day = utc_day(Timestamp::from_millisecond(i64::try_from(milliseconds).unwrap()).unwrap());
            prop_assert!(first_id(day) <= id);
            prop_assert!(id < first_id(day.saturating_add(1.day())));
        }
    }
}
