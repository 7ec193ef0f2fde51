//! Making a task: whole or not at all.

use serde_json::json;
use todo_tasks::task::{self, Priority, Status, TaskInput};
use todo_tasks::{Caller, Error};
use todo_test_db::TestDb;

use crate::fixture::{Outcome, ada, at, before, caller, create, due_local, events, get, number, refused_field};

/// An input with every field set.
pub(crate) fn everything() -> TaskInput {
    TaskInput {
        description: "three\nlines\nof it".to_owned(),
        priority: Priority::High,
        category: Some("home".to_owned()),
        tags: vec![
            "Work".to_owned(),
            "äpfel".to_owned(),
            "WORK".to_owned(),
            "zoo".to_owned(),
        ],
        due: Some(due_local("2101-03-01T09:00:00", "europe/berlin")),
        recurrence: Some(serde_json::from_value(json!({"every": "1mo"})).unwrap()),
        reminders: vec![
            before("30m"),
            at(due_local("2101-02-01T08:00:00", "America/New_York")),
            before("60h"),
        ],
        ..TaskInput::titled("  everything  ")
    }
}

#[tokio::test]
async fn a_task_with_all_fields_is_written_whole_with_one_event() -> Outcome {
    let db = TestDb::new().await;
    let caller = Caller {
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        ..ada()
    };
    let parent = create(&db.pool, &caller, TaskInput::titled("parent")).await?;
    let input = TaskInput {
        parent_id: Some(parent.id),
        ..everything()
    };
    let task = create(&db.pool, &caller, input).await?;

    assert_eq!(task.title, "everything");
    assert_eq!(task.tags, ["work", "zoo", "äpfel"]);
    let due = task.due.clone().unwrap();
    assert_eq!(due.time_zone, "Europe/Berlin");
    assert_eq!(due.at, "2101-03-01T08:00:00Z".parse()?);
    assert_eq!(task.series_start, Some(due.local));
    assert_eq!(task.reminders.len(), 3);
    assert_eq!(get(&db.pool, &caller, task.id).await?, task);

    let events = events(&db.pool, task.id).await?;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].event_type, "created");
    assert_eq!((events[0].version, &*events[0].actor), (1, "ada"));
    assert_eq!(events[0].data, serde_json::to_value(&task)?);
    assert_eq!(events[0].previous, None);
    let traceparent: Option<String> = sqlx::query_scalar("SELECT traceparent FROM outbox WHERE subject = $1")
        .bind(task.id.0)
        .fetch_one(&db.pool)
        .await?;
    assert_eq!(traceparent, caller.traceparent);

    // xmin is the transaction that wrote a row.
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT xmin::text, count(*)
        FROM (
            SELECT xmin FROM tasks WHERE id = $1
            UNION ALL SELECT xmin FROM task_tags WHERE task_id = $1
            UNION ALL SELECT xmin FROM reminders WHERE task_id = $1
            UNION ALL SELECT xmin FROM outbox WHERE subject = $1
        ) AS row
        GROUP BY xmin::text",
    )
    .bind(task.id.0)
    .fetch_all(&db.pool)
    .await?;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].1, 1 + 3 + 3 + 1);
    Ok(())
}

const ROWS_OF_BOB: &str = "
    SELECT (SELECT count(*) FROM tasks WHERE user_id = 'bob')
        + (SELECT count(*) FROM tags WHERE user_id = 'bob')
        + (SELECT count(*) FROM task_tags WHERE user_id = 'bob')
        + (SELECT count(*) FROM reminders WHERE user_id = 'bob')
        + (SELECT count(*) FROM outbox WHERE user_id = 'bob')";

#[tokio::test]
async fn another_users_parent_is_refused_and_leaves_nothing() -> Outcome {
    let db = TestDb::new().await;
    let parent = create(&db.pool, &ada(), TaskInput::titled("ada's")).await?;
    let input = TaskInput {
        parent_id: Some(parent.id),
        ..everything()
    };
    let fields = input.parse().map_err(Error::Invalid)?;
    let outcome = task::create(&mut *db.pool.acquire().await?, &caller("bob"), fields).await;
    assert_eq!(refused_field(outcome), "parent_id");
    assert_eq!(number(&db.pool, ROWS_OF_BOB).await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_event_that_cannot_be_written_takes_its_task_with_it() -> Outcome {
    let db = TestDb::new().await;
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION refuse();",
    )
    .execute(&db.pool)
    .await?;
    let fields = everything().parse().map_err(Error::Invalid)?;
    let outcome = task::create(&mut *db.pool.acquire().await?, &caller("bob"), fields).await;
    assert!(matches!(outcome, Err(Error::Database(_))), "{outcome:?}");
    assert_eq!(number(&db.pool, ROWS_OF_BOB).await?, 0);
    Ok(())
}

#[tokio::test]
async fn what_a_new_task_cannot_be_is_refused() -> Outcome {
    let db = TestDb::new().await;
    let done = TaskInput {
        status: Status::Completed,
        ..TaskInput::titled("done")
    };
    let waits_for_ever = TaskInput {
        reminders: vec![at(due_local("2101-01-01T00:00:00", "UTC")), before("1h")],
        ..TaskInput::titled("no due date")
    };
    for (input, field) in [(done, "status"), (waits_for_ever, "reminders[1].before")] {
        let fields = input.parse().map_err(Error::Invalid)?;
        let outcome = task::create(&mut *db.pool.acquire().await?, &ada(), fields).await;
        assert_eq!(refused_field(outcome), field);
    }
    Ok(())
}

#[tokio::test]
async fn every_letter_may_be_in_a_tag() -> Outcome {
    let db = TestDb::new().await;
    let letters: Vec<String> = ('\u{1}'..=char::MAX)
        .filter(|letter| !letter.is_whitespace())
        .map(|letter| letter.to_lowercase().collect())
        .collect();
    let refused: Vec<String> =
        sqlx::query_scalar("SELECT tag FROM UNNEST($1::text[]) AS n (tag) WHERE tag <> lower(tag)")
            .bind(&letters)
            .fetch_all(&db.pool)
            .await?;
    assert_eq!(refused, Vec::<String>::new());
    Ok(())
}
