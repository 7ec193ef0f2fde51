//! A task that repeats makes its next one when it is completed: once, at the right time, with all that hangs under it.

use jiff::civil::DateTime;
use serde_json::{Value, json};
use sqlx::PgPool;
use todo_tasks::task::{self, Status, Task, TaskInput};
use todo_tasks::{TaskId, reminder};
use todo_test_db::TestDb;

use crate::fixture::{
    Outcome, ada, at, before, caller, complete, create, due_local, edit, events, get, number, reopen,
};

fn repeating(recurrence: Value, due: &str, time_zone: &str) -> TaskInput {
    TaskInput {
        due: Some(due_local(due, time_zone)),
        recurrence: Some(serde_json::from_value(recurrence).unwrap()),
        ..TaskInput::titled("again")
    }
}

/// The data of the task's latest event.
async fn latest(pool: &PgPool, id: TaskId) -> anyhow::Result<Value> {
    Ok(events(pool, id).await?.pop().unwrap().data)
}

async fn make_next(pool: &PgPool, completed: &Value) -> anyhow::Result<Option<TaskId>> {
    Ok(commit!(pool, |tx| task::make_next(&mut tx, completed, None))?)
}

/// Completes a task now and makes its next.
async fn complete_and_next(pool: &PgPool, id: TaskId) -> anyhow::Result<Task> {
    complete(pool, &ada(), id).await?;
    let next = make_next(pool, &latest(pool, id).await?).await?;
    get(pool, &ada(), next.unwrap()).await
}

/// When the next task is due of one that was completed at an instant of its own; `None` when there is no next.
async fn next_due(
    pool: &PgPool,
    recurrence: Value,
    due: &str,
    time_zone: &str,
    completed_at: &str,
) -> anyhow::Result<Option<DateTime>> {
    let task = create(pool, &ada(), repeating(recurrence, due, time_zone)).await?;
    let mut completed = serde_json::to_value(complete(pool, &ada(), task.id).await?)?;
    completed["completed_at"] = completed_at.into();
    let Some(next) = make_next(pool, &completed).await? else {
        return Ok(None);
    };
    let due = get(pool, &ada(), next).await?.due.unwrap();
    assert_eq!(due.time_zone, time_zone);
    Ok(Some(due.local))
}

