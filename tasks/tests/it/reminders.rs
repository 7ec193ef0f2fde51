//! Reminders: when they go out, and when not.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::PgPool;
use todo_tasks::reminder::{self, Reminder};
use todo_tasks::task::{self, Task, TaskInput};
use todo_tasks::{Error, notification};
use todo_test_db::TestDb;

use crate::fixture::{
    Outcome, ada, at, before, complete, create, due_at, due_local, edit, events, number, refused_field, reopen,
    this_second,
};

fn seconds(seconds: i64) -> jiff::SignedDuration {
    jiff::SignedDuration::from_secs(seconds)
}

/// A task due so many seconds from now, with one reminder at its due date.
async fn due_in(pool: &PgPool, from_now: i64) -> anyhow::Result<Task> {
    let input = TaskInput {
        due: Some(due_at(this_second() + seconds(from_now))),
        reminders: vec![before("0m")],
        ..TaskInput::titled("call")
    };
    create(pool, &ada(), input).await
}

async fn only(pool: &PgPool, task: &Task) -> anyhow::Result<Reminder> {
    let mut reminders = reminder::list(&mut *pool.acquire().await?, &ada().user, task.id).await?;
    assert_eq!(reminders.len(), 1);
    Ok(reminders.remove(0))
}

/// Sends all that is due, and says how many went out.
async fn send(pool: &PgPool) -> anyhow::Result<usize> {
    let on_time = commit!(pool, |tx| reminder::send_on_time(&mut tx, 100))?;
    let late = commit!(pool, |tx| reminder::send_late(&mut tx, 100))?;
    Ok(on_time.sent + late.sent)
}

async fn move_due(pool: &PgPool, task: &Task, to: Timestamp) -> anyhow::Result<Task> {
    edit(pool, &ada(), task.id, |input| TaskInput {
        due: Some(due_at(to)),
        ..input
    })
    .await
}

#[tokio::test]
async fn a_reminder_goes_out_before_the_due_date_or_at_its_own_time() -> Outcome {
    let db = TestDb::new().await;
    let input = TaskInput {
        due: Some(due_local("2101-03-28T09:00:00", "Europe/Berlin")),
        reminders: vec![before("1d"), at(due_local("2101-01-01T08:00:00", "Asia/Tokyo"))],
        ..TaskInput::titled("two reminders")
    };
    let task = create(&db.pool, &ada(), input).await?;
    let due = task.due.as_ref().unwrap().at;
    let listed = reminder::list(&mut *db.pool.acquire().await?, &ada().user, task.id).await?;
    assert_eq!(listed[0].fire_at, Some(due - seconds(86_400)));
    assert_eq!(listed[1].fire_at, Some("2100-12-31T23:00:00Z".parse()?));
    assert_eq!(listed.iter().map(|reminder| reminder.id).collect::<Vec<_>>(), {
        task.reminders.iter().map(|reminder| reminder.id).collect::<Vec<_>>()
    });
    Ok(())
}

#[tokio::test]
async fn adding_and_removing_a_reminder_changes_its_task() -> Outcome {
    let db = TestDb::new().await;
    let task = due_in(&db.pool, 3600).await?;
    let added = commit!(db.pool, |tx| reminder::add(&mut tx, &ada(), task.id, before("60s")))?;
    assert_eq!(added.fire_at, Some(task.due.as_ref().unwrap().at - seconds(60)));
    let twice = commit!(db.pool, |tx| reminder::add(&mut tx, &ada(), task.id, before("1m")));
    assert!(matches!(twice, Err(Error::Conflict(_))), "{twice:?}");
    commit!(db.pool, |tx| reminder::remove(&mut tx, &ada(), task.id, added.id))?;
    let gone = commit!(db.pool, |tx| reminder::remove(&mut tx, &ada(), task.id, added.id));
    assert!(matches!(gone, Err(Error::NotFound(_))), "{gone:?}");
    let versions: Vec<i64> = events(&db.pool, task.id)
        .await?
        .iter()
        .map(|event| event.version)
        .collect();
    assert_eq!(versions, [1, 2, 3]);

    let undated = create(&db.pool, &ada(), TaskInput::titled("no due date")).await?;
    let outcome = commit!(db.pool, |tx| reminder::add(&mut tx, &ada(), undated.id, before("1m")));
    assert_eq!(refused_field(outcome), "before");
    Ok(())
}

#[tokio::test]
async fn two_reminders_at_one_civil_time_are_refused_even_in_two_passes_of_an_overlap() -> Outcome {
    let zone = todo_recurrence::zone::time_zone("Europe/Berlin")?;
    let back = zone
        .following("2101-07-01T00:00:00Z".parse()?)
        .find(|change| change.dst() == jiff::tz::Dst::No)
        .unwrap();
    let pass = |offset| {
        at(todo_tasks::DueInput {
            time_zone: Some("Europe/Berlin".to_owned()),
            ..due_at(back.timestamp() + seconds(offset))
        })
    };
    let input = TaskInput {
        reminders: vec![pass(-1800), pass(1800)],
        ..TaskInput::titled("twice")
    };
    let wrong = input.parse().unwrap_err();
    assert_eq!(wrong[0].field, "reminders[1]");
    Ok(())
}

