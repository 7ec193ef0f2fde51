//! Changing a task: one version and one event for each difference, in the same order for everyone.

use serde_json::json;
use todo_tasks::task::{self, Priority, Status, TaskInput};
use todo_tasks::{Error, TaskId};
use todo_test_db::TestDb;

use crate::create::everything;
use crate::fixture::{
    Outcome, ada, at_once, before, caller, complete, create, due_at, due_local, edit, events, get, reopen,
};

#[tokio::test]
async fn when_nothing_differs_nothing_is_written() -> Outcome {
    let db = TestDb::new().await;
    let task = create(&db.pool, &ada(), everything()).await?;
    let same = edit(&db.pool, &ada(), task.id, |input| input).await?;
    assert_eq!(same, task);
    let said_otherwise = |input: TaskInput| TaskInput {
        title: format!(" {} ", input.title),
        tags: vec![
            "ZOO".to_owned(),
            "Äpfel".to_owned(),
            "work".to_owned(),
            "zoo".to_owned(),
        ],
        due: Some(due_local("2101-03-01T09:00:00.5", "EUROPE/BERLIN")),
        ..input
    };
    assert_eq!(edit(&db.pool, &ada(), task.id, said_otherwise).await?, task);
    assert_eq!(reopen(&db.pool, &ada(), task.id).await?, task);
    let completed = complete(&db.pool, &ada(), task.id).await?;
    assert_eq!(complete(&db.pool, &ada(), task.id).await?, completed);
    assert_eq!(get(&db.pool, &ada(), task.id).await?, completed);
    assert_eq!(events(&db.pool, task.id).await?.len(), 2);
    Ok(())
}

/// What is changed, how, and which of the task's fields are other than before.
type Step = (
    fn(TaskInput, TaskId) -> TaskInput,
    &'static [&'static str],
    &'static str,
);

const STEPS: [Step; 13] = [
    (
        |input, _| TaskInput {
            title: "other".to_owned(),
            ..input
        },
        &["title"],
        "updated",
    ),
    (
        |input, _| TaskInput {
            description: String::new(),
            ..input
        },
        &["description"],
        "updated",
    ),
    (
        |input, _| TaskInput {
            priority: Priority::Low,
            ..input
        },
        &["priority"],
        "updated",
    ),
    (
        |input, _| TaskInput {
            category: None,
            ..input
        },
        &["category"],
        "updated",
    ),
    (
        |input, _| TaskInput {
            tags: vec!["new".to_owned(), "zoo".to_owned()],
            ..input
        },
        &["tags"],
        "updated",
    ),
    (
        |input, parent| TaskInput {
            parent_id: Some(parent),
            ..input
        },
        &["parent_id"],
        "updated",
    ),
    (
        |input, _| TaskInput {
            due: Some(due_local("2101-03-02T09:00:00", "Europe/Berlin")),
            ..input
        },
        &["due", "series_start"],
        "updated",
    ),
    (
        |input, _| TaskInput {
            reminders: vec![before("60h"), before("5m")],
            ..input
        },
        &["reminders"],
        "updated",
    ),
    (
        |input, _| TaskInput {
            recurrence: None,
            ..input
        },
        &["recurrence", "series_start"],
        "updated",
    ),
    (|input, _| TaskInput { due: None, ..input }, &["due"], "updated"),
    (
        |input, _| TaskInput {
            status: Status::Completed,
            ..input
        },
        &["status", "completed_at"],
        "completed",
    ),
    (
        |input, _| TaskInput {
            status: Status::Open,
            ..input
        },
        &["status", "completed_at"],
        "updated",
    ),
    (
        |input, _| TaskInput {
            title: "both".to_owned(),
            parent_id: None,
            ..input
        },
        &["title", "parent_id"],
        "updated",
    ),
];