/// The cases of other task apps that went wrong, with what is right.
#[tokio::test]
async fn the_next_due_date_is_right() -> Outcome {
    let db = TestDb::new().await;
    for (case, recurrence, due, zone, completed_at, expected) in [
        // T16: skipped where the rule itself is strict.
        (
            "strict month end",
            json!({"rrule": "FREQ=MONTHLY", "month_end": "strict"}),
            "2026-01-31T09:00:00",
            "UTC",
            "2026-01-31T08:00:00Z",
            "2026-03-31T09:00:00",
        ),
        // T17: three months from the completion, at the end of a shorter month.
        (
            "29 Nov + 3 months",
            json!({"every": "3mo", "mode": "from_completion"}),
            "2025-11-01T09:00:00",
            "UTC",
            "2025-11-29T10:00:00Z",
            "2026-02-28T09:00:00",
        ),
        (
            "10 Sep + 1 month",
            json!({"every": "1mo", "mode": "from_completion"}),
            "2025-08-31T09:00:00",
            "UTC",
            "2025-09-10T10:00:00Z",
            "2025-10-10T09:00:00",
        ),
        // T18: 29 February.
        (
            "leap day, clamped",
            json!({"every": "1y"}),
            "2024-02-29T09:00:00",
            "UTC",
            "2024-02-29T10:00:00Z",
            "2025-02-28T09:00:00",
        ),
        (
            "leap day, strict",
            json!({"rrule": "FREQ=YEARLY", "month_end": "strict"}),
            "2024-02-29T09:00:00",
            "UTC",
            "2024-02-29T10:00:00Z",
            "2028-02-29T09:00:00",
        ),
        // T20: early. The next is never due when this one was.
        (
            "early, from due",
            json!({"every": "1d"}),
            "2022-05-20T09:00:00",
            "UTC",
            "2022-05-17T10:00:00Z",
            "2022-05-21T09:00:00",
        ),
        (
            "early, from completion",
            json!({"every": "1d", "mode": "from_completion"}),
            "2022-05-20T09:00:00",
            "UTC",
            "2022-05-17T10:00:00Z",
            "2022-05-21T09:00:00",
        ),
        // T21: late. The first that is still to come.
        (
            "late, from due",
            json!({"every": "1d"}),
            "2024-08-01T08:00:00",
            "UTC",
            "2024-08-09T07:45:00Z",
            "2024-08-09T08:00:00",
        ),
        (
            "late, from due, after the time of day",
            json!({"every": "1d"}),
            "2024-08-01T08:00:00",
            "UTC",
            "2024-08-09T08:00:00Z",
            "2024-08-10T08:00:00",
        ),
        (
            "late, from completion",
            json!({"every": "1w", "mode": "from_completion"}),
            "2024-08-01T08:00:00",
            "UTC",
            "2024-08-09T07:45:00Z",
            "2024-08-16T08:00:00",
        ),
        // T22: the clocks change in between; the civil time stays.
        (
            "over a change of clocks",
            json!({"every": "1d"}),
            "2022-09-24T00:00:00",
            "Pacific/Auckland",
            "2022-09-24T03:00:00Z",
            "2022-09-25T00:00:00",
        ),
        // T23: it is already tomorrow in UTC when it is completed.
        (
            "the civil day of the completion",
            json!({"every": "1d", "mode": "from_completion"}),
            "2024-06-01T23:00:00",
            "America/Bogota",
            "2024-06-04T02:00:00Z",
            "2024-06-04T23:00:00",
        ),
        (
            "weekdays by cron",
            json!({"cron": "0 7 * * 1-5"}),
            "2024-06-07T07:00:00",
            "Europe/Berlin",
            "2024-06-07T08:00:00Z",
            "2024-06-10T07:00:00",
        ),
    ] {
        let next = next_due(&db.pool, recurrence, due, zone, completed_at).await?;
        assert_eq!(next, Some(expected.parse()?), "{case}");
    }
    let over = next_due(
        &db.pool,
        json!({"rrule": "FREQ=DAILY;COUNT=1"}),
        "2024-06-07T07:00:00",
        "UTC",
        "2024-06-07T08:00:00Z",
    );
    assert_eq!(over.await?, None, "the series has ended");
    Ok(())
}

#[tokio::test]
async fn a_monthly_series_remembers_the_thirty_first() -> Outcome {
    let db = TestDb::new().await;
    let input = TaskInput {
        reminders: vec![before("1h"), at(due_local("2101-01-30T18:00:00", "Europe/Berlin"))],
        tags: vec!["rent".to_owned()],
        ..repeating(json!({"every": "1mo"}), "2101-01-31T09:00:00", "Europe/Berlin")
    };
    let first = create(&db.pool, &ada(), input).await?;
    let mut task = first.clone();
    for (due, reminder) in [
        ("2101-02-28T09:00:00", "2101-02-27T18:00:00"),
        ("2101-03-31T09:00:00", "2101-03-30T18:00:00"),
        ("2101-04-30T09:00:00", "2101-04-29T18:00:00"),
    ] {
        let next = complete_and_next(&db.pool, task.id).await?;
        assert_eq!(next.due.as_ref().unwrap().local, due.parse()?);
        assert_eq!(next.series_start, first.series_start);
        assert_eq!(
            (next.previous_id, next.status, next.version),
            (Some(task.id), Status::Open, 1)
        );
        assert_eq!(
            (&next.title, &next.tags, &next.recurrence),
            (&first.title, &first.tags, &first.recurrence)
        );
        let said: Vec<_> = next.reminders.iter().map(|reminder| reminder.when.clone()).collect();
        assert_eq!(said, [before("1h"), at(due_local(reminder, "Europe/Berlin"))]);
        let armed = reminder::list(&mut *db.pool.acquire().await?, &ada().user, next.id).await?;
        assert!(armed.iter().all(|reminder| reminder.fire_at.is_some()));

        let logged = events(&db.pool, next.id).await?;
        assert_eq!(logged.len(), 1);
        assert_eq!(
            (&*logged[0].event_type, &*logged[0].actor),
            ("recurring_spawn", "system:recurring")
        );
        assert_eq!(logged[0].data, serde_json::to_value(&next)?);
        task = next;
    }
    // A due date that the user moves begins a new series.
    let moved = edit(&db.pool, &ada(), task.id, |input| TaskInput {
        due: Some(due_local("2101-05-15T09:00:00", "Europe/Berlin")),
        ..input
    })
    .await?;
    let next = complete_and_next(&db.pool, moved.id).await?;
    assert_eq!(next.due.unwrap().local, "2101-06-15T09:00:00".parse()?);
    Ok(())
}

