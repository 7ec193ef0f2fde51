//! A dump that was loaded into a cluster whose transaction ids are lower.

use sqlx::PgPool;
use todo_events::NewEvent;
use todo_events::outbox;

use crate::support::{Recorder, assert_exactly_once_in_order, commit, database, drain, history, recorded, relay};

/// Far beyond what a test's cluster has given out.
const ELSEWHERE: i64 = 4_000_000_000_000;

/// Makes all that was written so far look as another cluster wrote it, the cursor included.
async fn carry_over(pool: &PgPool) {
    for table in ["outbox", "relay_cursor"] {
        let statement = format!(
            "UPDATE {table} SET xid = (xid::text::bigint + {ELSEWHERE})::text::xid8 WHERE xid::text::bigint BETWEEN 3 AND {ELSEWHERE}"
        );
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(pool).await.unwrap();
    }
}

fn ids(events: &[NewEvent]) -> Vec<uuid::Uuid> {
    events.iter().map(|event| event.id).collect()
}

#[tokio::test]
async fn a_restored_outbox_goes_on_where_it_was() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let events = history(10, 5);
    // Published, not published, written here before and after the rebase.
    let [published, unpublished, before, after] = [&events[..20], &events[20..30], &events[30..40], &events[40..]];
    commit(&db.pool, &published[..10]).await;
    commit(&db.pool, &published[10..]).await;
    drain(&relay(&db.pool, &recorder)).await;
    for event in unpublished {
        commit(&db.pool, std::slice::from_ref(event)).await;
    }
    carry_over(&db.pool).await;
    commit(&db.pool, before).await;

    let moved = outbox::rebase_after_restore(&db.pool).await.unwrap();
    assert_eq!(moved, 30);
    commit(&db.pool, after).await;
    assert_eq!(
        drain(&relay(&db.pool, &recorder)).await,
        30,
        "what was published is not published again"
    );
    let order: Vec<_> = recorded(&db.pool, "recorder")
        .await
        .into_iter()
        .map(|(id, ..)| id)
        .collect();
    assert_eq!(order, ids(&events));
}

#[tokio::test]
async fn a_restore_of_a_restore_works_too() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let events = history(4, 6);
    let mut left = events.chunks(4);
    for _ in 0..3 {
        commit(&db.pool, left.next().unwrap()).await;
        drain(&relay(&db.pool, &recorder)).await;
        commit(&db.pool, left.next().unwrap()).await;
        carry_over(&db.pool).await;
        assert!(outbox::rebase_after_restore(&db.pool).await.unwrap() > 0);
    }
    drain(&relay(&db.pool, &recorder)).await;
    assert_exactly_once_in_order(&db.pool, "recorder", &events).await;
}

#[tokio::test]
async fn a_cursor_from_elsewhere_over_an_empty_outbox_blocks_nothing() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    commit(&db.pool, &history(1, 1)).await;
    drain(&relay(&db.pool, &recorder)).await;
    carry_over(&db.pool).await;
    sqlx::query("DELETE FROM outbox").execute(&db.pool).await.unwrap();
    outbox::rebase_after_restore(&db.pool).await.unwrap();
    commit(&db.pool, &history(1, 2)).await;
    assert_eq!(drain(&relay(&db.pool, &recorder)).await, 2);
}

#[tokio::test]
async fn at_home_nothing_is_rewritten() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    commit(&db.pool, &history(3, 1)).await;
    drain(&relay(&db.pool, &recorder)).await;
    commit(&db.pool, &history(3, 1)).await;
    let mut running = db.pool.begin().await.unwrap();
    outbox::append(&mut running, &history(1, 1)).await.unwrap();
    assert_eq!(outbox::rebase_after_restore(&db.pool).await.unwrap(), 0);
    running.commit().await.unwrap();
    assert_eq!(drain(&relay(&db.pool, &recorder)).await, 4);
}

#[tokio::test]
async fn every_consumer_goes_on_where_it_was() {
    let db = database().await;
    let (quick, slow) = (Recorder::new("quick"), Recorder::new("slow"));
    let events = history(5, 4);
    commit(&db.pool, &events[..5]).await;
    drain(&relay(&db.pool, &slow)).await;
    commit(&db.pool, &events[5..15]).await;
    drain(&relay(&db.pool, &quick)).await;
    carry_over(&db.pool).await;
    outbox::rebase_after_restore(&db.pool).await.unwrap();
    commit(&db.pool, &events[15..]).await;
    assert_eq!(drain(&relay(&db.pool, &quick)).await, 5);
    assert_eq!(drain(&relay(&db.pool, &slow)).await, 15);
    for consumer in ["quick", "slow"] {
        assert_exactly_once_in_order(&db.pool, consumer, &events).await;
    }
}