#[tokio::test]
async fn each_change_raises_the_version_by_one_and_tells_the_former_values() -> Outcome {
    let db = TestDb::new().await;
    let parent = create(&db.pool, &ada(), TaskInput::titled("parent")).await?;
    let mut task = create(&db.pool, &ada(), everything()).await?;
    for (step, (change, fields, event_type)) in STEPS.into_iter().enumerate() {
        let changed = edit(&db.pool, &ada(), task.id, |input| change(input, parent.id)).await?;
        assert_eq!(changed.version, task.version + 1, "step {step}");
        assert_eq!(get(&db.pool, &ada(), task.id).await?, changed, "step {step}");
        assert_eq!(changed.completed_at.is_some(), changed.status == Status::Completed);

        let event = events(&db.pool, task.id).await?.pop().unwrap();
        assert_eq!(event.event_type, event_type, "step {step}");
        assert_eq!(event.version, changed.version);
        assert_eq!(event.data, serde_json::to_value(&changed)?);
        let former = serde_json::to_value(&task)?;
        let expected = fields.iter().map(|field| ((*field).to_owned(), former[field].clone()));
        assert_eq!(event.previous, Some(expected.collect()), "step {step}");
        task = changed;
    }
    Ok(())
}

#[tokio::test]
async fn a_reminder_that_says_the_same_keeps_its_id() -> Outcome {
    let db = TestDb::new().await;
    let task = create(&db.pool, &ada(), everything()).await?;
    let kept = task
        .reminders
        .iter()
        .find(|reminder| reminder.when == before("60h"))
        .unwrap();
    let changed = edit(&db.pool, &ada(), task.id, |input| TaskInput {
        reminders: vec![before("3600m"), before("1m")],
        ..input
    })
    .await?;
    assert_eq!(changed.reminders.len(), 2);
    assert!(changed.reminders.contains(kept));
    Ok(())
}

#[tokio::test]
async fn a_due_date_in_the_second_pass_of_an_overlap_stays_there() -> Outcome {
    let db = TestDb::new().await;
    let zone = todo_recurrence::zone::time_zone("America/New_York")?;
    let back = zone
        .following("2101-07-01T00:00:00Z".parse()?)
        .find(|change| change.dst() == jiff::tz::Dst::No)
        .unwrap();
    // Half an hour after the clock went back it shows what it showed half an hour before.
    let second_pass = back.timestamp() + jiff::SignedDuration::from_mins(30);
    let input = TaskInput {
        due: Some(todo_tasks::DueInput {
            time_zone: Some("America/New_York".to_owned()),
            ..due_at(second_pass)
        }),
        ..TaskInput::titled("night shift")
    };
    let task = create(&db.pool, &ada(), input).await?;
    let renamed = edit(&db.pool, &ada(), task.id, |input| TaskInput {
        title: "night".to_owned(),
        ..input
    })
    .await?;
    assert_eq!(renamed.due, task.due);
    assert_eq!(renamed.due.unwrap().at, second_pass);
    Ok(())
}

#[tokio::test]
async fn what_the_user_said_survives_a_change_of_a_task_whose_instant_has_old_rules() -> Outcome {
    let db = TestDb::new().await;
    let input = TaskInput {
        due: Some(due_local("2101-12-01T09:00:00", "America/Vancouver")),
        ..TaskInput::titled("before")
    };
    let task = create(&db.pool, &ada(), input).await?;
    sqlx::query("UPDATE tasks SET due_at = '2101-12-01T17:00:00Z'")
        .execute(&db.pool)
        .await?;
    let renamed = edit(&db.pool, &ada(), task.id, |input| TaskInput {
        title: "after".to_owned(),
        ..input
    })
    .await?;
    assert_eq!(renamed.due, task.due);
    Ok(())
}