#[tokio::test]
async fn without_a_due_date_a_task_cannot_repeat() -> Outcome {
    let input = TaskInput {
        due: None,
        ..repeating(json!({"every": "1w"}), "2101-01-01T09:00:00", "UTC")
    };
    let wrong = input.parse().unwrap_err();
    assert_eq!(wrong[0].field, "recurrence");

    let db = TestDb::new().await;
    let plain = create(&db.pool, &ada(), TaskInput::titled("plain")).await?;
    complete(&db.pool, &ada(), plain.id).await?;
    assert_eq!(make_next(&db.pool, &latest(&db.pool, plain.id).await?).await?, None);
    Ok(())
}

#[tokio::test]
async fn completing_says_nothing_about_how_a_task_repeats() -> Outcome {
    let db = TestDb::new().await;
    let recurrence = json!({"every": "1w", "mode": "from_completion"});
    let task = create(&db.pool, &ada(), repeating(recurrence, "2101-01-01T09:00:00", "UTC")).await?;
    let completed = complete(&db.pool, &ada(), task.id).await?;
    assert_eq!(completed.recurrence, task.recurrence);
    assert_eq!(completed.series_start, task.series_start);
    Ok(())
}

#[tokio::test]
async fn an_event_delivered_twice_makes_one_next() -> Outcome {
    let db = TestDb::new().await;
    let task = create(
        &db.pool,
        &ada(),
        repeating(json!({"every": "1d"}), "2101-01-01T09:00:00", "UTC"),
    )
    .await?;
    complete(&db.pool, &ada(), task.id).await?;
    let completed = latest(&db.pool, task.id).await?;
    assert!(make_next(&db.pool, &completed).await?.is_some());
    assert_eq!(make_next(&db.pool, &completed).await?, None);
    assert_eq!(number(&db.pool, "SELECT count(*) FROM tasks").await?, 2);
    Ok(())
}

