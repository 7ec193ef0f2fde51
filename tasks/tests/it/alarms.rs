//! The books of alarms: what an outside scheduler should be told, however its callers and its own memory fail.

use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::PgPool;
use todo_tasks::ReminderId;
use todo_tasks::reminder::alarm::{self, Telling};
use todo_tasks::reminder::send_on_time;
use todo_tasks::task::{self, Task, TaskInput};
use todo_test_db::TestDb;

use crate::fixture::{Outcome, ada, before, complete, create, due_at, edit, number, reopen, this_second};

const LEASE: Duration = Duration::from_mins(1);
const HOUR: i64 = 3600;

/// So many seconds after one instant, the same for all of a run.
fn after(seconds: i64) -> Timestamp {
    static START: OnceLock<Timestamp> = OnceLock::new();
    *START.get_or_init(this_second) + jiff::SignedDuration::from_secs(seconds)
}

/// A task with one reminder, at its due date.
async fn remind_at(pool: &PgPool, at: Timestamp) -> anyhow::Result<Task> {
    let input = TaskInput {
        due: Some(due_at(at)),
        reminders: vec![before("0m")],
        ..TaskInput::titled("call")
    };
    create(pool, &ada(), input).await
}

async fn move_to(pool: &PgPool, task: &Task, at: Timestamp) -> anyhow::Result<Task> {
    edit(pool, &ada(), task.id, |input| TaskInput {
        due: Some(due_at(at)),
        ..input
    })
    .await
}

async fn delete(pool: &PgPool, task: &Task) -> anyhow::Result<()> {
    commit!(pool, |tx| task::delete(&mut tx, &ada(), task.id, None))?;
    Ok(())
}

async fn claim(pool: &PgPool) -> anyhow::Result<Vec<Telling>> {
    Ok(alarm::claim(pool, 100, LEASE).await?)
}

/// Tells a scheduler that does as it is told, and says what it was told.
async fn tell(pool: &PgPool) -> anyhow::Result<Vec<(ReminderId, Option<Timestamp>)>> {
    let mut told = Vec::new();
    for telling in claim(pool).await? {
        alarm::settle(pool, &telling).await?;
        told.push((telling.reminder, telling.at));
    }
    Ok(told)
}

/// Lets all claims run out, and all pauses.
async fn end_claims(pool: &PgPool) -> anyhow::Result<()> {
    sqlx::query("UPDATE reminder_alarm SET claimed_until = now() WHERE claim IS NOT NULL")
        .execute(pool)
        .await?;
    Ok(())
}

async fn rows(pool: &PgPool) -> anyhow::Result<i64> {
    number(pool, "SELECT count(*) FROM reminder_alarm").await
}

#[tokio::test]
async fn a_reminder_is_set_once_moved_with_its_task_and_removed_with_it() -> Outcome {
    let db = TestDb::new().await;
    let task = remind_at(&db.pool, after(HOUR)).await?;
    let reminder = task.reminders[0].id;
    assert_eq!(tell(&db.pool).await?, [(reminder, Some(after(HOUR)))]);
    assert_eq!(tell(&db.pool).await?, [], "nothing differs any more");

    let later = after(2 * HOUR);
    move_to(&db.pool, &task, later).await?;
    assert_eq!(tell(&db.pool).await?, [(reminder, Some(later))]);
    edit(&db.pool, &ada(), task.id, |input| TaskInput {
        title: "call back".to_owned(),
        ..input
    })
    .await?;
    assert_eq!(tell(&db.pool).await?, [], "a title is nothing to a clock");

    delete(&db.pool, &task).await?;
    assert_eq!(tell(&db.pool).await?, [(reminder, None)]);
    assert_eq!(rows(&db.pool).await?, 0);
    Ok(())
}

#[tokio::test]
async fn what_is_completed_sent_or_taken_off_needs_no_job() -> Outcome {
    let db = TestDb::new().await;
    let completed = remind_at(&db.pool, after(HOUR)).await?;
    let taken_off = remind_at(&db.pool, after(HOUR)).await?;
    let sent = remind_at(&db.pool, after(HOUR)).await?;
    assert_eq!(tell(&db.pool).await?.len(), 3);

    complete(&db.pool, &ada(), completed.id).await?;
    edit(&db.pool, &ada(), taken_off.id, |input| TaskInput {
        reminders: vec![],
        ..input
    })
    .await?;
    sqlx::query("UPDATE reminders SET fire_at = now() WHERE task_id = $1")
        .bind(sent.id.0)
        .execute(&db.pool)
        .await?;
    assert_eq!(commit!(db.pool, |tx| send_on_time(&mut tx, 10))?.sent, 1);
    let mut removed = tell(&db.pool).await?;
    removed.sort();
    let mut expected = [&completed, &taken_off, &sent].map(|task| (task.reminders[0].id, None));
    expected.sort();
    assert_eq!(removed, expected);

    let again = reopen(&db.pool, &ada(), completed.id).await?;
    let due = again.due.as_ref().unwrap().at;
    assert_eq!(tell(&db.pool).await?, [(again.reminders[0].id, Some(due))]);
    Ok(())
}

