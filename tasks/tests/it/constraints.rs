//! The database itself refuses what must never be, whoever writes it.

use sqlx::PgPool;
use todo_tasks::task::{Task, TaskInput};
use todo_test_db::TestDb;

use crate::create::everything;
use crate::fixture::{Outcome, ada, caller, create, create_schedule, cron, schedule_input};

/// What the database says to a statement: the constraint that it violates.
async fn refusal(pool: &PgPool, statement: String) -> anyhow::Result<String> {
    let outcome = sqlx::query(sqlx::AssertSqlSafe(statement.clone())).execute(pool).await;
    let Err(error) = outcome else {
        anyhow::bail!("accepted: {statement}")
    };
    let constraint = error.as_database_error().and_then(|error| error.constraint());
    Ok(constraint.unwrap_or_else(|| panic!("{statement}: {error}")).to_owned())
}

async fn two_users(pool: &PgPool) -> anyhow::Result<(Task, Task)> {
    let adas = create(pool, &ada(), everything()).await?;
    let bobs = create(pool, &caller("bob"), everything()).await?;
    Ok((adas, bobs))
}

#[tokio::test]
async fn nothing_of_one_user_refers_to_anothers() -> Outcome {
    let db = TestDb::new().await;
    let (adas, bobs) = two_users(&db.pool).await?;
    sqlx::query("INSERT INTO tags (user_id, name) VALUES ('bob', 'his')")
        .execute(&db.pool)
        .await?;
    let (mine, other) = (adas.id, bobs.id);
    for (statement, constraint) in [
        (
            format!("UPDATE tasks SET parent_id = '{other}' WHERE id = '{mine}'"),
            "tasks_parent",
        ),
        (
            format!("UPDATE tasks SET previous_id = '{other}' WHERE id = '{mine}'"),
            "tasks_previous",
        ),
        (
            format!("INSERT INTO task_tags (user_id, task_id, tag) VALUES ('ada', '{mine}', 'his')"),
            "task_tags_user_id_tag_fkey",
        ),
        (
            format!("INSERT INTO task_tags (user_id, task_id, tag) VALUES ('bob', '{mine}', 'his')"),
            "task_tags_user_id_task_id_fkey",
        ),
        (
            format!(
                "INSERT INTO reminders (id, user_id, task_id, before_seconds) VALUES (gen_random_uuid(), 'bob', '{mine}', 1)"
            ),
            "reminders_user_id_task_id_fkey",
        ),
    ] {
        assert_eq!(refusal(&db.pool, statement).await?, constraint);
    }
    Ok(())
}

#[tokio::test]
async fn a_task_is_whole() -> Outcome {
    let db = TestDb::new().await;
    let task = create(&db.pool, &ada(), everything()).await?;
    for (change, constraint) in [
        ("due_at = NULL", "tasks_due_whole"),
        ("due_zone = NULL", "tasks_due_whole"),
        ("due_local = NULL, due_zone = NULL", "tasks_due_whole"),
        (
            "due_local = NULL, due_zone = NULL, due_at = NULL",
            "tasks_recurrence_due",
        ),
        ("series_start = NULL", "tasks_series_whole"),
        ("status = 'completed'", "tasks_completed_at"),
        ("completed_at = now()", "tasks_completed_at"),
        ("occurrence_at = now()", "tasks_occurrence_whole"),
        ("parent_id = id", "tasks_check"),
        ("title = ''", "tasks_title_check"),
        ("version = 0", "tasks_version_check"),
    ] {
        let statement = format!("UPDATE tasks SET {change} WHERE id = '{}'", task.id);
        assert_eq!(refusal(&db.pool, statement).await?, constraint, "{change}");
    }
    Ok(())
}

#[tokio::test]
async fn a_reminder_is_of_one_kind_never_early_and_not_there_twice() -> Outcome {
    let db = TestDb::new().await;
    let task = create(&db.pool, &ada(), everything()).await?;
    let reminder = task.reminders[0].id;
    for (change, constraint) in [
        ("sent_at = fire_at - interval '1 microsecond'", "reminders_never_early"),
        ("sent_at = now(), fire_at = NULL", "reminders_never_early"),
        ("at_local = now()::timestamp, at_zone = 'UTC'", "reminders_kind"),
        ("before_seconds = NULL", "reminders_kind"),
        ("before_seconds = -1", "reminders_before_seconds_check"),
    ] {
        let statement = format!("UPDATE reminders SET {change} WHERE id = '{reminder}'");
        assert_eq!(refusal(&db.pool, statement).await?, constraint, "{change}");
    }
    let again = "INSERT INTO reminders (id, user_id, task_id, before_seconds, at_local, at_zone)
        SELECT gen_random_uuid(), user_id, task_id, before_seconds, at_local, at_zone
        FROM reminders";
    assert_eq!(refusal(&db.pool, again.to_owned()).await?, "reminders_distinct");

    let told = format!(
        "INSERT INTO notifications (id, user_id, kind, title, task_id, reminder_id, scheduled_for)
        SELECT gen_random_uuid(), 'ada', 'reminder', 'told', '{}', '{reminder}', '2026-01-01T00:00:00Z'
        FROM generate_series(1, 2)",
        task.id
    );
    assert_eq!(refusal(&db.pool, told).await?, "notifications_once");
    Ok(())
}

#[tokio::test]
async fn an_occurrence_has_one_task_and_a_task_one_next() -> Outcome {
    let db = TestDb::new().await;
    let schedule = create_schedule(&db.pool, &ada(), schedule_input(cron("0 9 * * *", "UTC"))).await?;
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.push(create(&db.pool, &ada(), TaskInput::titled("one")).await?);
    }
    let occurrence = |task: &Task| {
        format!(
            "INSERT INTO occurrences (schedule_id, scheduled_for, task_id) VALUES ('{}', '2026-01-01T09:00:00Z', '{}')",
            schedule.id, task.id
        )
    };
    sqlx::query(sqlx::AssertSqlSafe(occurrence(&tasks[0])))
        .execute(&db.pool)
        .await?;
    assert_eq!(refusal(&db.pool, occurrence(&tasks[1])).await?, "occurrences_pkey");

    let next = |task: &Task| {
        format!(
            "UPDATE tasks SET previous_id = '{}' WHERE id = '{}'",
            tasks[0].id, task.id
        )
    };
    sqlx::query(sqlx::AssertSqlSafe(next(&tasks[1])))
        .execute(&db.pool)
        .await?;
    assert_eq!(refusal(&db.pool, next(&tasks[2])).await?, "tasks_previous_id_key");
    assert_eq!(refusal(&db.pool, next(&tasks[0])).await?, "tasks_check1");

    let back = format!("UPDATE schedules SET next_at = cursor_at WHERE id = '{}'", schedule.id);
    assert_eq!(refusal(&db.pool, back).await?, "schedules_check");
    let upper_case = "INSERT INTO tags (user_id, name) VALUES ('ada', 'Home')".to_owned();
    assert_eq!(refusal(&db.pool, upper_case).await?, "tags_name_check");
    Ok(())
}