#[tokio::test]
async fn a_reminder_is_never_early_by_the_databases_clock() -> Outcome {
    let db = TestDb::new().await;
    let task = due_in(&db.pool, 2).await?;
    let due = task.due.as_ref().unwrap().at;
    loop {
        let mut tx = db.pool.begin().await?;
        let now: jiff_sqlx::Timestamp = sqlx::query_scalar("SELECT now()").fetch_one(&mut *tx).await?;
        let sent = reminder::send_on_time(&mut tx, 10).await?.sent;
        tx.commit().await?;
        assert_eq!(sent == 1, now.to_jiff() >= due, "{} for {due}", now.to_jiff());
        if sent == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let reminder = only(&db.pool, &task).await?;
    assert!(reminder.sent_at >= Some(due) && !reminder.late);
    assert_eq!(send(&db.pool).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_reminder_that_waited_too_long_is_marked_late() -> Outcome {
    let db = TestDb::new().await;
    let (fresh, late) = (due_in(&db.pool, -30).await?, due_in(&db.pool, -90).await?);
    let on_time = commit!(db.pool, |tx| reminder::send_on_time(&mut tx, 100))?;
    assert_eq!((on_time.sent, on_time.digests), (1, 0));
    let behind = commit!(db.pool, |tx| reminder::send_late(&mut tx, 100))?;
    assert_eq!((behind.sent, behind.digests), (1, 0));
    assert!(behind.worst_delay_seconds >= 90);
    for (task, expected) in [(&fresh, false), (&late, true)] {
        assert_eq!(only(&db.pool, task).await?.late, expected);
        let event = events(&db.pool, task.id).await?.pop().unwrap();
        assert_eq!(event.event_type, "reminder");
        assert_eq!((event.version, &*event.actor), (1, "system:reminders"));
        assert_eq!(event.data["reminder"]["late"], expected);
        assert_eq!(event.data["title"], "call");
    }
    let feed = notification::list(&mut *db.pool.acquire().await?, &ada().user, true, None, 10).await?;
    let told: Vec<_> = feed.items.iter().map(|item| (item.task_id, item.late)).collect();
    assert_eq!(told, [(Some(late.id), true), (Some(fresh.id), false)]);
    Ok(())
}

#[tokio::test]
async fn a_moved_due_date_arms_a_reminder_anew_only_for_the_future() -> Outcome {
    let db = TestDb::new().await;
    let task = due_in(&db.pool, -10).await?;
    assert_eq!(send(&db.pool).await?, 1);
    let sent = only(&db.pool, &task).await?;

    // To another instant that is over: it stays sent.
    move_due(&db.pool, &task, this_second() - seconds(3600)).await?;
    assert_eq!(only(&db.pool, &task).await?, sent);
    // Ahead: it goes out again.
    let ahead = this_second() + seconds(3600);
    move_due(&db.pool, &task, ahead).await?;
    let armed = only(&db.pool, &task).await?;
    assert_eq!((armed.fire_at, armed.sent_at, armed.late), (Some(ahead), None, false));
    // Not out yet, and moved to where it is over: it goes out now.
    move_due(&db.pool, &task, this_second() - seconds(1800)).await?;
    assert_eq!(send(&db.pool).await?, 1);
    assert_eq!(number(&db.pool, "SELECT count(*) FROM notifications").await?, 2);
    Ok(())
}

#[tokio::test]
async fn moved_away_and_back_to_an_instant_at_which_it_went_out_it_has_gone_out() -> Outcome {
    let db = TestDb::new().await;
    let task = due_in(&db.pool, -90).await?;
    assert_eq!(send(&db.pool).await?, 1);
    let sent = only(&db.pool, &task).await?;
    move_due(&db.pool, &task, this_second() + seconds(3600)).await?;
    move_due(&db.pool, &task, task.due.as_ref().unwrap().at).await?;
    assert_eq!(only(&db.pool, &task).await?, sent);
    // Nor does it stand in the way of others.
    due_in(&db.pool, -5).await?;
    assert_eq!(send(&db.pool).await?, 1);
    Ok(())
}

#[tokio::test]
async fn without_a_due_date_a_reminder_waits_for_the_next() -> Outcome {
    let db = TestDb::new().await;
    let task = due_in(&db.pool, -5).await?;
    edit(&db.pool, &ada(), task.id, |input| TaskInput { due: None, ..input }).await?;
    assert_eq!(send(&db.pool).await?, 0);
    let ahead = this_second() + seconds(3600);
    move_due(&db.pool, &task, ahead).await?;
    assert_eq!(only(&db.pool, &task).await?.fire_at, Some(ahead));
    Ok(())
}

#[tokio::test]
async fn a_closed_task_sends_nothing_and_a_reopened_one_only_what_lies_ahead() -> Outcome {
    let db = TestDb::new().await;
    let input = TaskInput {
        due: Some(due_at(this_second() + seconds(1800))),
        reminders: vec![before("1h"), before("10m"), at(due_at(this_second() - seconds(7200)))],
        ..TaskInput::titled("meeting")
    };
    let task = create(&db.pool, &ada(), input).await?;
    complete(&db.pool, &ada(), task.id).await?;
    assert_eq!(send(&db.pool).await?, 0);
    let listed = reminder::list(&mut *db.pool.acquire().await?, &ada().user, task.id).await?;
    assert!(listed.iter().all(|reminder| reminder.fire_at.is_none()), "{listed:?}");

    reopen(&db.pool, &ada(), task.id).await?;
    assert_eq!(send(&db.pool).await?, 0);
    let listed = reminder::list(&mut *db.pool.acquire().await?, &ada().user, task.id).await?;
    let armed: Vec<_> = listed.iter().filter(|reminder| reminder.fire_at.is_some()).collect();
    assert_eq!(armed.len(), 1);
    assert_eq!(armed[0].when, before("10m"));

    let other = due_in(&db.pool, -5).await?;
    commit!(db.pool, |tx| task::delete(&mut tx, &ada(), other.id, None))?;
    assert_eq!(send(&db.pool).await?, 0);
    Ok(())
}

#[tokio::test]
async fn what_a_reopened_task_passed_over_is_not_sent_by_a_later_change_of_something_else() -> Outcome {
    let db = TestDb::new().await;
    let soon = this_second() + seconds(1800);
    let hours_ago = at(due_at(this_second() - seconds(7200)));
    let input = TaskInput {
        due: Some(due_at(soon)),
        reminders: vec![before("1h"), before("10m"), hours_ago.clone()],
        ..TaskInput::titled("meeting")
    };
    let task = create(&db.pool, &ada(), input).await?;
    complete(&db.pool, &ada(), task.id).await?;
    let task = reopen(&db.pool, &ada(), task.id).await?;

    // The one of two hours ago stays where it was; the one an hour before moves, and is due again.
    let moved = soon + seconds(60);
    let task = move_due(&db.pool, &task, moved).await?;
    assert_eq!(send(&db.pool).await?, 1);
    edit(&db.pool, &ada(), task.id, |input| TaskInput {
        reminders: vec![before("1h"), before("10m"), hours_ago, before("5m")],
        ..input
    })
    .await?;
    assert_eq!(send(&db.pool).await?, 0);
    let listed = reminder::list(&mut *db.pool.acquire().await?, &ada().user, task.id).await?;
    let armed: Vec<_> = listed.iter().map(|reminder| reminder.fire_at).collect();
    let expected = [
        Some(moved - seconds(3600)),
        Some(moved - seconds(600)),
        None,
        Some(moved - seconds(300)),
    ];
    assert_eq!(armed, expected);
    Ok(())
}

#[tokio::test]
async fn sent_stays_sent_whatever_else_of_the_task_changes() -> Outcome {
    let db = TestDb::new().await;
    let task = due_in(&db.pool, -5).await?;
    assert_eq!(send(&db.pool).await?, 1);
    let sent = only(&db.pool, &task).await?;
    edit(&db.pool, &ada(), task.id, |input| TaskInput {
        title: "other".to_owned(),
        tags: vec!["tag".to_owned()],
        ..input
    })
    .await?;
    complete(&db.pool, &ada(), task.id).await?;
    reopen(&db.pool, &ada(), task.id).await?;
    edit(&db.pool, &ada(), task.id, |input| TaskInput {
        reminders: vec![before("0s"), before("1w")],
        ..input
    })
    .await?;
    let listed = reminder::list(&mut *db.pool.acquire().await?, &ada().user, task.id).await?;
    assert!(listed.contains(&sent), "{listed:?}");
    Ok(())
}

#[tokio::test]
async fn the_wait_is_until_the_next_reminder_and_endless_without_one() -> Outcome {
    let db = TestDb::new().await;
    let until_next = async || -> anyhow::Result<Option<Duration>> {
        Ok(reminder::until_next(&mut *db.pool.acquire().await?).await?)
    };
    assert_eq!(until_next().await?, None);
    due_in(&db.pool, 100).await?;
    let wait = until_next().await?.unwrap();
    assert!((90..=100).contains(&wait.as_secs()), "{wait:?}");
    due_in(&db.pool, -100).await?;
    assert_eq!(until_next().await?, Some(Duration::ZERO));
    Ok(())
}