#[tokio::test]
async fn where_no_scheduler_is_told_of_anything_nothing_is_left_behind() -> Outcome {
    let db = TestDb::new().await;
    let deleted = remind_at(&db.pool, after(HOUR)).await?;
    let completed = remind_at(&db.pool, after(HOUR)).await?;
    remind_at(&db.pool, after(-1)).await?;
    assert_eq!(rows(&db.pool).await?, 3);
    delete(&db.pool, &deleted).await?;
    complete(&db.pool, &ada(), completed.id).await?;
    commit!(db.pool, |tx| send_on_time(&mut tx, 10))?;
    assert_eq!(rows(&db.pool).await?, 0);
    Ok(())
}

#[tokio::test]
async fn the_soonest_is_told_first_and_what_is_due_is_left_to_the_database() -> Outcome {
    let db = TestDb::new().await;
    for seconds in [3 * HOUR, HOUR, -HOUR, 2 * HOUR] {
        remind_at(&db.pool, after(seconds)).await?;
    }
    let first = alarm::claim(&db.pool, 2, LEASE).await?;
    let at: Vec<_> = first.iter().map(|telling| telling.at).collect();
    assert_eq!(at, [Some(after(HOUR)), Some(after(2 * HOUR))]);
    let second = alarm::claim(&db.pool, 2, LEASE).await?;
    assert_eq!(second.len(), 1, "nothing is set for an instant that is over");
    assert_eq!(second[0].at, Some(after(3 * HOUR)));
    assert_eq!(alarm::differences(&db.pool).await?, 3, "none is known to be set");
    Ok(())
}

#[tokio::test]
async fn removals_are_not_starved_by_jobs_to_be_set() -> Outcome {
    let db = TestDb::new().await;
    let gone = remind_at(&db.pool, after(HOUR)).await?;
    tell(&db.pool).await?;
    delete(&db.pool, &gone).await?;
    for _ in 0..20 {
        remind_at(&db.pool, after(HOUR)).await?;
    }
    let claimed = alarm::claim(&db.pool, 4, LEASE).await?;
    let removals = claimed.iter().filter(|telling| telling.at.is_none()).count();
    assert_eq!((claimed.len(), removals), (5, 1));
    Ok(())
}

#[tokio::test]
async fn two_tellers_never_have_the_same_reminder() -> Outcome {
    let db = TestDb::new().await;
    for _ in 0..60 {
        remind_at(&db.pool, after(HOUR)).await?;
    }
    let pools = [db.pool.clone(), db.another_pool(4).await, db.another_pool(4).await];
    let claims = pools.map(|pool| async move {
        let mut claimed = Vec::new();
        loop {
            let batch = alarm::claim(&pool, 7, LEASE).await?;
            if batch.is_empty() {
                return Ok(claimed);
            }
            claimed.extend(batch.into_iter().map(|telling| telling.reminder));
        }
    });
    let claimed: Vec<ReminderId> = crate::fixture::at_once(claims).await?.concat();
    assert_eq!(claimed.len(), 60);
    let distinct: std::collections::BTreeSet<_> = claimed.into_iter().collect();
    assert_eq!(distinct.len(), 60);
    Ok(())
}

