//! Days of the outbox and the inbox.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use sqlx::PgPool;
use todo_events::partitions::{self, Ensured, Retention};
use uuid::Uuid;

use crate::support::{Recorder, assert_exactly_once_in_order, commit, database, drain, history, new_event, relay};

fn day(ahead: i32) -> String {
    let today = TimeZone::UTC.to_datetime(Timestamp::now()).date();
    today.checked_add(ahead.days()).unwrap().strftime("%Y%m%d").to_string()
}

async fn rows(pool: &PgPool, table: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
        .fetch_one(pool)
        .await
        .unwrap()
}

/// A partition for a past day, as if `ensure` had been called then.
async fn past_partition(pool: &PgPool, table: &str, ago: i32) -> String {
    let name = format!("{table}_p{}", day(-ago));
    let bound = |ago: i32| {
        let start = TimeZone::UTC
            .to_datetime(Timestamp::now())
            .date()
            .checked_sub(ago.days())
            .unwrap();
        let start = TimeZone::UTC.to_timestamp(start.at(0, 0, 0, 0)).unwrap();
        match table {
            "outbox" => start.to_string(),
            _ => Uuid::from_u128(u128::try_from(start.as_millisecond()).unwrap() << 80).to_string(),
        }
    };
    let statement = format!(
        "CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('{}') TO ('{}')",
        bound(ago),
        bound(ago - 1)
    );
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(pool).await.unwrap();
    name
}

/// An event of so many days ago.
async fn past_event(pool: &PgPool, ago: i32) {
    sqlx::query(
        "INSERT INTO outbox (id, event_type, subject, user_id, version, actor, data, created_at)
         VALUES ($1, 'created', $1, 'ada', 1, 'ada', '{}', now() - make_interval(days => $2))",
    )
    .bind(Uuid::now_v7())
    .bind(ago)
    .execute(pool)
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_workers_may_make_the_same_days() {
    let db = database().await;
    let workers = (0..5).map(|_| {
        let pool = db.pool.clone();
        tokio::spawn(async move { partitions::ensure(&pool, 2).await.unwrap() })
    });
    let mut created = vec![];
    for worker in workers.collect::<Vec<_>>() {
        let Ensured { created: mine, skipped } = worker.await.unwrap();
        assert!(skipped.is_empty(), "{skipped:?}");
        created.extend(mine);
    }
    created.sort_unstable();
    let mut expected: Vec<_> = ["outbox", "inbox"]
        .iter()
        .flat_map(|table| (0..3).map(move |ahead| format!("{table}_p{}", day(ahead))))
        .collect();
    expected.sort_unstable();
    assert_eq!(created, expected);
}

#[tokio::test]
async fn events_of_today_go_to_its_partition_and_reach_consumers() {
    let db = database().await;
    partitions::ensure(&db.pool, 1).await.unwrap();
    let recorder = Recorder::new("recorder");
    let events = history(10, 2);
    commit(&db.pool, &events).await;
    assert_eq!(drain(&relay(&db.pool, &recorder)).await, 20);
    assert_exactly_once_in_order(&db.pool, "recorder", &events).await;
    for table in ["outbox", "inbox"] {
        assert_eq!(rows(&db.pool, &format!("{table}_default")).await, 0);
        assert_eq!(rows(&db.pool, &format!("{table}_p{}", day(0))).await, 20);
    }
}

#[tokio::test]
async fn a_day_that_began_in_the_default_partition_stays_there() {
    let db = database().await;
    commit(&db.pool, &history(1, 1)).await;
    let ensured = partitions::ensure(&db.pool, 1).await.unwrap();
    assert_eq!(ensured.skipped, [format!("outbox_p{}", day(0))]);
    assert_eq!(
        ensured.created,
        [
            format!("inbox_p{}", day(0)),
            format!("outbox_p{}", day(1)),
            format!("inbox_p{}", day(1))
        ]
    );
    // The user's next write is none the worse for it.
    commit(&db.pool, &[new_event(Uuid::now_v7(), 1)]).await;
    assert_eq!(rows(&db.pool, "outbox_default").await, 2);
}

#[tokio::test]
async fn a_table_in_use_is_left_for_the_next_call() {
    let db = database().await;
    let mut reader = db.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM outbox").execute(&mut *reader).await.unwrap();
    let busy = partitions::ensure(&db.pool, 0).await.unwrap();
    assert_eq!(busy.skipped, [format!("outbox_p{}", day(0))]);
    reader.rollback().await.unwrap();
    let free = partitions::ensure(&db.pool, 0).await.unwrap();
    assert_eq!(free.created, [format!("outbox_p{}", day(0))]);
}

#[tokio::test]
async fn only_what_is_old_and_published_is_dropped() {
    let db = database().await;
    let [old, edge] = [
        past_partition(&db.pool, "outbox", 15).await,
        past_partition(&db.pool, "outbox", 14).await,
    ];
    let [inbox_old, inbox_young] = [
        past_partition(&db.pool, "inbox", 31).await,
        past_partition(&db.pool, "inbox", 30).await,
    ];
    let recorder = Recorder::new("recorder");
    assert_eq!(drain(&relay(&db.pool, &recorder)).await, 0);
    past_event(&db.pool, 15).await;
    past_event(&db.pool, 14).await;
    // A day without a partition.
    past_event(&db.pool, 16).await;

    // Nothing is published yet. The inbox may forget the days before the oldest of these events.
    let report = partitions::drop_older(&db.pool, Retention::default()).await.unwrap();
    assert_eq!(
        (report.dropped, report.kept, report.swept),
        (vec![inbox_old.clone()], vec![old.clone()], 0)
    );

    assert_eq!(drain(&relay(&db.pool, &recorder)).await, 3);
    let report = partitions::drop_older(&db.pool, Retention::default()).await.unwrap();
    assert_eq!((report.dropped, report.kept, report.swept), (vec![old], vec![], 1));
    assert_eq!(rows(&db.pool, &edge).await, 1);
    assert_eq!(rows(&db.pool, &inbox_young).await, 0);
    let again = partitions::drop_older(&db.pool, Retention::default()).await.unwrap();
    assert_eq!(again, partitions::Dropped::default());
}

#[tokio::test]
async fn the_inbox_keeps_every_day_that_still_has_unpublished_events() {
    let db = database().await;
    let inbox = past_partition(&db.pool, "inbox", 40).await;
    assert_eq!(drain(&relay(&db.pool, &Recorder::new("recorder"))).await, 0);
    past_event(&db.pool, 41).await;
    let report = partitions::drop_older(&db.pool, Retention::default()).await.unwrap();
    assert!(report.dropped.is_empty());
    assert_eq!(rows(&db.pool, &inbox).await, 0);
}