#[tokio::test]
async fn a_stale_version_is_refused_and_changes_nothing() -> Outcome {
    let db = TestDb::new().await;
    let task = create(&db.pool, &ada(), TaskInput::titled("one")).await?;
    let changed = edit(&db.pool, &ada(), task.id, |input| TaskInput {
        title: "two".to_owned(),
        ..input
    })
    .await?;

    let mut tx = db.pool.begin().await?;
    let (caller, id, stale) = (ada(), task.id, Some(task.version));
    let same = |input: TaskInput| Ok::<_, Error>(input);
    let outcomes = [
        task::change(&mut tx, &caller, id, stale, same).await,
        task::complete(&mut tx, &caller, id, stale).await,
        task::reopen(&mut tx, &caller, id, stale).await,
        task::delete(&mut tx, &caller, id, stale).await,
    ];
    for outcome in outcomes {
        assert!(
            matches!(outcome, Err(Error::VersionMismatch { current: 2 })),
            "{outcome:?}"
        );
    }
    tx.commit().await?;
    assert_eq!(get(&db.pool, &caller, id).await?, changed);
    let completed = commit!(db.pool, |tx| task::complete(&mut tx, &caller, id, Some(2)))?;
    assert_eq!(completed.version, 3);
    Ok(())
}

#[tokio::test]
async fn a_deleted_task_is_gone_but_its_row_and_its_last_event_stay() -> Outcome {
    let db = TestDb::new().await;
    let task = create(&db.pool, &ada(), everything()).await?;
    let deleted = commit!(db.pool, |tx| task::delete(&mut tx, &ada(), task.id, None))?;
    assert_eq!(deleted.version, 2);
    let again = commit!(db.pool, |tx| task::delete(&mut tx, &ada(), task.id, None));
    assert!(matches!(again, Err(Error::NotFound(_))));
    assert!(get(&db.pool, &ada(), task.id).await.is_err());
    let events = events(&db.pool, task.id).await?;
    assert_eq!(events.len(), 2);
    assert_eq!((&*events[1].event_type, events[1].version), ("deleted", 2));
    assert_eq!(events[1].data, serde_json::to_value(&deleted)?);
    assert_eq!(events[1].previous, Some(json!({})));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_get_versions_without_gaps_in_the_order_of_the_outbox() -> Outcome {
    const WRITERS: usize = 16;
    const CHANGES: usize = 6;
    let db = TestDb::new().await;
    let task = create(&db.pool, &ada(), TaskInput::titled("contended")).await?;
    let pool = db.another_pool(16).await;
    let writers = (0..WRITERS).map(|writer| {
        let (pool, id) = (pool.clone(), task.id);
        async move {
            for change in 0..CHANGES {
                edit(&pool, &ada(), id, |input| TaskInput {
                    title: format!("{writer} {change}"),
                    ..input
                })
                .await?;
                // A part under the contended task: its foreign key looks at the row that is being changed.
                let part = TaskInput {
                    parent_id: Some(id),
                    ..TaskInput::titled("part")
                };
                create(&pool, &ada(), part).await?;
            }
            Ok(())
        }
    });
    at_once(writers).await?;
    let versions: Vec<i64> = events(&db.pool, task.id)
        .await?
        .iter()
        .map(|event| event.version)
        .collect();
    let expected: Vec<i64> = (1..=1 + i64::try_from(WRITERS * CHANGES)?).collect();
    assert_eq!(versions, expected);
    assert_eq!(get(&db.pool, &ada(), task.id).await?.version, *expected.last().unwrap());
    pool.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_completions_are_one() -> Outcome {
    let db = TestDb::new().await;
    let task = create(&db.pool, &caller("eve"), TaskInput::titled("once")).await?;
    let pool = db.another_pool(16).await;
    let completions = (0..16).map(|_| {
        let (pool, id) = (pool.clone(), task.id);
        async move { complete(&pool, &caller("eve"), id).await }
    });
    let outcomes = at_once(completions).await?;
    assert!(outcomes.iter().all(|outcome| outcome == &outcomes[0]));
    assert_eq!(outcomes[0].version, 2);
    assert_eq!(events(&db.pool, task.id).await?.len(), 2);
    pool.close().await;
    Ok(())
}
