//! No one sees or changes another user's data.

use todo_tasks::schedule::ScheduleInput;
use todo_tasks::task::{self, Direction, Filter, ListQuery, Sort, TaskInput};
use todo_tasks::{Error, NotificationId, ScheduleId, audit, notification, reminder, schedule};
use todo_test_db::TestDb;

use crate::create::everything;
use crate::fixture::{
    Outcome, ada, before, caller, create, create_schedule, cron, events, get, get_schedule, number, schedule_input,
};

#[tokio::test]
async fn every_command_and_query_refuses_another_users_id() -> Outcome {
    let db = TestDb::new().await;
    let (ada, bob) = (ada(), caller("bob"));
    let task = create(&db.pool, &ada, everything()).await?;
    let schedule = create_schedule(&db.pool, &ada, schedule_input(cron("0 9 * * *", "UTC"))).await?;
    // Five late reminders make a digest and its five rows.
    sqlx::query("UPDATE reminders SET fire_at = now() - interval '1 hour'")
        .execute(&db.pool)
        .await?;
    let second = create(&db.pool, &ada, everything()).await?;
    sqlx::query("UPDATE reminders SET fire_at = now() - interval '1 hour' WHERE task_id = $1")
        .bind(second.id.0)
        .execute(&db.pool)
        .await?;
    commit!(db.pool, |tx| reminder::send_late(&mut tx, 100))?;
    let feed = notification::list(&mut *db.pool.acquire().await?, &ada.user, false, None, 10).await?;
    let digest = feed.items[0].id;
    let reminder = task.reminders[0].id;

    let mut tx = db.pool.begin().await?;
    let same = |input: TaskInput| Ok::<_, Error>(input);
    let same_schedule = |input: ScheduleInput| Ok::<_, Error>(input);
    let (user, id, of) = (&bob.user, task.id, schedule.id);
    let attempts = [
        ("task::get", task::get(&mut tx, user, id).await.map(drop)),
        ("task::lock", task::lock(&mut tx, user, id).await),
        (
            "task::change",
            task::change(&mut tx, &bob, id, None, same).await.map(drop),
        ),
        (
            "task::complete",
            task::complete(&mut tx, &bob, id, None).await.map(drop),
        ),
        ("task::reopen", task::reopen(&mut tx, &bob, id, None).await.map(drop)),
        ("task::delete", task::delete(&mut tx, &bob, id, None).await.map(drop)),
        (
            "audit::history",
            audit::history(&mut tx, user, id, None, 10).await.map(drop),
        ),
        ("reminder::list", reminder::list(&mut tx, user, id).await.map(drop)),
        (
            "reminder::add",
            reminder::add(&mut tx, &bob, id, before("5m")).await.map(drop),
        ),
        ("reminder::remove", reminder::remove(&mut tx, &bob, id, reminder).await),
        ("schedule::get", schedule::get(&mut tx, user, of).await.map(drop)),
        (
            "schedule::change",
            schedule::change(&mut tx, &bob, of, None, same_schedule).await.map(drop),
        ),
        ("schedule::pause", schedule::pause(&mut tx, &bob, of).await.map(drop)),
        ("schedule::resume", schedule::resume(&mut tx, &bob, of).await.map(drop)),
        ("schedule::delete", schedule::delete(&mut tx, &bob, of, None).await),
        (
            "notification::mark_read",
            notification::mark_read(&mut tx, user, digest).await.map(drop),
        ),
        (
            "notification::digest",
            notification::digest(&mut tx, user, digest, None, 10).await.map(drop),
        ),
    ];
    for (command, outcome) in attempts {
        assert!(matches!(outcome, Err(Error::NotFound(_))), "{command}: {outcome:?}");
    }
    tx.commit().await?;

    assert_eq!(get(&db.pool, &ada, task.id).await?, task);
    assert_eq!(get_schedule(&db.pool, &ada, schedule.id).await?, schedule);
    assert_eq!(
        number(&db.pool, "SELECT count(*) FROM outbox WHERE user_id <> 'ada'").await?,
        0
    );
    assert_eq!(number(&db.pool, "SELECT count(read_at) FROM notifications").await?, 0);
    assert_eq!(events(&db.pool, task.id).await?.len(), 1 + task.reminders.len());
    Ok(())
}

#[tokio::test]
async fn lists_hold_only_the_users_own() -> Outcome {
    let db = TestDb::new().await;
    let task = create(&db.pool, &ada(), everything()).await?;
    create_schedule(&db.pool, &ada(), schedule_input(cron("0 9 * * *", "UTC"))).await?;
    sqlx::query("UPDATE reminders SET fire_at = now()")
        .execute(&db.pool)
        .await?;
    commit!(db.pool, |tx| reminder::send_on_time(&mut tx, 100))?;

    for (name, expected) in [("ada", 1), ("bob", 0)] {
        let user = caller(name).user;
        let mut conn = db.pool.acquire().await?;
        let query = ListQuery {
            filter: Filter::default(),
            sort: Sort::CreatedAt,
            direction: Direction::Asc,
            after: None,
            limit: 10,
        };
        assert_eq!(task::list(&mut conn, &user, &query).await?.items.len(), expected);
        assert_eq!(schedule::list(&mut conn, &user, None, 10).await?.items.len(), expected);
        let feed = notification::list(&mut conn, &user, false, None, 10).await?;
        assert_eq!(feed.items.len(), expected * task.reminders.len());
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_id_is_not_found() -> Outcome {
    let db = TestDb::new().await;
    let mut tx = db.pool.begin().await?;
    let unknown = NotificationId::new();
    let outcome = notification::mark_read(&mut tx, &ada().user, unknown).await;
    assert!(matches!(outcome, Err(Error::NotFound(_))));
    let outcome = schedule::get(&mut tx, &ada().user, ScheduleId::new()).await;
    assert!(matches!(outcome, Err(Error::NotFound(_))));
    Ok(())
}
