//! Many reminders at once: each goes out once, and a backlog does not become a storm.

use std::time::Duration;

use sqlx::PgPool;
use todo_tasks::notification::{self, Kind, Notification};
use todo_tasks::reminder;
use todo_tasks::task::TaskInput;
use todo_tasks::{Caller, DueInput};
use todo_test_db::TestDb;

use crate::fixture::{Outcome, ada, at_once, before, caller, create, due_local, number};

/// So many reminders, which came due `age` seconds ago.
async fn came_due(pool: &PgPool, caller: &Caller, count: usize, age: i32) -> Outcome {
    let due: DueInput = due_local("2101-01-01T00:00:00", "UTC");
    let offsets: Vec<String> = (1..=20).map(|minutes| format!("{minutes}m")).collect();
    for first in (0..count).step_by(20) {
        let input = TaskInput {
            due: Some(due.clone()),
            reminders: offsets[..(count - first).min(20)]
                .iter()
                .map(|span| before(span))
                .collect(),
            ..TaskInput::titled("backlog")
        };
        create(pool, caller, input).await?;
    }
    sqlx::query(
        "UPDATE reminders
        SET fire_at = now() - make_interval(secs => $2)
        WHERE user_id = $1
            AND sent_at IS NULL",
    )
    .bind(caller.user.as_str())
    .bind(f64::from(age))
    .execute(pool)
    .await?;
    Ok(())
}

async fn feed(pool: &PgPool, caller: &Caller) -> anyhow::Result<Vec<Notification>> {
    Ok(
        notification::list(&mut *pool.acquire().await?, &caller.user, false, None, 1000)
            .await?
            .items,
    )
}

/// Of a feed: what is told one by one, and the counts of the digests.
fn told(feed: &[Notification]) -> (i32, Vec<i32>) {
    let of_kind = |kind| feed.iter().filter(move |item| item.kind == kind);
    (
        of_kind(Kind::Reminder).map(|item| item.reminder_count).sum(),
        of_kind(Kind::Digest).map(|item| item.reminder_count).collect(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn four_senders_send_each_of_five_thousand_reminders_once() -> Outcome {
    const COUNT: usize = 5_000;
    let db = TestDb::new().await;
    for user in ["ada", "bob"] {
        came_due(&db.pool, &caller(user), COUNT / 2, 5).await?;
    }
    let pool = db.another_pool(4).await;
    let senders = (0..4).map(|_| {
        let pool = pool.clone();
        async move {
            let mut total = 0;
            loop {
                // Some of them are late by the time that their turn comes.
                let on_time = commit!(pool, |tx| reminder::send_on_time(&mut tx, 130))?.sent;
                let late = commit!(pool, |tx| reminder::send_late(&mut tx, 130))?.sent;
                total += on_time + late;
                if on_time + late == 0 {
                    return Ok(total);
                }
            }
        }
    });
    assert_eq!(at_once(senders).await?.iter().sum::<usize>(), COUNT);
    let expected = i64::try_from(COUNT)?;
    for query in [
        "SELECT count(*) FROM reminders WHERE sent_at >= fire_at",
        "SELECT count(DISTINCT reminder_id) FROM notifications WHERE kind = 'reminder'",
        "SELECT count(*) FROM notifications WHERE kind = 'reminder'",
        "SELECT count(*) FROM outbox WHERE event_type = 'reminder'",
        "SELECT count(DISTINCT data -> 'reminder' -> 'id') FROM outbox WHERE event_type = 'reminder'",
    ] {
        assert_eq!(number(&db.pool, query).await?, expected, "{query}");
    }
    pool.close().await;
    Ok(())
}

#[tokio::test]
async fn a_backlog_is_told_in_a_digest_and_a_few_in_single_notifications() -> Outcome {
    let db = TestDb::new().await;
    came_due(&db.pool, &ada(), 500, 600).await?;
    came_due(&db.pool, &caller("bob"), 3, 600).await?;
    let sent = commit!(db.pool, |tx| reminder::send_late(&mut tx, 1000))?;
    assert_eq!((sent.sent, sent.digests), (503, 1));

    let feed_of_ada = feed(&db.pool, &ada()).await?;
    let (single, digests) = told(&feed_of_ada);
    assert!(single <= 3);
    assert_eq!(digests, [500 - single]);
    assert_eq!(told(&feed(&db.pool, &caller("bob")).await?), (3, vec![]));

    // What the digest stands for is there to be read, page by page.
    let digest = feed_of_ada.iter().find(|item| item.kind == Kind::Digest).unwrap();
    assert_eq!(
        digest.title,
        format!("{} reminders came due while the platform was away", 500 - single)
    );
    let (mut after, mut behind) = (None, Vec::new());
    loop {
        let page = notification::digest(&mut *db.pool.acquire().await?, &ada().user, digest.id, after, 99).await?;
        behind.extend(page.items.into_iter().map(|item| item.reminder_id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(behind.len(), usize::try_from(500 - single)?);
    behind.sort_unstable();
    behind.dedup();
    assert_eq!(behind.len(), usize::try_from(500 - single)?);
    Ok(())
}

#[tokio::test]
async fn a_digest_grows_with_each_batch_until_it_is_read() -> Outcome {
    let db = TestDb::new().await;
    came_due(&db.pool, &ada(), 100, 600).await?;
    for _ in 0..4 {
        let sent = commit!(db.pool, |tx| reminder::send_late(&mut tx, 25))?;
        assert_eq!((sent.sent, sent.digests), (25, 1));
    }
    let feed_of_ada = feed(&db.pool, &ada()).await?;
    assert_eq!(told(&feed_of_ada), (0, vec![100]));

    let digest = feed_of_ada[0].id;
    commit!(db.pool, |tx| notification::mark_read(&mut tx, &ada().user, digest))?;
    came_due(&db.pool, &ada(), 10, 600).await?;
    commit!(db.pool, |tx| reminder::send_late(&mut tx, 25))?;
    assert_eq!(told(&feed(&db.pool, &ada()).await?), (0, vec![10, 100]));
    Ok(())
}

#[tokio::test]
async fn late_ones_that_trickle_in_are_told_singly_three_times_an_hour() -> Outcome {
    let db = TestDb::new().await;
    for _ in 0..5 {
        came_due(&db.pool, &ada(), 1, 600).await?;
        commit!(db.pool, |tx| reminder::send_late(&mut tx, 25))?;
    }
    let feed_of_ada = feed(&db.pool, &ada()).await?;
    assert_eq!(told(&feed_of_ada), (3, vec![2]));
    Ok(())
}

#[tokio::test]
async fn two_senders_at_once_begin_one_digest() -> Outcome {
    let db = TestDb::new().await;
    came_due(&db.pool, &ada(), 200, 600).await?;
    let mut first = db.pool.begin().await?;
    assert_eq!(reminder::send_late(&mut first, 100).await?.sent, 100);
    let second = tokio::spawn({
        let pool = db.pool.clone();
        async move { anyhow::Ok(commit!(pool, |tx| reminder::send_late(&mut tx, 100))?) }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    first.commit().await?;
    assert_eq!(second.await??.sent, 100);
    assert_eq!(told(&feed(&db.pool, &ada()).await?), (0, vec![200]));
    Ok(())
}