#[tokio::test]
async fn an_event_delivered_to_two_workers_at_once_makes_one_next() -> Outcome {
    let db = TestDb::new().await;
    let task = create(
        &db.pool,
        &ada(),
        repeating(json!({"every": "1d"}), "2101-01-01T09:00:00", "UTC"),
    )
    .await?;
    complete(&db.pool, &ada(), task.id).await?;
    let completed = latest(&db.pool, task.id).await?;
    let mut first = db.pool.begin().await?;
    task::make_next(&mut first, &completed, None).await?;
    let second = tokio::spawn({
        let (pool, completed) = (db.pool.clone(), completed.clone());
        async move { make_next(&pool, &completed).await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    first.commit().await?;
    assert!(
        second.await?.is_err(),
        "the second fails, to find the first's when it is tried again"
    );
    assert_eq!(make_next(&db.pool, &completed).await?, None);
    assert_eq!(
        number(
            &db.pool,
            "SELECT count(*) FROM outbox WHERE event_type = 'recurring_spawn'"
        )
        .await?,
        1
    );
    Ok(())
}

#[tokio::test]
async fn reopened_and_completed_again_a_task_makes_no_second_next() -> Outcome {
    let db = TestDb::new().await;
    let task = create(
        &db.pool,
        &ada(),
        repeating(json!({"every": "1d"}), "2101-01-01T09:00:00", "UTC"),
    )
    .await?;
    complete_and_next(&db.pool, task.id).await?;
    reopen(&db.pool, &ada(), task.id).await?;
    complete(&db.pool, &ada(), task.id).await?;
    assert_eq!(make_next(&db.pool, &latest(&db.pool, task.id).await?).await?, None);
    Ok(())
}

#[tokio::test]
async fn what_hangs_under_it_comes_back_open_once_with_its_dates_moved() -> Outcome {
    let db = TestDb::new().await;
    let pool = &db.pool;
    let root = create(
        pool,
        &ada(),
        repeating(json!({"every": "1w"}), "2101-03-21T09:00:00", "Europe/Berlin"),
    )
    .await?;
    let part = |title: &str, parent: TaskId| TaskInput {
        parent_id: Some(parent),
        ..TaskInput::titled(title)
    };
    let dated = TaskInput {
        // The clocks change in the week to come; the civil time stays.
        due: Some(due_local("2101-03-20T18:00:00", "Europe/Berlin")),
        reminders: vec![before("1h")],
        tags: vec!["part".to_owned()],
        ..part("dated", root.id)
    };
    let dated = create(pool, &ada(), dated).await?;
    let done = create(pool, &ada(), part("done", root.id)).await?;
    let below = create(pool, &ada(), part("below", done.id)).await?;
    complete(pool, &ada(), done.id).await?;
    complete(pool, &ada(), below.id).await?;
    let deleted = create(pool, &ada(), part("deleted", root.id)).await?;
    commit!(pool, |tx| task::delete(&mut tx, &ada(), deleted.id, None))?;
    create(pool, &caller("bob"), TaskInput::titled("bob's")).await?;

    let next = complete_and_next(pool, root.id).await?;
    let copies: Vec<(String, String, Option<uuid::Uuid>)> =
        sqlx::query_as("SELECT title, status::text, parent_id FROM tasks WHERE id >= $1 ORDER BY title")
            .bind(next.id.0)
            .fetch_all(pool)
            .await?;
    let done_again =
        sqlx::query_scalar::<_, uuid::Uuid>("SELECT id FROM tasks WHERE title = 'done' AND parent_id = $1")
            .bind(next.id.0)
            .fetch_one(pool)
            .await?;
    let open = "open".to_owned();
    assert_eq!(
        copies,
        [
            ("again".to_owned(), open.clone(), None),
            ("below".to_owned(), open.clone(), Some(done_again)),
            ("dated".to_owned(), open.clone(), Some(next.id.0)),
            ("done".to_owned(), open, Some(next.id.0)),
        ]
    );
    let dated_again: uuid::Uuid = sqlx::query_scalar("SELECT id FROM tasks WHERE title = 'dated' AND parent_id = $1")
        .bind(next.id.0)
        .fetch_one(pool)
        .await?;
    let dated_again = get(pool, &ada(), dated_again.into()).await?;
    assert_eq!(dated_again.due.unwrap().local, "2101-03-27T18:00:00".parse()?);
    assert_eq!((dated_again.tags, dated_again.reminders.len()), (dated.tags, 1));
    assert_eq!(
        number(pool, "SELECT count(*) FROM outbox WHERE event_type = 'recurring_spawn'").await?,
        4
    );
    Ok(())
}

#[tokio::test]
async fn of_a_part_that_came_back_by_itself_only_the_latest_comes_along() -> Outcome {
    let db = TestDb::new().await;
    let root = create(
        &db.pool,
        &ada(),
        repeating(json!({"every": "1w"}), "2101-03-21T09:00:00", "UTC"),
    )
    .await?;
    let daily = TaskInput {
        parent_id: Some(root.id),
        title: "daily".to_owned(),
        ..repeating(json!({"every": "1d"}), "2101-03-15T09:00:00", "UTC")
    };
    let mut part = create(&db.pool, &ada(), daily).await?;
    for _ in 0..3 {
        part = complete_and_next(&db.pool, part.id).await?;
    }
    let next = complete_and_next(&db.pool, root.id).await?;
    let dues: Vec<jiff_sqlx::DateTime> = sqlx::query_scalar("SELECT due_local FROM tasks WHERE parent_id = $1")
        .bind(next.id.0)
        .fetch_all(&db.pool)
        .await?;
    let dues: Vec<DateTime> = dues.into_iter().map(jiff_sqlx::DateTime::to_jiff).collect();
    assert_eq!(dues, ["2101-03-25T09:00:00".parse::<DateTime>()?]);
    Ok(())
}