#[tokio::test]
async fn a_teller_that_died_before_it_wrote_down_what_it_told_is_made_good() -> Outcome {
    let db = TestDb::new().await;
    let task = remind_at(&db.pool, after(HOUR)).await?;
    let lost = claim(&db.pool).await?;
    assert_eq!(lost.len(), 1);
    assert_eq!(claim(&db.pool).await?, [], "somebody may be telling");
    end_claims(&db.pool).await?;
    assert_eq!(tell(&db.pool).await?, [(task.reminders[0].id, Some(after(HOUR)))]);

    delete(&db.pool, &task).await?;
    claim(&db.pool).await?;
    end_claims(&db.pool).await?;
    assert_eq!(tell(&db.pool).await?, [(task.reminders[0].id, None)]);
    assert_eq!(rows(&db.pool).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_reminder_that_goes_before_its_teller_is_heard_of_has_its_job_removed() -> Outcome {
    let db = TestDb::new().await;
    let task = remind_at(&db.pool, after(HOUR)).await?;
    let telling = claim(&db.pool).await?.remove(0);
    delete(&db.pool, &task).await?;
    alarm::settle(&db.pool, &telling).await?;
    assert_eq!(tell(&db.pool).await?, [(task.reminders[0].id, None)]);
    assert_eq!(rows(&db.pool).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_reminder_that_moves_while_it_is_told_of_is_told_of_again() -> Outcome {
    let db = TestDb::new().await;
    let task = remind_at(&db.pool, after(HOUR)).await?;
    let telling = claim(&db.pool).await?.remove(0);
    let later = after(2 * HOUR);
    move_to(&db.pool, &task, later).await?;
    assert_eq!(claim(&db.pool).await?, [], "not two calls at a time");
    alarm::settle(&db.pool, &telling).await?;
    assert_eq!(tell(&db.pool).await?, [(telling.reminder, Some(later))]);

    delete(&db.pool, &task).await?;
    let removing = claim(&db.pool).await?.remove(0);
    assert_eq!(removing.at, None);
    sqlx::query("INSERT INTO reminder_alarm (reminder_id, wanted_at) VALUES ($1, now() + interval '1 hour') ON CONFLICT (reminder_id) DO UPDATE SET wanted_at = EXCLUDED.wanted_at")
        .bind(telling.reminder.0)
        .execute(&db.pool)
        .await?;
    alarm::settle(&db.pool, &removing).await?;
    let told = tell(&db.pool).await?;
    assert!(matches!(told[..], [(_, Some(_))]), "armed again meanwhile: {told:?}");
    Ok(())
}

#[tokio::test]
async fn what_a_slow_teller_set_out_of_turn_is_put_right() -> Outcome {
    let db = TestDb::new().await;
    let task = remind_at(&db.pool, after(HOUR)).await?;
    let reminder = task.reminders[0].id;
    let slow = claim(&db.pool).await?.remove(0);
    let later = after(2 * HOUR);
    move_to(&db.pool, &task, later).await?;
    end_claims(&db.pool).await?;
    assert_eq!(tell(&db.pool).await?, [(reminder, Some(later))]);
    // Its call for the former instant came through after all.
    alarm::settle(&db.pool, &slow).await?;
    assert_eq!(tell(&db.pool).await?, [(reminder, Some(later))]);

    // The same where the reminder is gone, and its row with it.
    move_to(&db.pool, &task, after(HOUR)).await?;
    let slow = claim(&db.pool).await?.remove(0);
    delete(&db.pool, &task).await?;
    end_claims(&db.pool).await?;
    tell(&db.pool).await?;
    assert_eq!(rows(&db.pool).await?, 0);
    alarm::settle(&db.pool, &slow).await?;
    assert_eq!(tell(&db.pool).await?, [(reminder, None)]);
    assert_eq!(rows(&db.pool).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_call_that_failed_is_made_again_after_a_pause() -> Outcome {
    let db = TestDb::new().await;
    remind_at(&db.pool, after(HOUR)).await?;
    let telling = claim(&db.pool).await?.remove(0);
    assert!(alarm::put_off(&db.pool, &telling, Duration::from_mins(5)).await?);
    assert_eq!(claim(&db.pool).await?, []);
    assert_eq!(alarm::differences(&db.pool).await?, 1);
    end_claims(&db.pool).await?;
    assert_eq!(tell(&db.pool).await?.len(), 1);
    assert_eq!(alarm::differences(&db.pool).await?, 0);
    assert!(
        !alarm::put_off(&db.pool, &telling, Duration::ZERO).await?,
        "the claim is over"
    );
    Ok(())
}

#[tokio::test]
async fn a_scheduler_is_told_again_before_the_instant_and_after_a_start() -> Outcome {
    let db = TestDb::new().await;
    let soon = remind_at(&db.pool, after(600)).await?;
    remind_at(&db.pool, after(40 * 24 * HOUR)).await?;
    remind_at(&db.pool, after(30)).await?;
    assert_eq!(tell(&db.pool).await?.len(), 3);
    let waits = "SELECT extract(epoch FROM tell_again_at - now())::bigint FROM reminder_alarm ORDER BY wanted_at";
    let waits: Vec<i64> = sqlx::query_scalar(waits).fetch_all(&db.pool).await?;
    let expected = [60, 300, 24 * HOUR];
    for (wait, expected) in waits.iter().zip(expected) {
        assert!((expected - 5..=expected).contains(wait), "{waits:?}");
    }

    assert_eq!(tell(&db.pool).await?, []);
    sqlx::query("UPDATE reminder_alarm SET tell_again_at = now() WHERE reminder_id = $1")
        .bind(soon.reminders[0].id.0)
        .execute(&db.pool)
        .await?;
    assert_eq!(tell(&db.pool).await?, [(soon.reminders[0].id, Some(after(600)))]);
    assert_eq!(alarm::tell_again(&db.pool, Duration::from_hours(1)).await?, 2);
    assert_eq!(tell(&db.pool).await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn reminders_from_before_the_books_were_opened_are_in_them() -> Outcome {
    let db = TestDb::new().await;
    let waiting = remind_at(&db.pool, after(HOUR)).await?;
    remind_at(&db.pool, after(-1)).await?;
    commit!(db.pool, |tx| send_on_time(&mut tx, 10))?;
    sqlx::raw_sql("DROP TABLE reminder_alarm; DROP FUNCTION want_reminder_alarm CASCADE;")
        .execute(&db.pool)
        .await?;
    sqlx::raw_sql(include_str!("../../../migrations/0003_alarms.sql"))
        .execute(&db.pool)
        .await?;
    assert_eq!(tell(&db.pool).await?, [(waiting.reminders[0].id, Some(after(HOUR)))]);
    Ok(())
}
